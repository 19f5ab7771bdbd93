"""The numbers of a run that depend on data or machine: steps, accumulation, how often to save and to evaluate."""

import math
from dataclasses import dataclass

from anneal_api.job import JobSpec
from anneal_api.resolve import largest_divisor
from anneal_trainer.errors import ConfigError
from anneal_trainer.order import RunOrder, total_steps

_MOST_STEPS_BETWEEN_CHECKPOINTS = 500
_PARTS = 10


@dataclass(frozen=True)
class Plan:
    """A run, in numbers."""

    order: RunOrder
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
    micro = largest_divisor(share, training.micro_batch)
    steps = total_steps(training, sequences)
    evaluation = spec.evaluation
    return Plan(
        order=RunOrder(sequences, steps, training.global_batch, training.seed),
        micro_batch=micro,
        accumulation=share // micro,
        warmup_steps=_warmup(training.warmup_steps, training.warmup_ratio, steps),
        save_every=spec.checkpoint.every_steps or min(_MOST_STEPS_BETWEEN_CHECKPOINTS, _part(steps)),
        evaluate_every=(evaluation and evaluation.every_steps) or _part(steps),
    )


def _part(steps: int) -> int:
    return max(1, steps // _PARTS)


def _warmup(given: int | None, ratio: float | None, steps: int) -> int:
    return given if given is not None else math.ceil((ratio or 0.0) * steps)
