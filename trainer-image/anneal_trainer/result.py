"""What came of a run that reached its end: what its termination message is made of."""

from dataclasses import dataclass

from anneal_api.datasetreport import DatasetReport
from anneal_api.status import Output


@dataclass(frozen=True)
class Result:
    """A run that reached its last step."""

    steps: int
    first_loss: float | None
    loss: float | None
    eval_loss: float | None
    metrics: dict[str, float]
    tokens_per_second: float | None
    device: str
    peak_memory_bytes: int | None
    resumed_from_step: int | None
    outputs: list[Output]
    dataset: DatasetReport
    warning: str | None = None
