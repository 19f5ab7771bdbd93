"""`spec.training`: the optimization itself. Sizes are in sequences and optimizer steps, never per device.

`globalBatchSize` never changes with the number of GPUs, a retry or a shortage of memory; what adapts is the
micro batch and with it the number of accumulated passes.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator
from pydantic.json_schema import WithJsonSchema

from anneal_api.base import Block, Rule, at_most_one

LARGEST_MICRO_BATCH = 1024


def _micro_batch_size(value: object) -> int | str:
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_MICRO_BATCH
    if not whole and value != "auto":
        raise ValueError(f"{value!r} is no micro batch: write a whole number from 1 to {LARGEST_MICRO_BATCH}, or auto")
    assert isinstance(value, (int, str)), "checked above"
    return value


MicroBatchSize = Annotated[
    int | str,
    PlainValidator(_micro_batch_size),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maximum": LARGEST_MICRO_BATCH,
            "pattern": "^auto$",
            "maxLength": 4,
        }
    ),
]


class TrainingSpec(Block):
    """The optimizer, its schedule, the batch and the length of the run."""

    epochs: float | None = Field(
        default=None, gt=0, le=1000, description="Passes over the training rows. Default, if maxSteps is absent: 1."
    )
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs.")
    global_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="Sequences per optimizer step over all GPUs: a multiple of nodes x gpusPerNode. For pairs of answers: pairs; for grpo and rloo: answers, a multiple of numGenerations too. Default: 16 for sft and pretrain, 64 for reward, 128 for grpo and rloo, 32 for the others, rounded up to such a multiple.",
    )
    micro_batch_size: MicroBatchSize | None = Field(
        default=None,
        description="Sequences per forward pass per GPU, at most 1024; must divide the GPU's share of the global batch. auto: the largest that is estimated to fit the GPU's memory, up to 64. Default: the largest divisor of that share up to 8.",
    )
    sequence_length: int = Field(
        default=2048,
        ge=8,
        le=1_048_576,
        description="The most tokens of a sequence; preparation.longRows says what becomes of longer rows.",
    )
    packing: bool | None = Field(
        default=None,
        description="Several rows share a sequence, which never attends from one to another: the same loss and gradients, without padding. Batch sizes then count packs. Default: on, except for models that cannot keep rows apart (status.dataset.warnings says so); true for such a model is an error.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate. Default with an adapter: 2e-4 for sft and pretrain (QLoRA, table 9), 5e-6 for dpo, ipo and kto, 8e-5 for orpo, 1e-5 for simpo, cpo, grpo and rloo, 1e-4 for reward and prm; a tenth of that for full fine-tuning (Zephyr: 5e-7 for dpo).",
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"] = Field(
        default="adamw",
        description="adamw keeps 8 bytes a trained weight; the 8-bit forms (bitsandbytes) 2, adafactor less.",
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="The decay after warm-up: cosine or linear to zero, or none."
    )
    warmup_ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="The share of steps with a rising learning rate. Default, if warmupSteps is absent: 0.1 for dpo, ipo, kto, orpo, simpo and cpo, 0.03 for the others.",
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Steps with a rising learning rate, instead of warmupRatio."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, description="Decoupled weight decay; fine-tuning commonly uses none."
    )
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000, description="Gradients are scaled down to this norm.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="auto is bf16 on a GPU that has it, else fp32. Adapters and optimizer state are kept in fp32.",
    )
    gradient_checkpointing: bool = Field(
        default=True,
        description="Recompute activations in the backward pass: far less memory, about a quarter more time.",
    )
    seed: int = Field(
        default=42, ge=0, le=2_147_483_647, description="Decides the data order, the holdout, dropout and new weights."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.epochs) && has(self.maxSteps))",
            message="epochs and maxSteps both give the length of the run: write one of them",
            holds=lambda t: at_most_one(t.epochs, t.max_steps),
        ),
        Rule(
            cel="!(has(self.warmupRatio) && has(self.warmupSteps))",
            message="warmupRatio and warmupSteps both give the warm-up: write one of them",
            holds=lambda t: at_most_one(t.warmup_ratio, t.warmup_steps),
        ),
        Rule(
            cel="!(has(self.globalBatchSize) && has(self.microBatchSize)) || type(self.microBatchSize) != int || self.globalBatchSize % int(self.microBatchSize) == 0",
            message="microBatchSize must divide globalBatchSize",
            holds=lambda t: (
                not (t.global_batch_size and t.given_micro_batch) or t.global_batch_size % t.given_micro_batch == 0
            ),
            field="microBatchSize",
        ),
    )

    @property
    def given_micro_batch(self) -> int | None:
        """The micro batch, where the manifest gives a number."""
        return self.micro_batch_size if isinstance(self.micro_batch_size, int) else None

    @property
    def micro_batch(self) -> int:
        """The micro batch of a resolved spec, which always has a number."""
        assert isinstance(self.micro_batch_size, int), "resolve() fills microBatchSize"
        return self.micro_batch_size

    @property
    def global_batch(self) -> int:
        """The global batch of a resolved spec."""
        assert self.global_batch_size is not None, "resolve() fills globalBatchSize"
        return self.global_batch_size
