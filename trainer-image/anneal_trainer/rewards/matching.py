"""The expected answer is in a column of the data: the same text, somewhere in the answer, or the same in mathematics.

A row whose column is null has nothing to be compared with: the reward says nothing of its answers.
"""

import json
from importlib.util import find_spec
from typing import Any

from anneal_api.online import MatchReward
from anneal_trainer.errors import ConfigError
from anneal_trainer.rewards.keeper import Child, each
from anneal_trainer.rewards.scoring import Batch, CallError, Fit, Score, Scorer

# Equality of two expressions cannot be decided in general, and some take all memory (5^5^5^5): what is not shown to be
# equal within these is not.
_SECONDS = 5.0
_BYTES = 4 * 1024**3
COLUMN = Fit((str, int, float, bool), "text, a number, true or false")


def check(reward: MatchReward, at: str) -> None:
    """ConfigError if the package that math needs is not installed."""
    if reward.how == "math" and find_spec("math_verify") is None:
        raise ConfigError(
            f"{at}.match.how: math needs the Python package math-verify, which is not installed: install "
            "math-verify[antlr4_13_2], or take Anneal's trainer image"
        )


def scorer(reward: MatchReward, at: str) -> Scorer:
    """Of exact and contains."""
    same = _contained if reward.how == "contains" else _equal

    def score(batch: Batch) -> list[Score]:
        expected = _expected(reward, at, batch)
        folded = [(_folded(e, reward), _folded(a, reward)) for e, a in zip(expected, batch.completions, strict=True)]
        return [None if wanted is None else float(same(wanted, given or "")) for wanted, given in folded]

    return score


def mathematics(reward: MatchReward, at: str, *, seconds: float = _SECONDS) -> tuple[Scorer, Child]:
    """Of math, and the process that it computes in."""
    check(reward, at)
    child = Child("anneal_trainer.rewards.mathematics", "equal", memory=_BYTES)

    def score(batch: Batch) -> list[Score]:
        expected = _expected(reward, at, batch)
        questions = [None if e is None else (e, a) for e, a in zip(expected, batch.completions, strict=True)]
        return each(child, questions, seconds=seconds, cut_off=0.0)

    return score, child


def _expected(reward: MatchReward, at: str, batch: Batch) -> list[str | None]:
    values = batch.column(reward.column)
    if unfit := [type(value) for value in values if value is not None and type(value) not in COLUMN.types]:
        raise CallError(f"cannot compare with {at}.match.column {reward.column}: it holds {COLUMN.not_(unfit[0])}")
    return [_text(value) for value in values]


def _text(value: Any) -> str | None:
    # Numbers as data writes them: true, not True.
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _folded(text: str | None, reward: MatchReward) -> str | None:
    if text is None:
        return None
    return text.strip().casefold() if reward.ignore_case else text.strip()


def _equal(wanted: str, given: str) -> bool:
    return wanted == given


def _contained(wanted: str, given: str) -> bool:
    return wanted in given
