"""The `FineTuneJob` kind: supervised fine-tuning of one model on one mixture of data.

The spec is one flat discriminator (`method`) over shared blocks (`job`), because structural schemas allow neither
`$ref` nor types inside `anyOf`. Not here: defaults that depend on other fields (`resolve`).
"""

from typing import ClassVar, Final, Literal

from pydantic import Field

from anneal_api.base import Rule
from anneal_api.dataset import PRETRAIN_TYPES, DatasetSpec, EvaluationSpec
from anneal_api.job import PRINTER_COLUMNS, WEIGHTS, Job, JobSpec, immutable

__all__ = ["KIND", "PLURAL", "PRINTER_COLUMNS", "SHORT_NAMES", "SINGULAR", "FineTuneJob", "FineTuneSpec"]

KIND: Final = "FineTuneJob"
PLURAL = "finetunejobs"
SINGULAR = "finetunejob"
SHORT_NAMES = ("ftj",)


def _pretrains_on_text(spec: "FineTuneSpec") -> bool:
    return spec.method != "pretrain" or all(dataset.type in (None, *PRETRAIN_TYPES) for dataset in spec.datasets)


class FineTuneSpec(JobSpec):
    """What to train, on what, and how. The smallest useful spec is a model and a data set."""

    method: Literal["sft", "pretrain"] = Field(
        default="sft",
        description="sft: supervised fine-tuning. pretrain: continued pretraining on plain text, all of which is trained; long texts become several sequences.",
    )
    datasets: list[DatasetSpec] = Field(
        min_length=1,
        max_length=64,
        description="The training data; the rows of all sources are concatenated, or mixed by their weights, and shuffled by seed.",
    )
    evaluation: EvaluationSpec | None = Field(
        default=None, description="Held-out loss and sample answers. Absent: neither."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.method != 'pretrain' || self.datasets.all(d, !has(d.type) || d.type in {list(PRETRAIN_TYPES)})",
            message=f"method pretrain trains on plain text: the type of its datasets must be {' or '.join(PRETRAIN_TYPES)}",
            holds=_pretrains_on_text,
            field="datasets",
        ),
        WEIGHTS,
        *JobSpec.rules,
    )


class FineTuneJob(Job):
    """Fine-tune a language model: prepare the data on CPUs, train on GPUs, keep the result."""

    kind: Literal["FineTuneJob"] = Field(default=KIND)
    spec: FineTuneSpec = Field(description="What is wanted.")

    rules: ClassVar[tuple[Rule, ...]] = immutable(FineTuneSpec)
