"""Reading sources in tests: rows, places and problems, each share through pickle as a worker gets it."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import sources
from anneal_trainer.data.problems import Problems
from anneal_trainer.errors import DataError

ROWS: list[dict[str, Any]] = [{"text": "one"}, {"text": "two ü"}, {"text": "three"}]


@dataclass(frozen=True)
class Found:
    """What a source gave."""

    rows: list[dict[str, Any]]
    places: list[str]
    problems: list[str]
    chunks: int


def read(source: str, volumes: dict[str, Path] | None = None, **options: Any) -> Found:
    """Everything of an entry."""
    dataset = DatasetSpec.model_validate({"source": source, **options})
    problems, found, count = Problems(), [], 0
    for chunk in sources.chunks(dataset, volumes or {}, problems):
        count += 1
        found += list(pickle.loads(pickle.dumps(chunk)).read(problems))
    return Found([placed.row for placed in found], [placed.place for placed in found], lines(problems), count)


def lines(problems: Problems) -> list[str]:
    """What a person is told."""
    try:
        problems.raise_if_any()
    except DataError as error:
        return str(error).splitlines()
    return []
