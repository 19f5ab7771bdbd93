"""The claims that a job names, and the directories that `--volume CLAIM=DIR` gives them.

Pure but for one look at the file system: that a directory is there. Not here: what is below it.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from anneal_api import Job, Problem
from anneal_api.base import walk_blocks
from anneal_api.datasource import DataSource
from anneal_api.methods import ReferenceSpec
from anneal_api.model import ModelSpec
from anneal_api.online import ModelReward
from anneal_api.sources import parse_source


def sources(job: Job) -> Iterator[tuple[str, str]]:
    """Every source of a job with its path, like `spec.datasets[0].source`."""
    for path, block in walk_blocks(job.spec, "spec"):
        if isinstance(block, ModelSpec | ReferenceSpec | ModelReward | DataSource) and block.source:
            yield f"{path}.source", block.source


def used_claims(job: Job, *, storage: bool = True) -> dict[str, str]:
    """Each claim that the job reads or, with `storage`, writes, with the first field that names it.

    What another job has made is on the storage.
    """
    claims: dict[str, str] = {}
    storage = storage or any(parse_source(text).scheme == "job" for _, text in sources(job))
    if storage and job.spec.storage and job.spec.storage.volume:
        claims[job.spec.storage.volume.claim_name] = "spec.storage.volume.claimName"
    for path, text in sources(job):
        source = parse_source(text)
        if source.scheme == "volume":
            claims.setdefault(source.claim, path)
    return claims


def parse_mappings(options: Iterable[str]) -> tuple[dict[str, Path], list[Problem]]:
    """`CLAIM=DIR` options as a mapping, and what is wrong with them."""
    mapped: dict[str, Path] = {}
    problems = []
    for option in options:
        claim, separator, directory = option.partition("=")
        if not (claim and separator and directory):
            problems.append(Problem(f"--volume {option}", "write CLAIM=DIR, like --volume runs=./runs"))
        elif claim in mapped:
            problems.append(Problem(f"--volume {option}", f"the claim {claim!r} has a directory already: remove one"))
        elif not Path(directory).expanduser().is_dir():
            problems.append(Problem(f"--volume {option}", f"no such directory; make it with: mkdir -p {directory}"))
        else:
            mapped[claim] = Path(directory).expanduser().resolve()
    return mapped, problems


def unmapped(job: Job, mapped: Collection[str], *, storage: bool = True) -> list[Problem]:
    """A problem for each claim of the job without a directory."""
    return [
        Problem(path, f"no directory is given for the claim {claim!r}: add --volume {claim}=DIR")
        for claim, path in used_claims(job, storage=storage).items()
        if claim not in mapped
    ]
