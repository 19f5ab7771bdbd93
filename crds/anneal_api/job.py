"""What both kinds of job share: the blocks of a spec that no method changes, their rules, the columns of `kubectl get`.

A kind is a spec (this one and its own method and data) and an object around it. After the first attempt only `runPolicy`
may change: a running job whose manifest says something else would make its status a lie.
Not here: methods and data (`finetunejob`, `rlhfjob`), and defaults that depend on other fields (`resolve`).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from anneal_api.artifacts import CheckpointSpec, OutputSpec, StorageSpec
from anneal_api.base import Block, ObjectName, Rule
from anneal_api.compute import ComputeSpec
from anneal_api.datasource import DataSource
from anneal_api.evaluation import EvaluationBase
from anneal_api.meta import API_VERSION
from anneal_api.model import AdapterSpec, ModelSource, ModelSpec
from anneal_api.policy import RunPolicy, SecretRef
from anneal_api.preparation import PreparationSpec
from anneal_api.status import JobStatus
from anneal_api.training import TrainingSpec


def _batch_fits_world(spec: "JobSpec") -> bool:
    batch = spec.training.global_batch_size
    return batch is None or batch % spec.compute.world_size == 0


def _share_fits_micro_batch(spec: "JobSpec") -> bool:
    training, world = spec.training, spec.compute.world_size
    if training.global_batch_size is None or training.given_micro_batch is None:
        return True
    return training.global_batch_size % (training.given_micro_batch * world) == 0


def _batch_fits_fewest(spec: "JobSpec") -> bool:
    batch, compute = spec.training.global_batch_size, spec.compute
    return batch is None or compute.min_nodes is None or batch % compute.fewest_processes == 0


_GPUS = "(self.compute.gpusPerNode == 0 ? 1 : self.compute.gpusPerNode)"
_WORLD = "(self.compute.nodes * (self.compute.gpusPerNode == 0 ? 1 : self.compute.gpusPerNode))"

WEIGHTS = Rule(
    cel="self.datasets.all(d, has(d.weight)) || self.datasets.all(d, !has(d.weight))",
    message="write a weight for every dataset, or for none",
    holds=lambda spec: len({dataset.weight is None for dataset in spec.datasets}) == 1,
    field="datasets",
)


class JobSpec(Block):
    """The blocks that every method has; a kind narrows `method`, `datasets` and `evaluation` to its own."""

    method: str
    model: ModelSpec = Field(description="The base model.")
    adapter: AdapterSpec | None = Field(default=None, description="Train a LoRA adapter. Absent: full fine-tuning.")
    datasets: Sequence[DataSource]
    evaluation: EvaluationBase | None
    preparation: PreparationSpec = Field(
        default_factory=PreparationSpec, description="Bad rows, long rows, duplicates and sampling."
    )
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="Optimizer, schedule, batch and length.")
    compute: ComputeSpec = Field(default_factory=ComputeSpec, description="Nodes, GPUs and pod options.")
    queue: ObjectName | None = Field(
        default=None,
        description="A Kueue LocalQueue of the job's namespace: the job starts when the queue admits all of it. May change until quota is reserved. Absent: the job does not queue.",
    )
    priority_class: ObjectName | None = Field(
        default=None,
        description="With a queue: a WorkloadPriorityClass of Kueue. Without: the PriorityClass of the pods.",
    )
    storage: StorageSpec | None = Field(
        default=None,
        description="Where everything is kept. Default: a claim of the chart's default storage class, made once and never deleted with the job.",
    )
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, description="How often progress is saved.")
    output: OutputSpec = Field(default_factory=OutputSpec, description="Where the result is written.")
    secrets: list[SecretRef] = Field(
        default_factory=list, max_length=16, description="Secrets whose keys become environment variables of the pods."
    )
    run_policy: RunPolicy = Field(
        default_factory=RunPolicy, description="Suspension, retries and limits. May change at any time."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.model.quantization == 'none' || has(self.adapter)",
            message="quantized weights cannot be trained: add an adapter (adapter: {type: lora}) or set quantization: none",
            holds=lambda spec: spec.model.quantization == "none" or spec.adapter is not None,
            field="model.quantization",
        ),
        Rule(
            cel=f"!has(self.training.globalBatchSize) || self.training.globalBatchSize % {_WORLD} == 0",
            message="globalBatchSize must be a multiple of nodes x gpusPerNode (on CPUs of nodes), so that every GPU gets the same number of sequences",
            holds=_batch_fits_world,
            field="training.globalBatchSize",
        ),
        Rule(
            cel=f"!(has(self.training.globalBatchSize) && has(self.training.microBatchSize)) || type(self.training.microBatchSize) != int || self.training.globalBatchSize % (int(self.training.microBatchSize) * {_WORLD}) == 0",
            message="microBatchSize must divide each GPU's share of the batch: globalBatchSize / (nodes x gpusPerNode), on CPUs globalBatchSize / nodes",
            holds=_share_fits_micro_batch,
            field="training.microBatchSize",
        ),
        Rule(
            cel="!has(self.compute.minNodes) || has(self.queue)",
            message="minNodes needs a queue, which decides how many nodes there are quota for: add queue, or leave minNodes out",
            holds=lambda spec: spec.compute.min_nodes is None or spec.queue is not None,
            field="compute.minNodes",
        ),
        Rule(
            cel=f"!(has(self.training.globalBatchSize) && has(self.compute.minNodes)) || self.training.globalBatchSize % (self.compute.minNodes * {_GPUS}) == 0",
            message="globalBatchSize must be a multiple of minNodes x gpusPerNode too, so that the batch is the same with fewer nodes",
            holds=_batch_fits_fewest,
            field="compute.minNodes",
        ),
        Rule(
            cel="!has(self.compute.minNodes) || has(self.training.globalBatchSize) || self.compute.nodes % self.compute.minNodes == 0",
            message="minNodes that does not divide nodes needs training.globalBatchSize: a multiple of nodes x gpusPerNode and of minNodes x gpusPerNode",
            holds=lambda spec: (
                spec.compute.min_nodes is None
                or spec.training.global_batch_size is not None
                or spec.compute.nodes % spec.compute.min_nodes == 0
            ),
            field="compute.minNodes",
        ),
    )

    @property
    def models(self) -> list[ModelSource]:
        """Every model that is read: the one that is trained, then the one that it is compared with."""
        return [ModelSource("model.source", self.model.source, self.model.revision)]

    @property
    def judges(self) -> list[ModelSource]:
        """Models that judge answers while others are trained."""
        return []

    @property
    def reward_config_maps(self) -> list[str]:
        """ConfigMaps with functions that judge answers, sorted."""
        return []

    @property
    def is_online(self) -> bool:
        """Whether answers are drawn while training."""
        return False

    @property
    def group(self) -> int:
        """Rows of a step that belong together."""
        return 1

    @property
    def all_datasets(self) -> list[tuple[str, DataSource]]:
        """Every source of rows with its path in the spec: those that are trained on, then those that are measured."""
        measured = self.evaluation.datasets if self.evaluation else []
        return [(f"datasets[{index}]", dataset) for index, dataset in enumerate(self.datasets)] + [
            (f"evaluation.datasets[{index}]", dataset) for index, dataset in enumerate(measured)
        ]


class Job(Block):
    """An object of either kind."""

    api_version: Literal["anneal.dev/v1alpha1"] = Field(default=API_VERSION)
    kind: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: JobSpec
    status: JobStatus | None = Field(default=None, description="What is so. Written by the operator.")

    @property
    def name(self) -> str:
        """The object's name, empty if its metadata has none."""
        return str(self.metadata.get("name", ""))


def immutable(spec: type[JobSpec]) -> tuple[Rule, ...]:
    """Transition rules at the root: no field of the spec but runPolicy may change once an attempt has begun.

    The queue may, whenever no quota is reserved: a job that was preempted waits again, and may wait elsewhere.
    """
    free = ("run_policy", "queue")
    fixed = (_immutable(str(info.alias)) for name, info in spec.model_fields.items() if name not in free)
    return (*fixed, _QUEUE_IS_FIXED)


def _unchanged(field: str) -> str:
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


_STARTED_WITHOUT = "has(oldSelf.status.attempts) && oldSelf.status.attempts.size() > 0 && !has(oldSelf.status.queue)"
_RESERVED = "has(oldSelf.status.queue) && has(oldSelf.status.queue.quotaReserved) && oldSelf.status.queue.quotaReserved"
_QUEUE_IS_FIXED = Rule(
    cel=f"!has(oldSelf.status) || !(({_RESERVED}) || ({_STARTED_WITHOUT})) || ({_unchanged('queue')})",
    message="spec.queue cannot change while quota is reserved for the job, or once it has started without a queue: set runPolicy.suspend to true first, which gives the quota back, or delete the job and apply it again",
    field="spec.queue",
    transition=True,
)


def _immutable(field: str) -> Rule:
    return Rule(
        cel=f"!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts.size() == 0 || ({_unchanged(field)})",
        message=f"spec.{field} cannot change after the first attempt has begun: delete the job and apply it again, or use another name",
        field=f"spec.{field}",
        transition=True,
    )


PRINTER_COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "Method", "type": "string", "jsonPath": ".spec.method"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Step", "type": "string", "jsonPath": ".status.progress.steps"},
    {"name": "Loss", "type": "string", "jsonPath": ".status.progress.lossText"},
    {"name": "ETA", "type": "string", "jsonPath": ".status.progress.eta"},
    {"name": "GPUs", "type": "integer", "jsonPath": ".status.gpus"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Tokens/s", "type": "string", "jsonPath": ".status.progress.tokensPerSecond", "priority": 1},
    {"name": "Queue", "type": "string", "jsonPath": ".spec.queue", "priority": 1},
    {"name": "Attempt", "type": "integer", "jsonPath": ".status.attempt", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
)
