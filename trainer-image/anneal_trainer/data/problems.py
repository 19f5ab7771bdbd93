"""Everything that is wrong with the data, so that it can be told at once: the first few in full, the rest counted.

A problem is of one row, and `preparation.onBadRow: drop` can live with it; or of a whole source (`fatal`), and nothing
can. Not here: which of them end a job (`build`).
"""

from anneal_trainer.errors import SHOWN_PROBLEMS, DataError, listed


class Problems:
    """Collects problems; a data set with a million broken lines takes no more memory than one with twenty."""

    def __init__(self) -> None:
        self.total = 0
        self.fatal = 0
        self.first: list[str] = []

    def add(self, place: str, message: str, *, fatal: bool = False) -> None:
        """One more: where, and what is wrong there. `fatal`: it is not one row's, or dropping rows would hide it."""
        self.total += 1
        self.fatal += fatal
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(f"{place}: {message}")

    def absorb(self, other: "Problems") -> None:
        """Those of a part of the data, after the ones that are here."""
        self.total += other.total
        self.fatal += other.fatal
        self.first += other.first[: SHOWN_PROBLEMS - len(self.first)]

    @property
    def rows(self) -> int:
        """Those that are of one row each."""
        return self.total - self.fatal

    def raise_if_any(self) -> None:
        """DataError with what was collected."""
        if self.total:
            raise DataError(listed(self.first, self.total))
