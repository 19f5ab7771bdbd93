"""The claims and ConfigMaps that a job names, and the directories that stand for them here.

Pure but for one look at the file system: that a directory is there. Not here: what is below it.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from anneal_api import Job, Problem
from anneal_api.base import walk_blocks
from anneal_api.datasource import DataSource
from anneal_api.methods import ReferenceSpec
from anneal_api.model import ModelSpec
from anneal_api.online import FunctionReward, ModelReward
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


class Option(NamedTuple):
    """An option that gives a directory to an object of the cluster."""

    name: str
    what: str
    form: str
    example: str


VOLUME = Option("--volume", "claim", "CLAIM=DIR", "runs=./storage")
CONFIG_MAP = Option("--config-map", "ConfigMap", "NAME=DIR", "my-rewards=./rewards")


def parse_mappings(texts: Iterable[str], option: Option = VOLUME) -> tuple[dict[str, Path], list[Problem]]:
    """What one option was given as a mapping, and what is wrong with it."""
    mapped: dict[str, Path] = {}
    problems = []
    for text in texts:
        name, separator, directory = text.partition("=")
        place = f"{option.name} {text}"
        if not (name and separator and directory):
            problems.append(Problem(place, f"write {option.form}, like {option.name} {option.example}"))
        elif name in mapped:
            problems.append(Problem(place, f"the {option.what} {name!r} has a directory already: remove one"))
        elif not Path(directory).expanduser().is_dir():
            problems.append(Problem(place, f"no such directory; make it with: mkdir -p {directory}"))
        else:
            mapped[name] = Path(directory).expanduser().resolve()
    return mapped, problems


def unmapped(job: Job, mapped: Collection[str], *, storage: bool = True) -> list[Problem]:
    """A problem for each claim of the job without a directory."""
    return [
        Problem(path, f"no directory is given for the claim {claim!r}: add --volume {claim}=DIR")
        for claim, path in used_claims(job, storage=storage).items()
        if claim not in mapped
    ]


def unmapped_config_maps(job: Job, mapped: Collection[str]) -> list[Problem]:
    """A problem for each ConfigMap with reward functions that has no directory."""
    named: dict[str, str] = {}
    for path, block in walk_blocks(job.spec, "spec"):
        if isinstance(block, FunctionReward) and block.config_map:
            named.setdefault(block.config_map, f"{path}.configMap")
    return [
        Problem(path, f"no directory is given for the ConfigMap {name!r}: add --config-map {name}=DIR")
        for name, path in named.items()
        if name not in mapped
    ]
