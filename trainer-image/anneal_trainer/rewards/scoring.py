"""What a reward is asked, and what it can say: a score, nothing, or that it failed.

Not here: what follows from a failure (`judging`), and any kind of reward.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anneal_api.online import OnError
from anneal_trainer.errors import ConfigError

# Text, or turns of role and content.
Prompt = str | list[dict[str, Any]]
# Of each column, how many rows hold a value of each type; null is none.
Columns = Mapping[str, Mapping[type, int]]
# A termination message holds 4096 bytes of JSON: what is wrong, an answer, its prompt and the end of a traceback have
# to fit, whatever they are written in.
_SHOWN = 300
_SHOWN_BYTES = 500
_TRACE_BYTES = 1600
# With the largest weight, and of the most rewards and answers that there can be, squares still add up in fp32.
_LARGEST = 1e12
_BOUNDS = f"write numbers from -{_LARGEST:g} to {_LARGEST:g}"


@dataclass(frozen=True)
class Batch:
    """Answers to be judged, each with its prompt, its length in tokens and the other columns of its row."""

    prompts: Sequence[Prompt]
    completions: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    lengths: Sequence[int]

    def __len__(self) -> int:
        """How many answers."""
        return len(self.completions)

    def column(self, name: str) -> Sequence[Any]:
        """A column of the data; ConfigError if it has none of that name."""
        if name not in self.columns:
            raise ConfigError(absent(name, self.columns))
        return self.columns[name]


def absent(column: str, columns: Collection[str]) -> str:
    """That there is no such column, and which there are."""
    return f"the data has no column {column}; beside its prompts it has {', '.join(sorted(columns)) or 'none'}"


@dataclass(frozen=True)
class Fit:
    """The types that a column may hold for a reward to read it, and what people call them together."""

    types: tuple[type, ...]
    words: str

    def not_(self, kind: type) -> str:
        """That it is another one."""
        return f"{_CALLED[kind]}, where {self.words} is expected"


_CALLED = {
    str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Why one answer has no score. `silent`: the reward said nothing of it, which `onError: skip` takes as it is."""

    what: str
    silent: bool = False


Score = float | None | Fault
Scorer = Callable[[Batch], list[Score]]


class CallError(Exception):
    """A call that gave no scores at all.

    `cut_off`: it took too long, or its process died. `temporary`: it may go well at another time. `of_answers`: they
    may be why.
    """

    def __init__(
        self, what: str, *, trace: str = "", cut_off: bool = False, temporary: bool = False, of_answers: bool = True
    ) -> None:
        super().__init__(what)
        self.what = shown(what, 2 * _SHOWN)
        self.trace = last_lines(trace)
        self.cut_off = cut_off
        self.temporary = temporary
        self.of_answers = of_answers


@dataclass
class Failures:
    """What is told of failures that do not end the job: the first ones whole, later ones in a line now and then."""

    every: float = 60.0
    _answers: int = 0
    _told: float | None = None

    def add(self, answers: int) -> tuple[int, bool] | None:
        """The number of answers to tell of now, and whether they are the first; None where it is too early."""
        self._answers += answers
        before, now = self._told, time.monotonic()
        if before is not None and now - before < self.every:
            return None
        number, self._answers, self._told = self._answers, 0, now
        return number, before is None


@dataclass(frozen=True)
class Source:
    """A reward that is ready to be asked."""

    name: str
    weight: float
    on_error: OnError
    score: Scorer
    failures: Failures = field(default_factory=Failures)


def checked(values: Any, count: int) -> list[Score]:
    """What a function or a server returned, as scores; CallError if it is not one value an answer."""
    if not isinstance(values, list):
        raise CallError(f"returned {described(values)}, where a list of {count} numbers is expected")
    if len(values) != count:
        raise CallError(f"returned {len(values)} values for {count} answers")
    return [_score(value) for value in values]


def _score(value: Any) -> Score:
    if value is None:
        return Fault("returned None: write onError: skip if it says nothing of some answers", silent=True)
    if not isinstance(value, int | float):
        return Fault(f"returned {described(value)}, where a number is expected")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return Fault(f"returned {number}, which is no reward" + (f": {_BOUNDS}" if math.isinf(number) else ""))
    if abs(number) > _LARGEST:
        return Fault(f"returned {number:g}, which is no reward: {_BOUNDS}")
    return number


@dataclass(frozen=True)
class Unfit:
    """Something that is no number and no list, as its process described it."""

    words: str


def described(value: Any) -> str:
    """The type and the beginning of a value, for a message."""
    if isinstance(value, Unfit):
        return value.words
    return "None" if value is None else f"{type(value).__name__} {shown(repr(value))}"


def shown(text: str, most: int = _SHOWN) -> str:
    """Not more of a text than a message can hold."""
    if len(text) <= most and _size(text) <= _SHOWN_BYTES:
        return text
    kept = text[:most]
    while _size(kept) > _SHOWN_BYTES:
        kept = kept[: len(kept) * _SHOWN_BYTES // _size(kept)]
    return f"{kept}…"


def last_lines(trace: str) -> str:
    """The end of a traceback, where the error is."""
    lines, size = [shown(line) for line in trace.rstrip("\n").split("\n")], 0
    for count, line in enumerate(reversed(lines)):
        size += _size(line) + len(r"\n")
        if size > _TRACE_BYTES:
            return "\n".join(("…", *lines[len(lines) - count :]))
    return "\n".join(lines)


def _size(text: str) -> int:
    """Bytes in JSON, where a character can take twelve."""
    return len(json.dumps(text)) - len('""')
