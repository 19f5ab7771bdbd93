"""What runs on this machine have made: what `job://KIND/NAME` stands for without a cluster.

A run that has ended leaves a record in its directory below the storage, `runs/NAME` of a FineTuneJob and
`runs/NAME-rlhf` of an RLHFJob, where a job that names it looks. The record stands until another result takes its place:
a run of the same name that is going on, or was interrupted, takes nothing away.
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
from anneal_trainer import console
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError
from anneal_trainer.files import read_json

DEFAULT_STORAGE = Path("anneal-storage")
# The claim's name where a job names none: it appears in the URIs of results only.
LOCAL_CLAIM = "local"
RECORD = "run.json"
# In the record: what the latest run that reached its end has made.
RESULT = "made"


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
    """What a run that has reached its end says of its result."""
    spec = context.spec
    # The next run may be started somewhere else.
    source = str(Path(spec.model.source).resolve()) if is_local(spec.model.source) else spec.model.source
    found = origin.Made(
        method=spec.method,
        source=source,
        revision=spec.model.revision,
        adapter=spec.adapter is not None,
        sources=context.file.sources,
        outputs=tuple(outputs),
    )
    return found.dump()


def sources(job: Job, storage: Path) -> tuple[SourceReport, ...]:
    """What the job:// sources of a job stand for; InputError for a run that is not there or of no use."""
    return tuple(_pinned(named, job, storage) for named in _wanted(job).values())


def _wanted(job: Job) -> dict[str, ModelSource]:
    return {
        named.source: named
        for named in (*job.spec.models, *job.spec.judges)
        if parse_source(named.source).scheme == "job"
    }


def _pinned(named: ModelSource, job: Job, storage: Path) -> SourceReport:
    record = _record(named.source, storage)
    if not record.get(RESULT):
        raise InputError(f"{named}: {_absence(named.source, record, storage)}")
    found = origin.Made.model_validate(record[RESULT])
    problem = origin.misuse(named, method=job.spec.method, made=found) or origin.no_start(named, found)
    if problem:
        raise InputError(problem)
    if not record["done"]:
        console.say(f"note: {named}: its latest run has not ended; this job starts from the result of the one before")
    return origin.pin(named.source, found)


def _absence(source: str, record: dict[str, Any], storage: Path) -> str:
    """Why there is no result, and what to do."""
    if not record and _record(origin.other_kind(source), storage):
        return origin.correction(source)
    state = "has not ended" if record else "is not there"
    return (
        f"the run of {origin.shown(source)} in {_run(source, storage)} {state}: run it to its end first (anneal run), "
        "with the same storage"
    )


def _record(source: str, storage: Path) -> dict[str, Any]:
    """What the run of a job:// source has left; empty if it was another job's."""
    found = read_json(_run(source, storage) / RECORD) or {}
    return found if origin.address(found.get("kind", ""), found.get("name", "")) == source else {}


def _run(source: str, storage: Path) -> Path:
    kind, _, name = origin.shown(source).partition("/")
    return storage / JobFile.local_run(kind, name)
