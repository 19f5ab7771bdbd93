"""`spec.evaluation`: how progress is judged beside the training loss. What kind of rows is measured is the kind's own."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from anneal_api.base import Block, Rule, bounded, exactly_one
from anneal_api.datasource import DataSource


class HoldoutSpec(Block):
    """Rows kept out of training to measure the loss on: chosen once, by seed, the same in every attempt."""

    fraction: float | None = Field(default=None, gt=0, lt=1, description="The share of rows held out.")
    count: int | None = Field(default=None, ge=1, le=1_000_000, description="The number of rows held out.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.fraction) != has(self.count)",
            message="write exactly one of fraction (a share, like 0.02) and count (a number of rows)",
            holds=lambda h: exactly_one(h.fraction, h.count),
        ),
    )


class SampleSpec(Block):
    """A prompt that is answered before, during and after training, to see the difference."""

    prompt: str = Field(
        min_length=1,
        max_length=4096,
        description="What the user says; the chat template or the Alpaca prompt is applied as in training.",
    )


class EvaluationBase(Block):
    """How progress is judged beside the training loss."""

    holdout: HoldoutSpec | None = Field(default=None, description="Rows kept out of training for the evaluation loss.")
    datasets: Sequence[DataSource]
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Optimizer steps between evaluations. Default: ten evaluations a run.",
    )
    samples: list[SampleSpec] = bounded(
        "Prompts answered before training, at each evaluation and after it; the answers are kept with the run, the latest ones in status.progress.samples.",
        most=8,
    )
    max_sample_tokens: int = Field(default=64, ge=1, le=1024, description="The most tokens generated for one sample.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.holdout) || !has(self.datasets) || self.datasets.size() == 0",
            message="holdout and datasets both say what the loss is measured on: write one of them",
            holds=lambda e: e.holdout is None or not e.datasets,
        ),
        Rule(
            cel="!has(self.datasets) || self.datasets.all(d, !has(d.weight))",
            message="evaluation datasets are not mixed: leave their weights out",
            holds=lambda e: all(dataset.weight is None for dataset in e.datasets),
            field="datasets",
        ),
    )

    @property
    def has_rows(self) -> bool:
        """Whether there is a loss to measure beside the training loss."""
        return self.holdout is not None or bool(self.datasets)
