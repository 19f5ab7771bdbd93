"""What came of a run, as it goes into the termination message and the summary of `anneal run`."""

from dataclasses import dataclass, field

from anneal_api.status import DatasetReport, Output
from anneal_trainer.samples import Sample


@dataclass(frozen=True)
class Result:
    """A run that reached its last step."""

    steps: int
    first_loss: float | None
    loss: float | None
    eval_loss_before: float | None
    eval_loss: float | None
    tokens_per_second: float | None
    device: str
    peak_memory_bytes: int | None
    resumed_from_step: int | None
    outputs: list[Output]
    dataset: DatasetReport
    samples_before: list[Sample] = field(default_factory=list)
    samples_after: list[Sample] = field(default_factory=list)
