"""A row with its place, and a chunk: a bounded share of a source that any process can read.

The parent finds the chunks (cheap: bytes are counted, not parsed) and may hand each to a worker; both ends see the same
rows in the same order. A chunk is about `CHUNK_BYTES` of input or `CHUNK_ROWS` rows, so that what a worker gives back
is bounded too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from anneal_trainer.data.problems import Problems

Row = dict[str, Any]
CHUNK_BYTES = 4 << 20
CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Placed:
    """A row and where it is: `file` as the user writes it, `unit` and `number` within it."""

    file: str
    unit: str
    number: int
    row: Row

    @property
    def place(self) -> str:
        """For an error message."""
        return f"{self.file}, {self.unit} {self.number}"


class Chunk(Protocol):
    """Picklable; reading it may add to `problems`, and raises TrainerError where nothing more can be read."""

    def read(self, problems: Problems) -> Iterator[Placed]:
        """Its rows, in order."""


@dataclass(frozen=True)
class Rows:
    """Rows that were parsed already: of a format that cannot be cut without parsing it."""

    file: str
    unit: str
    rows: tuple[tuple[int, Row], ...]

    def read(self, problems: Problems) -> Iterator[Placed]:  # noqa: ARG002 - told when they were parsed
        """Its rows, in order."""
        for number, row in self.rows:
            yield Placed(self.file, self.unit, number, row)


def packed(file: str, unit: str, rows: Iterable[tuple[int, Row]]) -> Iterator[Rows]:
    """`rows` in chunks."""
    part, size = list[tuple[int, Row]](), 0
    for number, row in rows:
        part.append((number, row))
        size += _size(row)
        if size >= CHUNK_BYTES or len(part) >= CHUNK_ROWS:
            yield Rows(file, unit, tuple(part))
            part, size = [], 0
    if part:
        yield Rows(file, unit, tuple(part))


def _size(value: Any) -> int:
    """About how many bytes a value takes: texts by their length, all else as little."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8
