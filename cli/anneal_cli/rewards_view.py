"""What a job that draws answers measures of them: a table of its rewards, and where the time of a step goes. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from anneal_api.status import Progress
from anneal_api.words import on_one_line
from anneal_cli.columns import count, pairs, table

_COLUMNS = ("REWARD", "MEAN", "SPREAD", "HOLDOUT", "FAILED", "SECONDS")
_OVERALL = ("reward", "reward_std", "eval_reward", "rewards/unjudged", "time/reward")
_SHOWN = 200
_MIB = 1024**2


class Told(NamedTuple):
    """Lines, and the metrics that they tell."""

    lines: list[str]
    names: frozenset[str]


def reward_lines(metrics: Mapping[str, float]) -> Told:
    """A line for the sum, then one for each reward: mean, spread, holdout, answers that it failed for, seconds."""
    if "reward" not in metrics:
        return Told([], frozenset())
    ending = "/seconds"
    names = [name.removesuffix(ending) for name in metrics if name.startswith("rewards/") and name.endswith(ending)]
    rows = {name.removeprefix("rewards/"): _of_reward(name) for name in names}
    told = {"(sum)": _OVERALL, **rows}
    lines = table(_COLUMNS, [(name, *(count(metrics.get(key)) for key in keys)) for name, keys in told.items()])
    return Told(lines, frozenset(key for keys in told.values() for key in keys))


def _of_reward(name: str) -> tuple[str, ...]:
    return name, f"{name}/std", f"eval_{name}", f"{name}/failures", f"{name}/seconds"


def rollout_lines(metrics: Mapping[str, float]) -> Told:
    """The servers that draw, and where a step's seconds go."""
    known = {name: value for name, value in metrics.items() if name.startswith(("rollout/", "time/"))}
    rollout = [_rollout(name.removeprefix("rollout/"), value) for name, value in known.items() if "rollout/" in name]
    times = [f"{name.removeprefix('time/')} {count(value)}s" for name, value in known.items() if "time/" in name]
    return Told(pairs([("Rollout", ", ".join(rollout)), ("Step's time", ", ".join(times))]), frozenset(known))


def _rollout(name: str, value: float) -> str:
    words = name.replace("_", " ")
    if name.endswith("_bytes"):
        return f"{words.removesuffix(' bytes')} {count(value / _MIB)} MiB"
    return f"{words.removesuffix(' seconds')} {count(value)}{'s' if name.endswith('_seconds') else ''}"


def completion_lines(progress: Progress) -> list[str]:
    """The latest drawn answers with their rewards."""
    return pairs([
        (f"Step {each.step}, {'no reward' if each.reward is None else f'reward {each.reward:.3f}'}",
         f"{on_one_line(each.prompt, _SHOWN)} → {on_one_line(each.answer, _SHOWN)}")
        for each in progress.completions
    ])  # fmt: skip
