"""A person's own function: fn(prompts, completions, **columns) -> a list of numbers, plain or async.

It runs in a process of its own (`keeper`), so that it can be stopped and cannot disturb the trainer; that is no
sandbox. Its module is loaded when the job begins, so that a mistake there is told before anything is trained.
"""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from anneal_api.online import FunctionReward
from anneal_trainer.errors import ConfigError, InputError
from anneal_trainer.rewards.keeper import Child
from anneal_trainer.rewards.scoring import Batch, Score, Scorer, absent, checked

_OWN = ("prompts", "completions")


def check(reward: FunctionReward, at: str, path: Path, columns: Collection[str]) -> None:
    """Load it, and see that the data has what it asks for: it is not called, as that may cost or change something."""
    with closing(_loaded(reward, at, path)) as child:
        lacking = [each for each in child.needs if each not in (*_OWN, *columns)]
    if lacking:
        raise ConfigError(
            f"{at}.function.name {reward.name} asks for {', '.join(lacking)}: {absent(lacking[0], columns)}"
        )


def _loaded(reward: FunctionReward, at: str, path: Path) -> Child:
    if path.is_file():
        return Child(str(path), reward.name, limit=f"{at}.function.timeoutSeconds")
    there = ", ".join(sorted(each.name for each in path.parent.glob("*.py"))) or "none"
    if reward.config_map:
        place = f"ConfigMap {reward.config_map}; its modules are"
    else:
        place = f"{str(path).removesuffix('/' + reward.file)}; the modules in {path.parent} are"
    raise InputError(f"{at}.function.file {reward.file} is not in {place}: {there}")


def scorer(reward: FunctionReward, at: str, path: Path) -> tuple[Scorer, Child]:
    """Of the function in the module at `path`, and its process."""
    child = _loaded(reward, at, path)

    def score(batch: Batch) -> list[Score]:
        columns = {key: list(values) for key, values in batch.columns.items() if key not in _OWN}
        found = child.call(
            reward.timeout_seconds, prompts=list(batch.prompts), completions=list(batch.completions), **columns
        )
        return checked(found, len(batch))

    return score, child
