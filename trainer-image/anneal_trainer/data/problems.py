"""Everything that is wrong with the data, so that it can be told at once: the first few in full, the rest counted."""

from anneal_trainer.errors import SHOWN_PROBLEMS, DataError, listed


class Problems:
    """Collects problems; a data set with a million broken lines takes no more memory than one with twenty."""

    def __init__(self) -> None:
        self.total = 0
        self._first: list[str] = []

    def add(self, place: str, message: str) -> None:
        """One more: where, and what is wrong there."""
        self.total += 1
        if len(self._first) < SHOWN_PROBLEMS:
            self._first.append(f"{place}: {message}")

    def raise_if_any(self) -> None:
        """DataError with what was collected."""
        if self.total:
            raise DataError(listed(self._first, self.total))
