"""A person's own function: fn(prompts, completions, **columns) -> a list of numbers, plain or async.

It runs in a process of its own (`keeper`), so that it can be stopped and cannot disturb the trainer; that is no
sandbox. Its module is loaded when the job begins, so that a mistake there is told before anything is trained.
"""

from pathlib import Path

from anneal_api.online import FunctionReward
from anneal_trainer.errors import InputError
from anneal_trainer.rewards.keeper import Child
from anneal_trainer.rewards.scoring import Batch, Score, Scorer, checked

_OWN = ("prompts", "completions")


def scorer(reward: FunctionReward, name: str, path: Path) -> tuple[Scorer, Child]:
    """Of the function in the module at `path`, and its process."""
    if not path.is_file():
        place = f"ConfigMap {reward.config_map}" if reward.config_map else str(path.parent)
        raise InputError(f"reward {name}: function.file {reward.file} is not in {place}")
    child = Child(str(path), reward.name)

    def score(batch: Batch) -> list[Score]:
        columns = {key: list(values) for key, values in batch.columns.items() if key not in _OWN}
        found = child.call(
            reward.timeout_seconds, prompts=list(batch.prompts), completions=list(batch.completions), **columns
        )
        return checked(found, len(batch))

    return score, child
