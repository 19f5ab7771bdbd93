"""Rows that are much alike: MinHash signatures (rensa), found again by bands of them, and compared before they count.

A row is the set of its runs of five tokens. Runs that most rows of a chunk have are a template or a system prompt and
say nothing about the row, so they are left out. Signatures and band keys stay on the disk, a band is in memory at a
time; so the index takes 8 bytes a row. Not here: rows that are equal (`decide`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERMUTATIONS = 128
_RUN = 5
_SEED = 42
_COMMON = 0.5
# A share of few rows says nothing about a template.
_ENOUGH_ROWS = 20
_FOUND = 0.98


def band_rows(similarity: float) -> int:
    """Numbers in a band: the most with which 98 of 100 pairs that are so alike share at least one band."""
    sizes = (32, 16, 8, 4, 2)
    return next(r for r in sizes if 1 - (1 - similarity**r) ** (PERMUTATIONS // r) >= _FOUND or r == sizes[-1])


def signatures(ids: Any, starts: Any) -> Any:
    """One signature a row, of rows laid flat."""
    import numpy as np
    from rensa import RMinHash

    runs, row = _runs(ids.astype(np.uint64), starts)
    kept = ~_common(runs, row, len(starts) - 1)
    # A row of nothing but common runs, or of less than one run, is told by what it has.
    bare = np.bincount(row[kept], minlength=len(starts) - 1) == 0
    kept |= bare[row]
    ends = np.cumsum(np.bincount(row[kept], minlength=len(starts) - 1))
    bounds = np.concatenate(([0], ends)).astype(np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(runs[kept], bounds, PERMUTATIONS, _SEED)
    return np.asarray(found.to_rows(), dtype=np.uint32).reshape(-1, PERMUTATIONS)


def _runs(ids: Any, starts: Any) -> tuple[Any, Any]:
    """A hash of the tokens from each place on, as far as its row goes, and the row of each."""
    import numpy as np

    lengths = np.diff(starts)
    row = np.repeat(np.arange(len(lengths)), lengths)
    hashes, ends = np.zeros(len(ids), dtype=np.uint64), starts[1:][row]
    for step in range(_RUN):
        place = np.arange(len(ids)) + step
        inside = place < ends
        value = np.where(inside, ids[np.minimum(place, max(0, len(ids) - 1))] + np.uint64(1), np.uint64(0))
        hashes = _mixed(hashes * np.uint64(0x9E3779B97F4A7C15) + value)
    # The last few places of a row are runs that are too short, unless the row has no other.
    whole = (np.arange(len(ids)) + _RUN <= ends) | (lengths[row] < _RUN)
    return hashes[whole], row[whole]


def _mixed(values: Any) -> Any:
    import numpy as np

    values = (values ^ (values >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(29))


def _common(runs: Any, row: Any, rows: int) -> Any:
    """Which runs most rows have."""
    import numpy as np

    if rows < _ENOUGH_ROWS:
        return np.zeros(len(runs), dtype=bool)
    _, number, counts = np.unique(runs, return_inverse=True, return_counts=True)
    often = np.flatnonzero(counts > _COMMON * rows)
    if not often.size:
        return np.zeros(len(runs), dtype=bool)
    candidates = np.isin(number, often)
    # Each run once a row: a pair as one number sorts much faster than as two.
    pairs = np.unique(number[candidates] * rows + row[candidates])
    spread = np.bincount(pairs // rows, minlength=len(counts))
    common: Any = (spread > _COMMON * rows)[number]
    return common


def keys(found: Any, per_band: int) -> Any:
    """For each band, one after another, a key of every row."""
    import numpy as np

    bands = found.reshape(len(found), -1, per_band).astype(np.uint64)
    result = np.zeros(bands.shape[:2], dtype=np.uint64)
    for column in range(per_band):
        result = _mixed(result * np.uint64(0x9E3779B97F4A7C15) + bands[:, :, column])
    return np.ascontiguousarray(result.T)


@dataclass(frozen=True)
class Part:
    """The signatures of one chunk's rows: at `offset` of `file`, then their band keys."""

    file: Path
    offset: int
    rows: int


def alike(parts: list[Part], candidates: Any, similarity: float) -> Any:
    """Which rows are much like another one that stays; of those the one with the lowest rank does.

    `candidates` are row numbers in the order in which they are to be preferred.
    """
    import numpy as np

    total = sum(part.rows for part in parts)
    rank = np.full(total, -1, dtype=np.int64)
    rank[candidates] = np.arange(len(candidates))
    gone = np.zeros(total, dtype=bool)
    index = _Index(parts)
    for band in range(PERMUTATIONS // band_rows(similarity)):
        values = index.band(band)
        rows = candidates[~gone[candidates]]
        order = rows[np.lexsort((rank[rows], values[rows]))]
        same = values[order[1:]] == values[order[:-1]]
        if not same.any():
            continue
        leads = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(order)), 0))
        others = np.flatnonzero(np.concatenate(([False], same)))
        for first, other in zip(order[leads[others]].tolist(), order[others].tolist(), strict=True):
            if index.similarity(first, other) >= similarity:
                gone[other] = True
    return gone


class _Index:
    """Band keys and signatures on the disk."""

    def __init__(self, parts: list[Part]) -> None:
        import numpy as np

        self._parts = parts
        self._ends = np.cumsum([part.rows for part in parts])

    def band(self, number: int) -> Any:
        """The keys of one band, of all rows."""
        import numpy as np

        found = []
        for part in self._parts:
            place = part.offset + part.rows * (4 * PERMUTATIONS + 8 * number)
            found.append(np.fromfile(part.file, dtype=np.uint64, count=part.rows, offset=place))
        return np.concatenate(found)

    def similarity(self, one: int, other: int) -> float:
        """The share of equal numbers: an estimate of the Jaccard similarity."""
        return float((self._signature(one) == self._signature(other)).mean())

    def _signature(self, row: int) -> Any:
        import numpy as np

        which = int(np.searchsorted(self._ends, row, side="right"))
        part = self._parts[which]
        within = row - (int(self._ends[which]) - part.rows)
        descriptor = os.open(part.file, os.O_RDONLY)
        try:
            data = os.pread(descriptor, 4 * PERMUTATIONS, part.offset + 4 * PERMUTATIONS * within)
        finally:
            os.close(descriptor)
        return np.frombuffer(data, dtype=np.uint32)
