"""`status`: what is so. Written by the operator alone, in one patch a pass; read by people, GitOps tools and `anneal`.

Everything is bounded: a status is stored in etcd and shown in a terminal. What is not bounded is on the job's storage,
and `children` and `outputs` say where. Times are RFC 3339 in UTC.
"""

from typing import Annotated, Literal

from pydantic import Field

from anneal_api.base import Record
from anneal_api.conditions import Outcome, Phase

Message = Annotated[str, Field(max_length=4096)]


class Condition(Record):
    """One assertion, as `metav1.Condition`."""

    type: str = Field(max_length=64)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=64)
    message: Message = ""
    last_transition_time: str = Field(max_length=64, description="When the status last changed.")
    observed_generation: int = 0


class Progress(Record):
    """Where training is, from the last report of rank 0."""

    phase: str | None = Field(
        default=None, max_length=32, description="What the trainer is doing: loading, training, evaluating, saving."
    )
    step: int = Field(default=0, description="Optimizer steps done.")
    total_steps: int = Field(default=0, description="Optimizer steps in all.")
    steps: str | None = Field(default=None, max_length=32, description="The two above for people: 120/1000.")
    epoch: float | None = None
    percent: float | None = None
    loss: float | None = Field(
        default=None, description="Training loss of the last reported step, mean over trained tokens (nats)."
    )
    loss_text: str | None = Field(default=None, max_length=16, description="The loss for people, three decimals.")
    eval_loss: float | None = Field(default=None, description="Loss on the holdout (nats).")
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = Field(default=None, description="Tokens processed a second over all GPUs.")
    eta_seconds: int | None = None
    eta: str | None = Field(default=None, max_length=16, description="The time left for people: 1h20m.")
    last_report_time: str | None = Field(default=None, max_length=64)


class Attempt(Record):
    """One PyTorchJob: when it ran, and how and why it ended."""

    number: int
    start_time: str = Field(max_length=64)
    running_time: str | None = Field(
        default=None,
        max_length=64,
        description="When its pods began to run; GPU-hours and the deadline count from here.",
    )
    end_time: str | None = Field(default=None, max_length=64)
    outcome: Outcome | None = None
    counted: bool = Field(default=False, description="Whether it used up one of runPolicy.maxRetries.")
    reason: str | None = Field(default=None, max_length=64)
    message: Message | None = None
    exit_code: int | None = None
    node: str | None = Field(default=None, max_length=253, description="The node of rank 0.")
    resumed_from_step: int | None = None
    last_step: int | None = Field(default=None, description="The last step that was reported.")
    micro_batch_size: int | None = None
    log: str | None = Field(default=None, max_length=1024, description="Where on the job's storage its log is.")


class DatasetReport(Record):
    """What was made of the data, before any GPU was asked for."""

    rows: int = Field(default=0, description="Rows read.")
    used: int = Field(default=0, description="Rows that are trained on.")
    eval_rows: int = Field(default=0, description="Rows held out.")
    truncated: int = Field(default=0, description="Rows cut to sequenceLength.")
    tokens: int = Field(default=0, description="Tokens of the training rows.")
    trained_tokens: int = Field(default=0, description="Those of them that carry a label.")
    sequences: int = Field(default=0, description="Training sequences.")
    longest: int = Field(default=0, description="Tokens of the longest training sequence.")
    types: list[str] = Field(
        default_factory=list, max_length=64, description="The type of each source, detected or given."
    )
    warnings: list[str] = Field(
        default_factory=list, max_length=16, description="What a person should know about the data."
    )
    fingerprint: str | None = Field(default=None, max_length=64, description="prepared/FINGERPRINT on the storage.")
    prepared_by: str | None = Field(
        default=None, max_length=253, description="The job that prepared it, if another one."
    )
    prepared_time: str | None = Field(default=None, max_length=64)


class MemoryReport(Record):
    """Memory of the busiest device."""

    peak_gib: Annotated[float | None, Field(alias="peakGiB")] = None


class Output(Record):
    """A result."""

    kind: Literal["adapter", "model"] = Field(description="adapter: LoRA weights; model: full weights.")
    uri: str = Field(max_length=1024, description="volume://CLAIM/PATH.")
    digest: str | None = Field(default=None, max_length=80, description="sha256 over the files.")


class Children(Record):
    """Names of what the operator made for this job."""

    config_map: str | None = Field(default=None, max_length=253)
    claim: str | None = Field(default=None, max_length=253, description="The storage claim.")
    prepare: str | None = Field(default=None, max_length=253)
    pytorch_job: Annotated[str | None, Field(alias="pytorchJob", max_length=253)] = None
    network_policy: str | None = Field(default=None, max_length=253)


class JobStatus(Record):
    """The status of a job of either kind."""

    observed_generation: int = 0
    phase: Phase | None = Field(
        default=None, description="One word for people; never branch on it, use the conditions."
    )
    message: Message | None = Field(default=None, description="The one sentence a person needs now.")
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    progress: Progress | None = None
    attempt: int | None = Field(default=None, description="The number of the current or last attempt.")
    attempts: list[Attempt] = Field(default_factory=list, max_length=128)
    dataset: DatasetReport | None = None
    memory: MemoryReport | None = None
    device: str | None = Field(
        default=None, max_length=128, description="What the trainer computes on: a GPU's name, or cpu."
    )
    pool: str | None = Field(default=None, max_length=63)
    gpus: int | None = Field(default=None, description="GPUs that the job trains on, over all nodes.")
    gpu_hours: float | None = Field(default=None, description="GPUs x hours of running attempts.")
    outputs: list[Output] = Field(default_factory=list, max_length=16)
    children: Children | None = None
    prepare_key: str | None = Field(
        default=None, max_length=64, description="Digest of everything in the spec that shapes the prepared data."
    )
    suspended_seconds: int | None = None
    completion_time: str | None = Field(default=None, max_length=64)
