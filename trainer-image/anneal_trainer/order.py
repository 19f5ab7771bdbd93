"""Which sequence comes when: the whole run as one explicit order, so that step k is the same whatever the layout.

Each epoch is a permutation of its own, and the last one is cut, or wrapped into the next, so that every optimizer step
has a full batch. Processes, accumulation and a resume only cut this one order differently. Not here: reading the data.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

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
