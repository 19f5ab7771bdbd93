"""One draw of online training: prompts are answered by all ranks, judged by the first, and made into micro batches.

Rewards are asked on the first rank, of all answers at once, so that a job's functions, servers and reward models see
the same calls whatever the number of processes; what fails there fails on every rank.
Imported late: it needs torch. Not here: when there is a draw, and what is learnt from it (`online`).
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.errors import Interrupted
from anneal_trainer.methods.asked import Answer, Told
from anneal_trainer.methods.objectives import Objective
from anneal_trainer.methods.online_losses import equal_groups
from anneal_trainer.methods.sequences import SequenceCollator

Result = TypeVar("Result")


def on_first(world: int, rank: int, work: Callable[[], Result]) -> Result:
    """What `work` gives on the first rank, on every rank; what it raises, too."""
    if world == 1:
        return work()
    box: list[Any] = [None]
    if rank == 0:
        try:
            box = [(work(), None)]
        except (Exception, Interrupted) as error:  # noqa: BLE001 - raised again below, on every rank
            box = [(None, error)]
    distributed.broadcast_object_list(box, src=0)
    found, raised = box[0]
    if raised is not None:
        raise raised
    result: Result = found
    return result


def of_all(world: int, own: Sequence[Result]) -> list[Result]:
    """What all ranks have, in their order."""
    if world == 1:
        return list(own)
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, list(own))
    return list(chain.from_iterable(parts))


def whole_groups(rows: Sequence[dict[str, Any]], group: int) -> list[dict[str, Any]]:
    """The prompt of each group."""
    groups = [rows[start : start + group] for start in range(0, len(rows), group)]
    if any(len(each) != group or any(row["row"] != each[0]["row"] for row in each) for each in groups):
        raise AssertionError("the loader has cut a group of answers")
    return [each[0] for each in groups]


def batch_of(answers: Sequence[Answer], collate: SequenceCollator) -> dict[str, Any]:
    """What the model reads of prompts with their answers, which alone are trained."""
    rows = [
        {
            "input_ids": (prompt := answer.row["input_ids"]) + answer.drawn.ids,
            "labels": [IGNORED] * len(prompt) + answer.drawn.ids,
        }
        for answer in answers
    ]
    lengths = [len(answer.drawn.ids) for answer in answers]
    found = {**collate(rows), "answer_lengths": lengths, "lengths": torch.tensor(lengths)}
    if any(answer.drawn.logprobs for answer in answers):
        found["sampler"] = _sampler_table(answers, max(lengths))
    return found


def _sampler_table(answers: Sequence[Answer], width: int) -> Any:
    """What drew each token computed of it, `[answers, tokens]`; NaN where it told nothing."""
    table = torch.full((len(answers), width), torch.nan)
    for line, answer in zip(table, answers, strict=True):
        told = answer.drawn.logprobs
        line[: len(told)] = torch.tensor(told)
    return table


class Counts(NamedTuple):
    """Of each answer of a step: whether it is in averages over answers, and whether its tokens are trained."""

    averaged: list[bool]
    trained: list[bool]


def counted(rewards: Sequence[float], told: Sequence[Told], objective: Objective) -> Counts:
    """What is left out: groups that teach nothing, of averages too; answers that were cut off, of training alone."""
    size = objective.spec.num_generations
    equal = equal_groups(torch.tensor(rewards), size=size).tolist()
    averaged = [not (objective.skips_equal_groups and equal[index // size]) for index in range(len(told))]
    masks = objective.spec.mask_truncated
    return Counts(
        averaged, [kept and not (masks and answer.cut_off) for kept, answer in zip(averaged, told, strict=True)]
    )
