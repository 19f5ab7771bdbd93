"""`status`: what is so. Written by the operator alone, in one patch a pass; read by people, GitOps tools and `anneal`.

Everything is bounded: a status is stored in etcd and shown in a terminal. What is not bounded is on the job's storage,
and `children` and `outputs` say where. Times are RFC 3339 in UTC.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from anneal_api.base import Record
from anneal_api.conditions import Outcome, Phase
from anneal_api.datasetreport import DatasetReport
from anneal_api.modelrecord import ModelRecord

Message = Annotated[str, Field(max_length=4096)]
# Jobs in a row that each start from the adapter of the one before.
MOST_ADAPTERS = 16


class Condition(Record):
    """One assertion, as `metav1.Condition`."""

    type: str = Field(
        max_length=64,
        description="What is asserted: Accepted, DataReady, Admitted, RolloutReady, Running, Succeeded, Failed, Ready, Reconciling or Stalled.",
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(max_length=64, description="Why, in one word; the words are API (docs/status.md).")
    message: Message = Field(default="", description="Why, in a sentence, with what to do.")
    last_transition_time: str = Field(max_length=64, description="When the status last changed.")
    observed_generation: int = Field(default=0, description="The generation of the manifest that it speaks of.")


SAMPLE_LENGTH: Final = 512


class SampleAnswer(Record):
    """What the model said to one of `evaluation.samples`; the run's samples/ has all of it."""

    prompt: str = Field(max_length=SAMPLE_LENGTH, description="The prompt, cut to 512 characters.")
    answer: str = Field(max_length=SAMPLE_LENGTH, description="The answer, cut to 512 characters.")
    step: int = Field(description="The optimizer steps behind the model that said it; 0 is before training.")


MOST_JUDGED: Final = 3


class JudgedAnswer(Record):
    """An answer that was drawn while training; the run's samples/ has more of them, whole."""

    prompt: str = Field(max_length=SAMPLE_LENGTH, description="The end of the prompt, at most 512 characters.")
    answer: str = Field(max_length=SAMPLE_LENGTH, description="The answer, cut to 512 characters.")
    reward: float | None = Field(default=None, description="Its reward; absent if nothing was said of it.")
    step: int = Field(description="The step that it was drawn for.")


# More than any method has, so that a status stays small.
_MOST_METRICS = 128


class Progress(Record):
    """Where training is, from the last report of rank 0."""

    phase: str | None = Field(
        default=None, max_length=32, description="What the trainer is doing: loading, training, evaluating, saving."
    )
    step: int = Field(default=0, description="Optimizer steps done.")
    total_steps: int = Field(default=0, description="Optimizer steps in all.")
    steps: str | None = Field(default=None, max_length=32, description="The two above for people: 120/1000.")
    epoch: float | None = Field(default=None, description="Passes over the training rows so far.")
    percent: float | None = Field(default=None, description="The share of the steps that is done.")
    loss: float | None = Field(
        default=None, description="Training loss of the last reported step, mean over trained tokens (nats)."
    )
    loss_text: str | None = Field(default=None, max_length=16, description="The loss for people, three decimals.")
    reward_text: str | None = Field(
        default=None, max_length=16, description="grpo, rloo: metrics.reward for people, three decimals."
    )
    eval_loss: float | None = Field(default=None, description="Loss on the holdout (nats).")
    metrics: dict[str, float] = Field(
        default_factory=dict,
        max_length=_MOST_METRICS,
        description="What the method measures: of the last reported step, and with eval_ before it on the holdout. Preferences: rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, logps/chosen, logps/rejected, nll, kl. Reward models: accuracy, margin, mean. grpo, rloo: reward, reward_std, rewards/NAME, completions/mean_length, completions/clipped_ratio, frac_reward_zero_std, kl, entropy; of servers rollout/version, staleness, sync_seconds, sync_bytes, logp_difference, importance, retries; time/generate, sync, reward, train and wait (seconds of the step).",
    )
    samples: list[SampleAnswer] = Field(
        default_factory=list, max_length=8, description="The latest answers to evaluation.samples."
    )
    completions: list[JudgedAnswer] = Field(
        default_factory=list,
        max_length=MOST_JUDGED,
        description="grpo, rloo: some of the answers that were drawn last.",
    )
    warning: str | None = Field(
        default=None,
        max_length=1024,
        description="grpo, rloo: that nothing is learnt from rewards, why, since which step, and what helps.",
    )
    learning_rate: float | None = Field(default=None, description="Of the last reported step.")
    grad_norm: float | None = Field(default=None, description="Norm of the gradients before clipping.")
    tokens_per_second: float | None = Field(default=None, description="Tokens processed a second over all GPUs.")
    eta_seconds: int | None = Field(default=None, description="Seconds left at the present speed.")
    eta: str | None = Field(default=None, max_length=16, description="The time left for people: 1h20m.")
    last_report_time: str | None = Field(default=None, max_length=64, description="When rank 0 was last heard.")


class Attempt(Record):
    """One PyTorchJob: when it ran, and how and why it ended."""

    number: int = Field(description="1 is the first.")
    start_time: str = Field(max_length=64, description="When its PyTorchJob was made.")
    running_time: str | None = Field(
        default=None,
        max_length=64,
        description="When its pods began to run; GPU-hours and the deadline count from here.",
    )
    end_time: str | None = Field(default=None, max_length=64, description="Absent while it runs.")
    outcome: Outcome | None = Field(default=None, description="How it ended. Absent while it runs.")
    counted: bool = Field(default=False, description="Whether it used up one of runPolicy.maxRetries.")
    reason: str | None = Field(
        default=None, max_length=64, description="The cause in one word, as Kubernetes gives it."
    )
    message: Message | None = Field(default=None, description="The trainer's last words, or what became of its pod.")
    exit_code: int | None = Field(default=None, description="Of the container that ended it.")
    node: str | None = Field(default=None, max_length=253, description="The node of rank 0.")
    resumed_from_step: int | None = Field(default=None, description="The checkpoint that it went on from.")
    last_step: int | None = Field(default=None, description="The last step that was reported.")
    micro_batch_size: int | None = Field(default=None, description="Sequences per forward pass per GPU.")
    gradient_checkpointing: bool | None = Field(
        default=None, description="Set where memoryFit turned it on, against the spec."
    )
    nodes: int | None = Field(default=None, description="Training pods. Absent: as many as the spec asks for.")
    pool: str | None = Field(default=None, max_length=253, description="The pool, or the queue's flavor of nodes.")
    unplaced: int | None = Field(
        default=None,
        description="How often its pods were given back because not all of them found a place in time.",
    )
    retry_time: str | None = Field(
        default=None, max_length=64, description="When its pods are made again after they were given back."
    )
    log: str | None = Field(default=None, max_length=1024, description="Where on the job's storage its log is.")


class MemoryPart(Record):
    """What one thing takes at the moment of the estimated peak."""

    name: str = Field(max_length=32, description="weights, gradients, optimizer, activations, logits, ….")
    gib: Annotated[float, Field(alias="GiB", description="How much.")]
    note: str = Field(default="", max_length=160, description="What it is of.")


class MemoryReport(Record):
    """Memory of the busiest device: what it was estimated to need before the queue, and what it needed."""

    estimated_gib: Annotated[
        float | None,
        Field(alias="estimatedGiB", description="The estimated peak of a GPU, with what is beside tensors."),
    ] = None
    gpu_gib: Annotated[
        float | None,
        Field(alias="gpuGiB", description="What a GPU has, by its pool or its node's labels; absent if unknown."),
    ] = None
    fits: bool | None = Field(default=None, description="Whether the estimate fits; absent if either is unknown.")
    micro_batch_size: int | None = Field(default=None, description="The micro batch that it is an estimate of.")
    gradient_checkpointing: bool | None = Field(default=None, description="The same, of gradientCheckpointing.")
    tuned: bool | None = Field(default=None, description="True where memoryFit or microBatchSize auto chose them.")
    moment: str | None = Field(default=None, max_length=64, description="When in a step the peak is.")
    parts: list[MemoryPart] = Field(default_factory=list, max_length=24, description="What each part takes then.")
    missing: list[str] = Field(default_factory=list, max_length=8, description="What could not be estimated.")
    message: Message | None = Field(default=None, description="Whether it fits, in a sentence, and what would.")
    peak_gib: Annotated[
        float | None, Field(alias="peakGiB", description="The most that was allocated while training.")
    ] = None


class QueueReport(Record):
    """Where the job stands in its queue."""

    name: str = Field(max_length=253, description="The LocalQueue.")
    cluster_queue: str | None = Field(default=None, max_length=253, description="The ClusterQueue behind it.")
    quota_reserved: bool | None = Field(
        default=None, description="Whether quota is reserved for the job; the queue cannot change then."
    )
    since: str | None = Field(default=None, max_length=64, description="Since when it waits, or has been admitted.")
    position: int | None = Field(default=None, description="Its place among those that wait; 1 is next.")
    ahead: list[str] = Field(
        default_factory=list, max_length=8, description="Who waits before it, the next one first: eight at most."
    )
    flavors: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="The flavor that each resource was admitted in."
    )
    rollout_flavors: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="The same, of the servers that draw answers."
    )


class RolloutReport(Record):
    """The servers that draw answers. What they draw and from which weights is in progress.metrics."""

    mode: str = Field(max_length=16, description="server, colocate or generate.")
    weight_sync: str | None = Field(default=None, max_length=16, description="adapter or nccl.")
    image: str | None = Field(default=None, max_length=512, description="The servers' image.")
    replicas: int | None = Field(default=None, description="Servers that there should be.")
    ready: int | None = Field(default=None, description="Servers that answer.")
    ready_text: str | None = Field(default=None, max_length=16, description="The two above for people: 1/2.")
    restarts: int | None = Field(default=None, description="How often containers of them were started again.")
    pool: str | None = Field(default=None, max_length=253, description="Their pool.")
    gpus: int | None = Field(default=None, description="GPUs that they hold, all together.")
    since: str | None = Field(default=None, max_length=64, description="Since when the present ones run.")
    ready_time: str | None = Field(
        default=None, max_length=64, description="When all of the present ones were ready for the first time."
    )
    gpu_hours: float | None = Field(default=None, description="GPUs x hours of those that were before.")
    unplaced: int | None = Field(
        default=None, description="How often they were given back because not all of them found a place in time."
    )
    retry_time: str | None = Field(
        default=None, max_length=64, description="When they are made again after they were given back."
    )


class Output(Record):
    """A result."""

    kind: Literal["adapter", "model"] = Field(description="adapter: LoRA weights; model: full weights.")
    uri: str = Field(max_length=1024, description="volume://CLAIM/PATH.")
    digest: str | None = Field(default=None, max_length=80, description="sha256 over the files.")


class AdapterPin(Record):
    """An adapter that is merged into the base."""

    uri: str = Field(max_length=1024, description="volume://CLAIM/PATH.")
    digest: str | None = Field(default=None, max_length=80, description="sha256 over its files.")


# The model, its reference, and as many reward models as there may be rewards.
_MOST_SOURCES = 18


class SourceReport(Record):
    """What a job:// source stood for when the job that it names had succeeded. It stays so for this job's life."""

    source: str = Field(max_length=1024, description="The source, as the spec writes it.")
    uid: str = Field(default="", max_length=64, description="The UID of the job that it names.")
    base: str = Field(max_length=1024, description="The model that is loaded: hf://ORG/NAME or volume://CLAIM/PATH.")
    revision: str = Field(default="main", max_length=256, description="Branch, tag or commit of an hf:// base.")
    digest: str | None = Field(
        default=None, max_length=80, description="sha256 over the files of the base, where a job made it."
    )
    adapters: list[AdapterPin] = Field(
        default_factory=list, max_length=MOST_ADAPTERS, description="Merged into the base, in this order."
    )


class Children(Record):
    """Names of what the operator made for this job."""

    config_map: str | None = Field(
        default=None, max_length=253, description="The resolved manifest, as the pods read it."
    )
    claim: str | None = Field(default=None, max_length=253, description="The storage claim.")
    prepare: str | None = Field(default=None, max_length=253, description="The Job that prepares the data.")
    pytorch_job: Annotated[
        str | None,
        Field(alias="pytorchJob", max_length=253, description="The PyTorchJob of the current or last attempt."),
    ] = None
    network_policy: str | None = Field(default=None, max_length=253, description="Who may reach the pods.")
    rollout: str | None = Field(
        default=None, max_length=253, description="The Deployment and the Service of the vLLM servers."
    )
    workload: str | None = Field(default=None, max_length=253, description="The Workload that queues for the job.")
    preview: str | None = Field(
        default=None,
        max_length=253,
        description="A ConfigMap with the first rows token by token: preview.txt and preview.html.",
    )


class JobStatus(Record):
    """The status of a job of either kind."""

    observed_generation: int = Field(
        default=0, description="The generation of the manifest that this status speaks of."
    )
    phase: Phase | None = Field(
        default=None, description="One word for people; never branch on it, use the conditions."
    )
    message: Message | None = Field(default=None, description="The one sentence a person needs now.")
    conditions: list[Condition] = Field(
        default_factory=list, max_length=16, description="What is so and why; for programs too."
    )
    progress: Progress | None = None
    attempt: int | None = Field(default=None, description="The number of the current or last attempt.")
    attempts: list[Attempt] = Field(
        default_factory=list, max_length=128, description="Every PyTorchJob so far, the first one first."
    )
    dataset: DatasetReport | None = None
    memory: MemoryReport | None = None
    models: list[ModelRecord] = Field(
        default_factory=list,
        max_length=2,
        description="The shape of the model, then of reference.source, from their configs: what the memory is estimated from.",
    )
    device: str | None = Field(
        default=None, max_length=128, description="What the trainer computes on: a GPU's name, or cpu."
    )
    pool: str | None = Field(default=None, max_length=63, description="The GPU pool that the job runs in.")
    gpus: int | None = Field(
        default=None,
        description="GPUs that the job trains on, over all nodes; those of rollout servers are in rollout.gpus.",
    )
    queue: QueueReport | None = None
    rollout: RolloutReport | None = None
    gpu_hours: float | None = Field(
        default=None, description="GPUs x hours of running attempts, and of rollout servers from when they ran."
    )
    outputs: list[Output] = Field(default_factory=list, max_length=16, description="What came of it, and where it is.")
    sources: list[SourceReport] = Field(
        default_factory=list,
        max_length=_MOST_SOURCES,
        description="What each job:// source of the spec stands for, once the job that it names has succeeded.",
    )
    children: Children | None = None
    prepare_key: str | None = Field(
        default=None, max_length=64, description="Digest of everything in the spec that shapes the prepared data."
    )
    suspended_seconds: int | None = Field(default=None, description="Time in suspension so far.")
    completion_time: str | None = Field(default=None, max_length=64, description="When it succeeded or failed.")
