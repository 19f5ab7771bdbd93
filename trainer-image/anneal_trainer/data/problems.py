"""Everything that is wrong with the data, so that it can be told at once: the first few in full, the rest counted.

A problem is of one row, and `preparation.onBadRow: drop` can live with it; or of a whole source (`fatal`), and nothing
can. A remark is about what can be used, and should be known. Not here: which problems end a job (`build`).
"""

from dataclasses import dataclass, field

from anneal_trainer.data.pieces import Note
from anneal_trainer.errors import DataError, listed

PLACES = 100
# Names and values in a message are people's, and may be of any length.
_LONGEST = 1000


@dataclass
class Lost:
    """Rows that are not trained on for one reason; or of which one thing is worth telling."""

    rows: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """One more."""
        self.rows += 1
        if len(self.places) < PLACES:
            self.places.append(line(place))

    def absorb(self, other: "Lost") -> None:
        """Those of another part."""
        self.rows += other.rows
        self.places += other.places[: PLACES - len(self.places)]


def line(text: str) -> str:
    """`text` as one line of bounded length that every terminal and file takes."""
    flat = " ".join(text[: 2 * _LONGEST].encode("utf-8", "backslashreplace").decode().split())
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"


class Problems:
    """Collects problems; a data set with a million broken lines takes no more memory than one with twenty."""

    def __init__(self) -> None:
        self.total = 0
        self.fatal = 0
        self.first: list[str] = []
        self.remarks: dict[tuple[str, str], Lost] = {}

    def add(self, place: str, message: str, *, fatal: bool = False) -> None:
        """One more: where, and what is wrong there. `fatal`: it is not one row's, or dropping rows would hide it."""
        self.total += 1
        self.fatal += fatal
        if len(self.first) < PLACES:
            self.first.append(line(f"{place}: {message}"))

    def remark(self, place: str, note: Note) -> None:
        """Something worth telling of what is there."""
        self.remarks.setdefault(note.key, Lost()).add(f"{place}; {note.detail}" if note.detail else place)

    @property
    def notes(self) -> list[Note]:
        """What was remarked on, without places."""
        return [Note(reason, kind) for reason, kind in self.remarks]

    def absorb(self, other: "Problems") -> None:
        """Those of a part of the data, after the ones that are here."""
        self.total += other.total
        self.fatal += other.fatal
        self.first += other.first[: PLACES - len(self.first)]
        for key, found in other.remarks.items():
            self.remarks.setdefault(key, Lost()).absorb(found)

    @property
    def rows(self) -> int:
        """Those that are of one row each."""
        return self.total - self.fatal

    def raise_if_any(self) -> None:
        """DataError with what was collected."""
        if self.total:
            raise DataError(listed(self.first, self.total))
