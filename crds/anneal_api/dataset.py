"""`spec.datasets` and `spec.evaluation`: the rows that are trained on and those that are held out."""

from typing import ClassVar, Literal, get_args

from pydantic import Field

from anneal_api.base import Block, Rule, ShortText, bounded, exactly_one
from anneal_api.model import CLUSTER_SOURCE_RULE
from anneal_api.sources import SourceText

DatasetType = Literal["chat_template", "alpaca", "completion", "tokenized"]
DATASET_TYPES: tuple[str, ...] = get_args(DatasetType)


class DatasetFields(Block):
    """Column names, where the data's own differ from what its type expects."""

    messages: ShortText | None = Field(
        default=None, description="chat_template: the list of turns. Default: messages, else conversations."
    )
    instruction: ShortText | None = Field(default=None, description="alpaca: what is asked. Default: instruction.")
    input: ShortText | None = Field(default=None, description="alpaca: optional context. Default: input.")
    output: ShortText | None = Field(default=None, description="alpaca: the answer, which is trained. Default: output.")
    text: ShortText | None = Field(default=None, description="completion: the text, all of it trained. Default: text.")


class DatasetSpec(Block):
    """One source of training rows."""

    source: SourceText = Field(
        description="Where the rows are: hf://ORG/NAME, volume://CLAIM/PATH (a file, a glob, or a directory of jsonl, json, csv, parquet or arrow), or for `anneal run` a local path."
    )
    subset: ShortText | None = Field(
        default=None, description="The configuration name of an hf:// data set that has several."
    )
    split: ShortText | None = Field(default=None, description="The split of an hf:// data set. Default: train.")
    revision: ShortText | None = Field(
        default=None, description="Branch, tag or commit of an hf:// data set. Default: main."
    )
    type: DatasetType | None = Field(
        default=None,
        description="How a row becomes tokens: chat_template (messages), alpaca (instruction, input, output), completion (text), tokenized (input_ids, labels). Default: detected from the columns, and shown in status.",
    )
    fields: DatasetFields | None = Field(
        default=None, description="Column names, where the data's differ from the type's."
    )

    rules: ClassVar[tuple[Rule, ...]] = (CLUSTER_SOURCE_RULE,)


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
    """A prompt that is answered before and after training, to see the difference."""

    prompt: str = Field(
        min_length=1,
        max_length=4096,
        description="What the user says; the chat template or the Alpaca prompt is applied as in training.",
    )


class EvaluationSpec(Block):
    """How progress is judged beside the training loss."""

    holdout: HoldoutSpec | None = Field(default=None, description="Rows kept out of training for the evaluation loss.")
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Optimizer steps between evaluations. Default: ten evaluations a run.",
    )
    samples: list[SampleSpec] = bounded(
        "Prompts answered before and after training; the answers are kept with the run.", most=8
    )
    max_sample_tokens: int = Field(default=64, ge=1, le=1024, description="The most tokens generated for one sample.")
