"""What pods tell the operator: the live report of `/progress` and the termination message.

Both are written by the trainer and read by the operator with these same classes. A pod holds no Kubernetes
credential, so these two, and files on the storage, are all it can say.
"""

import bisect
import json
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from anneal_api.base import Record
from anneal_api.conditions import Outcome
from anneal_api.datasetreport import DatasetReport
from anneal_api.meta import TERMINATION_MESSAGE_LIMIT
from anneal_api.modelrecord import ModelRecord
from anneal_api.status import JudgedAnswer, Output, SampleAnswer

TrainerPhase = Literal[
    "starting", "fetching", "merging", "preparing", "loading", "training", "evaluating", "saving", "done"
]


class ProgressReport(Record):
    """The answer of `GET /progress`. `time` is seconds since the epoch at the pod; absent fields are not known yet."""

    role: Literal["prepare", "trainer"] = "trainer"
    phase: TrainerPhase = "starting"
    attempt: int = 1
    step: int = 0
    total_steps: int = 0
    resumed_from_step: int | None = None
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict, description="As `Progress.metrics`.")
    samples: list[SampleAnswer] = Field(default_factory=list, description="The latest answers to evaluation.samples.")
    completions: list[JudgedAnswer] = Field(default_factory=list, description="As `Progress.completions`.")
    warning: str | None = Field(default=None, description="As `Progress.warning`.")
    rows: int | None = Field(default=None, description="prepare: rows read so far.")
    world_size: int = 1
    micro_batch_size: int | None = None
    device: str | None = None
    peak_memory_bytes: int | None = None
    preview: str | None = Field(default=None, description="Digest of what `/preview` answers; absent until it can.")
    time: float = 0.0


class KeptPreview(Record):
    """The answer of `GET /preview`: the first rows token by token, as text and as a page, bounded to fit a ConfigMap."""

    text: str
    html: str


class TerminationMessage(Record):
    """The last words of a container, at most 4096 bytes: its outcome and the one sentence that a person needs."""

    outcome: Outcome
    message: str = ""
    exit_code: int = 0
    step: int | None = None
    total_steps: int | None = None
    resumed_from_step: int | None = None
    loss: float | None = None
    first_loss: float | None = None
    eval_loss: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    tokens_per_second: float | None = None
    device: str | None = None
    peak_memory_bytes: int | None = None
    dataset: DatasetReport | None = None
    models: list[ModelRecord] = Field(
        default_factory=list, max_length=2, description="As `status.models`: what prepare found."
    )
    outputs: list[Output] = Field(default_factory=list)
    log: str | None = None

    def encode(self, limit: int = TERMINATION_MESSAGE_LIMIT) -> str:
        """JSON of at most `limit` bytes.

        Lists of the report go first, then its warnings from the last one on, as report.json has them all; then the
        models, without which nobody knows the memory; then the message's end.
        """
        record = self
        text = _json(record)
        for smaller in _less(self):
            if len(text.encode()) <= limit:
                break
            record, text = smaller, _json(smaller)
        excess = len(text.encode()) - limit
        if excess > 0:
            record = record.model_copy(update={"message": _shortened(record.message, excess)})
            text = _json(record)
        return text

    @classmethod
    def decode(cls, text: str) -> "TerminationMessage | None":
        """The message, or None where the text is not one (a container that died without a word)."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None


def _less(record: TerminationMessage) -> Iterator[TerminationMessage]:
    """The record with less and less beside its message."""
    if dataset := record.dataset:
        for name in ("lengths", "detected", "special_tokens", "dropped", "types"):
            dataset = dataset.model_copy(update={name: []})
            yield record.model_copy(update={"dataset": dataset})
        for kept in range(len(dataset.warnings) - 1, -1, -1):
            dataset = dataset.model_copy(update={"warnings": dataset.warnings[:kept]})
            yield record.model_copy(update={"dataset": dataset})
    yield record.model_copy(update={"dataset": dataset, "models": []})
    yield record.model_copy(update={"dataset": dataset, "models": [], "metrics": {}})


def _json(record: Record) -> str:
    return json.dumps(record.dump(), separators=(",", ":"))


def _shortened(message: str, excess: int) -> str:
    """The longest start of `message` that is `excess` bytes shorter in JSON, where a character takes up to 12."""
    allowed = len(json.dumps(message)) - excess - len(json.dumps("…"))
    kept = bisect.bisect_right(range(len(message)), allowed, key=lambda end: len(json.dumps(message[:end])))
    return f"{message[: max(0, kept - 1)]}…"
