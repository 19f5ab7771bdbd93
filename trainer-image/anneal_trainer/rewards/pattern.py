"""A regular expression: 1 where it matches the answer, else 0.

It is matched in a process of its own: some patterns take for ever on some texts, and nothing else can stop them.
"""

import re

from anneal_api.online import PatternReward
from anneal_trainer.errors import ConfigError
from anneal_trainer.rewards.keeper import Child, each
from anneal_trainer.rewards.scoring import Batch, Score, Scorer

_SECONDS = 5.0


def check(reward: PatternReward, at: str) -> None:
    """ConfigError if it is no regular expression."""
    try:
        re.compile(reward.pattern)
    except re.error as error:
        raise ConfigError(
            f"{at}.pattern.pattern {reward.pattern!r} is not a regular expression of Python: {error}"
        ) from error


def scorer(reward: PatternReward, at: str, *, seconds: float = _SECONDS) -> tuple[Scorer, Child]:
    """Of one pattern, and the process that it is matched in."""
    check(reward, at)
    child = Child(__name__, "matches", limit=f"the most for one answer: simplify {at}.pattern.pattern")

    def score(batch: Batch) -> list[Score]:
        return each(child, [(reward.pattern, reward.whole, text) for text in batch.completions], seconds=seconds)

    return score, child


def matches(pattern: str, whole: bool, text: str) -> list[float]:  # noqa: FBT001 - asked across processes
    """Of the text without white space around it."""
    compiled = re.compile(pattern, re.DOTALL)
    found = compiled.fullmatch(text.strip()) if whole else compiled.search(text.strip())
    return [float(found is not None)]
