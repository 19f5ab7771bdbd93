"""The rows of online methods while they train: prompts with what rewards are given of them, and answers to them.

Not here: drawing answers (`generating`), and the rewards themselves (`rewards`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anneal_api.online import RewardSource
from anneal_trainer.data import store
from anneal_trainer.methods.generating import Drawn
from anneal_trainer.rewards import Judged, Prompt, Source, judge
from anneal_trainer.rewards.http import longest_answer
from anneal_trainer.rewards.keeper import STARTUP_SECONDS


@dataclass(frozen=True)
class Answer:
    """A drawn answer with its prepared row."""

    row: dict[str, Any]
    drawn: Drawn

    @property
    def told(self) -> "Told":
        """What every rank is told of it."""
        return Told(self.row[store.ROW], self.drawn.text, len(self.drawn.ids), self.drawn.cut_off)


@dataclass(frozen=True)
class Told:
    """An answer as rewards, measures and people see it. `asked`: the row's JSON."""

    asked: str
    text: str
    length: int
    cut_off: bool

    @property
    def prompt(self) -> Prompt:
        """As text, or as turns."""
        found: Prompt = json.loads(self.asked)["prompt"]
        return found


def named_columns(rewards: Sequence[RewardSource]) -> list[str]:
    """The columns that rewards name: a row without one has null there."""
    blocks = [block for each in rewards for block in (each.match, each.schema_, each.language) if block is not None]
    return [block.column for block in blocks if block.column is not None]


def judged(sources: Sequence[Source], answers: Sequence[Told], named: Sequence[str] = ()) -> Judged:
    """What the answers are worth."""
    rows = [json.loads(answer.asked) for answer in answers]
    names = dict.fromkeys([*named, *(name for row in rows for name in row["columns"])])
    columns = {name: [row["columns"].get(name) for row in rows] for name in names}
    texts, lengths = [answer.text for answer in answers], [answer.length for answer in answers]
    return judge(sources, [row["prompt"] for row in rows], texts, columns, lengths)


def longest_call(rewards: Sequence[RewardSource]) -> float:
    """Seconds that a call may take, all its tries and a process that is started again among them."""
    functions = (each.function.timeout_seconds + STARTUP_SECONDS for each in rewards if each.function)
    servers = (longest_answer(each.http) for each in rewards if each.http)
    return max((*functions, *servers), default=0.0)


def joined(parts: Sequence[Judged]) -> Judged:
    """Several calls as one."""
    names = parts[0].scores
    return Judged(
        rewards=[reward for part in parts for reward in part.rewards],
        scores={name: [score for part in parts for score in part.scores[name]] for name in names},
        failures={name: sum(part.failures[name] for part in parts) for name in names},
        seconds={name: sum(part.seconds[name] for part in parts) for name in names},
    )


def spread(values: Sequence[float | None]) -> float | None:
    """The standard deviation, over n - 1, of those that are known; None of less than two."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < 2:  # noqa: PLR2004 - one number has no spread
        return None
    if min(known) == max(known):
        # Else rounding would leave a little.
        return 0.0
    mean = math.fsum(known) / len(known)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None of none."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def measured(answers: Sequence[Told], found: Judged, *, group: int) -> dict[str, float]:
    """What is told of a step's answers, groups one after another."""
    groups = [found.rewards[start : start + group] for start in range(0, len(answers), group)]
    spreads = [spread(each) for each in groups]
    values = {
        **_outline(answers, found),
        **found.metrics,
        "reward_std": mean(spreads),
        "frac_reward_zero_std": mean([float(not each) for each in spreads]),
        **{f"rewards/{name}/std": spread(scores) for name, scores in found.scores.items()},
    }
    return {name: value for name, value in values.items() if value is not None}


def evaluated(answers: Sequence[Told], found: Judged) -> dict[str, float]:
    """The same of a holdout's answers, one a prompt."""
    values = _outline(answers, found) | {f"rewards/{name}": mean(scores) for name, scores in found.scores.items()}
    return {f"eval_{name}": value for name, value in values.items() if value is not None}


def _outline(answers: Sequence[Told], found: Judged) -> dict[str, float | None]:
    return {
        "reward": mean(found.rewards),
        "completions/mean_length": mean([float(answer.length) for answer in answers]),
        "completions/clipped_ratio": mean([float(answer.cut_off) for answer in answers]),
    }
