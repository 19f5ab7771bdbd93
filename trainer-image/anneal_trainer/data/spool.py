"""Tokenized rows between the two passes: numbers on the disk, so that memory does not grow with the data.

Processes append to a file of their own, every id with its label behind it, and remember where each sequence begins.
The second pass reads single sequences in whatever order it decides on. Reads are plain and not through a memory map:
mapped pages would count as the process's own. Not here: what is worth keeping (`shape`), and Arrow (`store`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TYPE = "int32"
# Of an id and its label.
WIDTH = 8


class SpoolWriter:
    """One process's file. `write` returns where what was written begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("ab")

    def write(self, arrays: list[Any]) -> int:
        """Arrays one after another; flushed, so that another process can read them."""
        place = self._stream.tell()
        for array in arrays:
            self._stream.write(array.tobytes())
        self._stream.flush()
        return place


@dataclass(frozen=True)
class Sequences:
    """Where every sequence is: its file (a number), the first byte in it, and its length in tokens."""

    files: list[Path]
    file: Any
    offset: Any
    length: Any


class SpoolReader:
    """Reads single sequences."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._open: list[int] = []

    def __enter__(self) -> Self:
        self._open = [os.open(path, os.O_RDONLY) for path in self._sequences.files]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def texts(self, numbers: Any, places: Any) -> list[str]:
        """The texts beside these sequences, by first byte and length."""
        found = zip(self._sequences.file[numbers].tolist(), places.tolist(), strict=True)
        return [os.pread(self._open[file], length, offset).decode() for file, (offset, length) in found]

    def read(self, numbers: Any) -> tuple[Any, Any, Any]:
        """Ids, labels and lengths of these sequences, each flat and the caller's own."""
        import numpy as np

        where = self._sequences
        lengths = where.length[numbers]
        places = zip(where.file[numbers].tolist(), where.offset[numbers].tolist(), lengths.tolist(), strict=True)
        parts = [os.pread(self._open[file], WIDTH * length, offset) for file, offset, length in places]
        pairs = np.frombuffer(b"".join(parts), dtype=TYPE).reshape(-1, 2)
        return pairs[:, 0].copy(), pairs[:, 1].copy(), lengths
