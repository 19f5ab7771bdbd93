"""Which sequence comes when: the whole run as one explicit order, so that step k is the same whatever the layout.

Each epoch is a permutation of its own, and the last one is cut, or wrapped into the next, so that every optimizer step
has a full batch. Processes, accumulation and a resume only cut this one order differently. Not here: reading the data.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from anneal_api.training import TrainingSpec


def total_steps(training: TrainingSpec, sequences: int) -> int:
    """Optimizer steps of a run over `sequences` rows; `training` is resolved."""
    if training.max_steps is not None:
        return training.max_steps
    assert training.epochs is not None, "resolve() fills epochs where maxSteps is absent"
    assert training.global_batch_size is not None, "resolve() fills globalBatchSize"
    # In whole rows first: 0.1 epochs of 30 rows are 3, not the 3.0000000000000004 that would round up.
    rows = math.ceil(round(training.epochs * sequences, 6))
    return math.ceil(rows / training.global_batch_size)


@dataclass(frozen=True)
class RunOrder:
    """Row numbers for `steps` batches of `batch` rows: what a data loader calls a sampler."""

    sequences: int
    steps: int
    batch: int
    seed: int

    def __len__(self) -> int:
        return self.steps * self.batch

    def epoch(self, step: int) -> float:
        """Passes over the rows after so many steps."""
        return step * self.batch / self.sequences

    def __iter__(self) -> Iterator[int]:
        left, epoch = len(self), 0
        while left > 0:
            numbers = self._epoch(epoch)[:left]
            yield from numbers
            left -= len(numbers)
            epoch += 1

    def _epoch(self, epoch: int) -> list[int]:
        from numpy.random import RandomState

        # RandomState and not the newer Generator: its stream is frozen, so a resume under a newer numpy agrees.
        numbers: list[int] = RandomState([self.seed, epoch]).permutation(self.sequences).tolist()
        return numbers


@dataclass(frozen=True)
class AnswerOrder:
    """The same for methods that draw answers: each prompt as often as it is answered, the answers of a step together.

    `prompts` is the order of the draws: a batch of prompts each, which serves `iterations` steps. A loader deals micro
    batches to the processes in turn. So that a process gets whole groups, one after the other, rows are put in the
    order in which that gives process p the p-th share of the step.
    """

    prompts: RunOrder
    steps: int
    group: int
    iterations: int
    processes: int
    micro: int

    @property
    def batch(self) -> int:
        """Answers a step."""
        return self.prompts.batch * self.group

    def __len__(self) -> int:
        return self.steps * self.batch

    def epoch(self, step: int) -> float:
        """Passes over the prompts after so many steps."""
        return self.prompts.epoch(step) / self.iterations

    def draw(self, step: int) -> int:
        """The number of the draw that serves the step after so many."""
        return step // self.iterations

    def __iter__(self) -> Iterator[int]:
        numbers = iter(self.prompts)
        for first in range(0, self.steps, self.iterations):
            asked = [number for number in islice(numbers, self.prompts.batch) for _ in range(self.group)]
            dealt = self._dealt(asked)
            for _ in range(first, min(first + self.iterations, self.steps)):
                yield from dealt

    def _dealt(self, rows: list[int]) -> list[int]:
        share = len(rows) // self.processes
        starts = [p * share + m for m in range(0, share, self.micro) for p in range(self.processes)]
        return [row for start in starts for row in rows[start : start + self.micro]]


def answer_steps(training: TrainingSpec, prompts: int, *, group: int, iterations: int) -> int:
    """Optimizer steps of a run over `prompts` rows, each answered `group` times and learnt from `iterations` times."""
    if training.max_steps is not None:
        return training.max_steps
    counted = training.model_copy(update={"global_batch_size": training.global_batch // group})
    return total_steps(counted, prompts) * iterations
