"""`shards`, `limit` and `shuffle` of an entry: which of its rows are taken, exactly, whatever they are read from.

Rows are counted, so their numbers decide, in one process: the rows that are taken are handed on parsed. For a sample
the source is read twice, and only numbers are remembered. Not here: sampling by weight over several entries (`build`).
"""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice

from anneal_api.datasource import DataSource
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.placed import Chunk, Placed, Rows, packed

Source = Callable[[Problems], Iterable[Chunk]]


def selects(dataset: DataSource) -> bool:
    """Whether an entry takes only some of its rows."""
    return dataset.limit is not None or dataset.shards is not None


def selected(dataset: DataSource, source: Source, problems: Problems, seed: int) -> Iterator[Rows]:
    """The rows that an entry takes, in the order of the source. Problems are those of the rows that were read."""
    taken = _sharded(dataset, _all(source, problems))
    if dataset.limit is not None and dataset.shuffle:
        taken = _sample(dataset, source, taken, seed)
    return _handed_on(islice(taken, dataset.limit))


def _all(source: Source, problems: Problems) -> Iterator[Placed]:
    for chunk in source(problems):
        yield from chunk.read(problems)


def _sharded(dataset: DataSource, rows: Iterator[Placed]) -> Iterator[Placed]:
    return islice(rows, dataset.shards_idx or 0, None, dataset.shards or 1)


def _sample(dataset: DataSource, source: Source, rows: Iterator[Placed], seed: int) -> Iterator[Placed]:
    """`limit` rows by seed: counted first, then chosen by number."""
    # The first reading is for counting alone: what is wrong is told by the second.
    count = sum(1 for _ in _sharded(dataset, _all(source, Problems())))
    assert dataset.limit is not None, "a rule of the entry"
    chosen = set(random.Random(seed).sample(range(count), min(dataset.limit, count)))  # noqa: S311 - reproducible
    return (placed for index, placed in enumerate(rows) if index in chosen)


def _handed_on(rows: Iterator[Placed]) -> Iterator[Rows]:
    for (file, unit), group in groupby(rows, key=lambda placed: (placed.file, placed.unit)):
        yield from packed(file, unit, ((placed.number, placed.row) for placed in group))
