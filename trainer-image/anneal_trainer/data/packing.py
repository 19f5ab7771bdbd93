"""Which rows share a sequence: best-fit decreasing, which wastes hardly anything, on a histogram, which makes it fast.

Rows of one length are interchangeable, and so are packs with the same room left; so whole groups are placed at once,
and the result is the same as placing row after row, the longest first, each into the fullest pack that still has room.
Not here: what keeps the rows of a pack apart in training (`methods.packs`), and which row comes when (`order`).
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Room:
    """Packs by the room that is left in them, and the sizes of room that there are, in order."""

    packs: dict[int, list[int]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def add(self, size: int, packs: list[int]) -> None:
        """A pack without room for a single token is done."""
        if not size or not packs:
            return
        if size not in self.packs:
            self.packs[size] = []
            insort(self.sizes, size)
        self.packs[size] += packs

    def take(self, size: int, most: int) -> list[int]:
        """At most so many packs with this much room."""
        found = self.packs[size]
        taken = found[-most:]
        del found[-most:]
        if not found:
            del self.packs[size]
            self.sizes.remove(size)
        return taken

    def tightest(self, length: int) -> int | None:
        """The least room that a row of `length` fits into."""
        place = bisect_left(self.sizes, length)
        return self.sizes[place] if place < len(self.sizes) else None


def pack(lengths: Any, capacity: int) -> tuple[Any, Any]:
    """Rows grouped into packs of at most `capacity` tokens: the row numbers, pack after pack, and where each begins.

    The second array has one entry more than there are packs. ValueError if a row is longer than a pack or empty.
    """
    import numpy as np

    lengths = np.asarray(lengths)
    if lengths.size and not 0 < lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"rows must have 1 to {capacity} tokens to be packed, got {lengths.min()} to {lengths.max()}")
    pack_of, count = _assigned(lengths, capacity)
    order = np.argsort(pack_of, kind="stable")
    starts = np.searchsorted(pack_of[order], np.arange(count + 1))
    return order, starts


def _assigned(lengths: Any, capacity: int) -> tuple[Any, int]:
    """The pack of each row, and the number of packs."""
    import numpy as np

    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    placed = np.empty(len(lengths), dtype=np.int64)
    room, packs, start = _Room(), 0, 0
    for length, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        chosen, packs = _place(length, count, room, capacity=capacity, packs=packs)
        placed[start : start + count] = chosen
        start += count
    pack_of = np.empty(len(lengths), dtype=np.int64)
    pack_of[longest_first] = placed
    return pack_of, packs


def _place(length: int, count: int, room: _Room, *, capacity: int, packs: int) -> tuple[Any, int]:
    """A pack for each of `count` rows of one length: open packs first, the fullest first, then new ones."""
    import numpy as np

    chosen: list[Any] = []
    while count:
        size = room.tightest(length)
        if size is None:
            needed = -(-count // (capacity // length))
            size, taken = capacity, list(range(packs, packs + needed))
            packs += needed
        else:
            taken = room.take(size, -(-count // (size // length)))
        each = size // length
        filled = np.repeat(np.asarray(taken), each)[:count]
        last = len(filled) - each * (len(taken) - 1)
        room.add(size - each * length, taken[:-1])
        room.add(size - last * length, taken[-1:])
        chosen.append(filled)
        count -= len(filled)
    return np.concatenate(chosen), packs
