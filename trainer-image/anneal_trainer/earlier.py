"""What runs on this machine have made: what `job://KIND/NAME` stands for without a cluster.

A run that has ended leaves a record in its directory, `runs/NAME` below the storage, where a job that names it looks.
Not here: what a result means to its followers (`anneal_api.origin`), and running anything (`local`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anneal_api import origin
from anneal_api.job import Job, JobSpec
from anneal_api.jobfile import JobFile
from anneal_api.model import ModelSource
from anneal_api.sources import UnmappedVolumeError, is_local, parse_source
from anneal_api.status import Output, SourceReport
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError
from anneal_trainer.files import read_json

DEFAULT_STORAGE = Path("anneal-storage")
# The claim's name where a job names none: it appears in the URIs of results only.
LOCAL_CLAIM = "local"
RECORD = "run.json"


def storage_of(spec: JobSpec, volumes: dict[str, Path], default: Path) -> tuple[str, dict[str, Path]]:
    """The claim of a job's storage, and the directories of all claims, that one among them."""
    if spec.storage is None:
        return LOCAL_CLAIM, {LOCAL_CLAIM: default.resolve(), **volumes}
    claim = spec.storage.volume.claim_name
    if claim not in volumes:
        raise InputError(str(UnmappedVolumeError(claim)))
    return claim, volumes


def looking(job: Job, volumes: dict[str, Path]) -> Context:
    """The context of a job of which only the data is looked at. Its storage is needed for job:// sources alone."""
    if not _wanted(job):
        return Context(JobFile(job=job, storage_claim=""), volumes)
    claim, volumes = storage_of(job.spec, volumes, DEFAULT_STORAGE)
    return Context(JobFile(job=job, storage_claim=claim, sources=sources(job, volumes[claim])), volumes)


def made(context: Context, outputs: Sequence[Output]) -> dict[str, Any]:
    """What a run that has reached its end adds to its record."""
    spec = context.spec
    # The next run may be started somewhere else.
    source = str(Path(spec.model.source).resolve()) if is_local(spec.model.source) else spec.model.source
    found = origin.Made(
        method=spec.method,
        source=source,
        revision=spec.model.revision,
        sources=context.file.sources,
        outputs=tuple(outputs),
    )
    return {"kind": context.job.kind, "name": context.job.name, "made": found.dump()}


def sources(job: Job, storage: Path) -> tuple[SourceReport, ...]:
    """What the job:// sources of a job stand for; InputError for a run that is not there or of no use."""
    return tuple(_pinned(named, job, storage) for named in _wanted(job).values())


def _wanted(job: Job) -> dict[str, ModelSource]:
    return {named.source: named for named in job.spec.models if parse_source(named.source).scheme == "job"}


def _pinned(named: ModelSource, job: Job, storage: Path) -> SourceReport:
    kind, _, name = parse_source(named.source).path.partition("/")
    run = storage / JobFile.local_run(name)
    if JobFile.local_run(name) == JobFile.local_run(job.name):
        raise InputError(f"{named}: without a cluster both would run in {run}: give this job another metadata.name")
    record = read_json(run / RECORD) or {}
    if record.get("done") and origin.address(record.get("kind", ""), record.get("name", "")) == named.source:
        found = origin.Made.model_validate(record["made"])
        problem = origin.misuse(named, method=job.spec.method, made_by=found.method) or origin.no_start(named, found)
        if problem:
            raise InputError(problem)
        return origin.pin(named.source, found)
    state = "has not ended" if record and not record.get("done") else "is not there"
    raise InputError(
        f"{named}: the run of {kind}/{name} in {run} {state}: run it to its end first (anneal run), "
        "with the same storage"
    )
