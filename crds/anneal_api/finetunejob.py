"""The `FineTuneJob` kind: supervised fine-tuning of one model on one mixture of data.

The spec is one flat discriminator (`method`) over shared blocks, because structural schemas allow neither `$ref`
nor types inside `anyOf`. After the first attempt only `runPolicy` may change: a running job whose manifest says
something else would make its status a lie. Not here: defaults that depend on other fields (`resolve`).
"""

from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from anneal_api.artifacts import CheckpointSpec, OutputSpec, StorageSpec
from anneal_api.base import Block, ObjectName, Rule
from anneal_api.compute import ComputeSpec
from anneal_api.dataset import PRETRAIN_TYPES, DatasetSpec, EvaluationSpec
from anneal_api.meta import API_VERSION
from anneal_api.model import AdapterSpec, ModelSpec
from anneal_api.policy import RunPolicy, SecretRef
from anneal_api.preparation import PreparationSpec
from anneal_api.status import JobStatus
from anneal_api.training import TrainingSpec

KIND: Final = "FineTuneJob"
PLURAL = "finetunejobs"
SINGULAR = "finetunejob"
SHORT_NAMES = ("ftj",)


def _quantized_needs_adapter(spec: "FineTuneSpec") -> bool:
    return spec.model.quantization == "none" or spec.adapter is not None


def _batch_fits_world(spec: "FineTuneSpec") -> bool:
    batch = spec.training.global_batch_size
    return batch is None or batch % spec.compute.world_size == 0


def _share_fits_micro_batch(spec: "FineTuneSpec") -> bool:
    training, world = spec.training, spec.compute.world_size
    if training.global_batch_size is None or training.micro_batch_size is None:
        return True
    return training.global_batch_size % (training.micro_batch_size * world) == 0


def _pretrains_on_text(spec: "FineTuneSpec") -> bool:
    return spec.method != "pretrain" or all(dataset.type in (None, *PRETRAIN_TYPES) for dataset in spec.datasets)


def _all_weighted_or_none(spec: "FineTuneSpec") -> bool:
    return len({dataset.weight is None for dataset in spec.datasets}) == 1


_WORLD = "(self.compute.nodes * (self.compute.gpusPerNode == 0 ? 1 : self.compute.gpusPerNode))"


class FineTuneSpec(Block):
    """What to train, on what, and how. The smallest useful spec is a model and a data set."""

    model: ModelSpec = Field(description="The base model.")
    method: Literal["sft", "pretrain"] = Field(
        default="sft",
        description="sft: supervised fine-tuning. pretrain: continued pretraining on plain text, all of which is trained; long texts become several sequences.",
    )
    adapter: AdapterSpec | None = Field(default=None, description="Train a LoRA adapter. Absent: full fine-tuning.")
    datasets: list[DatasetSpec] = Field(
        min_length=1,
        max_length=64,
        description="The training data; the rows of all sources are concatenated, or mixed by their weights, and shuffled by seed.",
    )
    preparation: PreparationSpec = Field(
        default_factory=PreparationSpec, description="Bad rows, long rows, duplicates and sampling."
    )
    evaluation: EvaluationSpec | None = Field(
        default=None, description="Held-out loss and sample answers. Absent: neither."
    )
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="Optimizer, schedule, batch and length.")
    compute: ComputeSpec = Field(default_factory=ComputeSpec, description="Nodes, GPUs and pod options.")
    priority_class: ObjectName | None = Field(default=None, description="The PriorityClass of the pods.")
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
            cel=f"self.method != 'pretrain' || self.datasets.all(d, !has(d.type) || d.type in {list(PRETRAIN_TYPES)})",
            message=f"method pretrain trains on plain text: the type of its datasets must be {' or '.join(PRETRAIN_TYPES)}",
            holds=_pretrains_on_text,
            field="datasets",
        ),
        Rule(
            cel="self.datasets.all(d, has(d.weight)) || self.datasets.all(d, !has(d.weight))",
            message="write a weight for every dataset, or for none",
            holds=_all_weighted_or_none,
            field="datasets",
        ),
        Rule(
            cel="self.model.quantization == 'none' || has(self.adapter)",
            message="quantized weights cannot be trained: add an adapter (adapter: {type: lora}) or set quantization: none",
            holds=_quantized_needs_adapter,
            field="model.quantization",
        ),
        Rule(
            cel=f"!has(self.training.globalBatchSize) || self.training.globalBatchSize % {_WORLD} == 0",
            message="globalBatchSize must be a multiple of nodes x gpusPerNode (on CPUs of nodes), so that every GPU gets the same number of sequences",
            holds=_batch_fits_world,
            field="training.globalBatchSize",
        ),
        Rule(
            cel=f"!(has(self.training.globalBatchSize) && has(self.training.microBatchSize)) || self.training.globalBatchSize % (self.training.microBatchSize * {_WORLD}) == 0",
            message="microBatchSize must divide each GPU's share of the batch: globalBatchSize / (nodes x gpusPerNode), on CPUs globalBatchSize / nodes",
            holds=_share_fits_micro_batch,
            field="training.microBatchSize",
        ),
    )

    @property
    def all_datasets(self) -> list[tuple[str, DatasetSpec]]:
        """Every source of rows with its path in the spec: those that are trained on, then those that are measured."""
        measured = self.evaluation.datasets if self.evaluation else []
        return [(f"datasets[{index}]", dataset) for index, dataset in enumerate(self.datasets)] + [
            (f"evaluation.datasets[{index}]", dataset) for index, dataset in enumerate(measured)
        ]


def _immutable(field: str) -> Rule:
    """A transition rule at the root: `field` of the spec may not change once an attempt has begun."""
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    same = f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"
    return Rule(
        cel=f"!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts.size() == 0 || ({same})",
        message=f"spec.{field} cannot change after the first attempt has begun: delete the job and apply it again, or use another name",
        field=f"spec.{field}",
        transition=True,
    )


IMMUTABLE_FIELDS = tuple(str(info.alias) for name, info in FineTuneSpec.model_fields.items() if name != "run_policy")


class FineTuneJob(Block):
    """Fine-tune a language model: prepare the data on CPUs, train on GPUs, keep the result."""

    api_version: Literal["anneal.dev/v1alpha1"] = Field(default=API_VERSION)
    kind: Literal["FineTuneJob"] = Field(default=KIND)
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: FineTuneSpec = Field(description="What is wanted.")
    status: JobStatus | None = Field(default=None, description="What is so. Written by the operator.")

    rules: ClassVar[tuple[Rule, ...]] = tuple(_immutable(field) for field in IMMUTABLE_FIELDS)

    @property
    def name(self) -> str:
        """The object's name, empty if its metadata has none."""
        return str(self.metadata.get("name", ""))


PRINTER_COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "Method", "type": "string", "jsonPath": ".spec.method"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Step", "type": "string", "jsonPath": ".status.progress.steps"},
    {"name": "Loss", "type": "string", "jsonPath": ".status.progress.lossText"},
    {"name": "ETA", "type": "string", "jsonPath": ".status.progress.eta"},
    {"name": "GPUs", "type": "integer", "jsonPath": ".status.gpus"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Tokens/s", "type": "string", "jsonPath": ".status.progress.tokensPerSecond", "priority": 1},
    {"name": "Attempt", "type": "integer", "jsonPath": ".status.attempt", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
)
