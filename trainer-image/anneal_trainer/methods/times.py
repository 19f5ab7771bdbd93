"""What the seconds of an online step go into, so that a run can say what it waits for.

Not here: the pace of a run (`follow`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, get_args

Kind = Literal["generate", "sync", "reward", "wait", "train"]
PREFIX = "time/"
KINDS: tuple[Kind, ...] = get_args(Kind)


class Times:
    """Seconds since `begin`, of each kind; what is of no other kind is train."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self._begun = perf_counter()
        self._spent: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)

    @contextmanager
    def of(self, kind: Kind) -> Iterator[None]:
        """What the block takes is of that kind."""
        begun = perf_counter()
        try:
            yield
        finally:
            self._spent[kind] += perf_counter() - begun

    def move(self, seconds: float, *, source: Kind, target: Kind) -> None:
        """Part of one kind is found to be of another; what there is not of it was before this step."""
        seconds = min(seconds, self._spent[source])
        self._spent[source] -= seconds
        self._spent[target] += seconds

    @property
    def told(self) -> dict[str, float]:
        """By their names as metrics, until now."""
        rest = perf_counter() - self._begun - sum(self._spent.values())
        found = self._spent | {"train": self._spent["train"] + rest}
        return {f"{PREFIX}{kind}": seconds for kind, seconds in found.items()}
