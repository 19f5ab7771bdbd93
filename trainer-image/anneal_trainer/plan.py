"""The numbers of a run that depend on data or machine: steps, accumulation, how often to save and to evaluate."""

import math
from dataclasses import dataclass

from anneal_api.job import JobSpec
from anneal_api.online_rules import block_of
from anneal_api.resolve import largest_divisor
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.errors import ConfigError
from anneal_trainer.order import AnswerOrder, RunOrder, answer_steps, total_steps

_MOST_STEPS_BETWEEN_CHECKPOINTS = 500
_PARTS = 10


@dataclass(frozen=True)
class Plan:
    """A run, in numbers."""

    order: RunOrder | AnswerOrder
    micro_batch: int
    accumulation: int
    warmup_steps: int
    save_every: int
    evaluate_every: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.order.steps


def make_plan(spec: JobSpec, *, sequences: int, world: int) -> Plan:
    """The plan for a resolved spec. With another number of processes than it speaks of, the micro batch may be less."""
    training = spec.training
    share, rest = divmod(training.global_batch, world)
    if rest:
        raise ConfigError(
            f"training.globalBatchSize {training.global_batch} is not a multiple of the {world} processes"
        )
    if share % spec.group:
        raise ConfigError(
            f"training.globalBatchSize {training.global_batch} is not a multiple of the {world} processes x "
            f"{spec.group} answers to a prompt"
        )
    micro = largest_divisor(share, training.micro_batch)
    order = _order(spec, sequences, world=world, micro=micro)
    steps = order.steps
    evaluation = spec.evaluation
    return Plan(
        order=order,
        micro_batch=micro,
        accumulation=share // micro,
        warmup_steps=_warmup(training.warmup_steps, training.warmup_ratio, steps),
        save_every=_save_every(spec, order),
        evaluate_every=(evaluation and evaluation.every_steps) or _part(steps),
    )


def _order(spec: JobSpec, sequences: int, *, world: int, micro: int) -> RunOrder | AnswerOrder:
    training = spec.training
    if not (isinstance(spec, RLHFSpec) and spec.is_online):
        return RunOrder(sequences, total_steps(training, sequences), training.global_batch, training.seed)
    group, iterations = spec.group, block_of(spec).iterations
    steps = answer_steps(training, sequences, group=group, iterations=iterations)
    prompts = RunOrder(sequences, math.ceil(steps / iterations), training.global_batch // group, training.seed)
    return AnswerOrder(prompts, steps, group=group, iterations=iterations, processes=world, micro=micro)


def _save_every(spec: JobSpec, order: RunOrder | AnswerOrder) -> int:
    """At a step before a draw: answers are not kept, so that only from there a run goes on exactly."""
    every = spec.checkpoint.every_steps or min(_MOST_STEPS_BETWEEN_CHECKPOINTS, _part(order.steps))
    draw = order.iterations if isinstance(order, AnswerOrder) else 1
    return draw * math.ceil(every / draw)


def _part(steps: int) -> int:
    return max(1, steps // _PARTS)


def _warmup(given: int | None, ratio: float | None, steps: int) -> int:
    return given if given is not None else math.ceil((ratio or 0.0) * steps)
