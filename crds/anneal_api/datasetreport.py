"""`status.dataset`: what was made of a job's data, bounded, as the rest of a status is.

Not here: every place that a number stands for (`report.json` beside the prepared data).
"""

from pydantic import Field

from anneal_api.base import Record


class Dropped(Record):
    """Rows that are not trained on, and why."""

    reason: str = Field(
        max_length=32,
        description="bad, masked, answerCutOff, tooLong, duplicate, nearDuplicate, inEvaluation or notSampled.",
    )
    rows: int = Field(description="How many.")
    first: str | None = Field(default=None, max_length=512, description="Where the first of them is.")


class LengthBin(Record):
    """One column of a histogram."""

    up_to: int = Field(description="The longest row that is counted here, in tokens.")
    rows: int = Field(description="How many are that long, and longer than the previous column's.")


class TokenCount(Record):
    """A special token, and how often it is trained."""

    token: str = Field(max_length=64, description="Its text.")
    count: int = Field(description="Labels of training sequences that are this token.")


class DataWarning(Record):
    """Something about the data that a person should know before trusting the run."""

    reason: str = Field(max_length=64, description="Why, in one word; the words are API (docs/status.md).")
    message: str = Field(max_length=512, description="The same in a sentence, with the first place.")
    rows: int | None = Field(default=None, description="How many rows it is about; absent if it is about none.")


class DatasetReport(Record):
    """What was made of the data, before any GPU was asked for. report.json beside the data has every place."""

    rows: int = Field(default=0, description="Rows read.")
    used: int = Field(default=0, description="Rows that are trained on.")
    eval_rows: int = Field(default=0, description="Rows held out.")
    truncated: int = Field(default=0, description="Training rows cut to sequenceLength.")
    eval_truncated: int = Field(default=0, description="Held-out rows cut to sequenceLength.")
    tokens: int = Field(default=0, description="Tokens of the training rows.")
    trained_tokens: int = Field(default=0, description="Those of them that carry a label.")
    sequences: int = Field(default=0, description="Training sequences.")
    longest: int = Field(default=0, description="Tokens of the longest training sequence.")
    types: list[str] = Field(
        default_factory=list, max_length=64, description="The type of each source, detected or given."
    )
    eval_sequences: int = Field(default=0, description="Evaluation sequences.")
    packed: bool = Field(default=False, description="Whether rows share sequences.")
    packing_efficiency: float | None = Field(
        default=None, description="Tokens over what the packs could hold: 1 is without a gap."
    )
    dropped: list[Dropped] = Field(
        default_factory=list, max_length=16, description="Rows that are not trained on, by reason."
    )
    duplicates: int = Field(default=0, description="Rows that repeat an earlier one token for token, kept or not.")
    lengths: list[LengthBin] = Field(
        default_factory=list,
        max_length=32,
        description="How long all rows are that could be tokenized, used or not, before any cut.",
    )
    special_tokens: list[TokenCount] = Field(
        default_factory=list, max_length=16, description="Special tokens that are trained, the most frequent first."
    )
    detected: list[str] = Field(
        default_factory=list, max_length=64, description="Types that were found from the columns."
    )
    seconds: float | None = Field(default=None, description="How long the preparation took.")
    warnings: list[DataWarning] = Field(
        default_factory=list, max_length=24, description="What a person should know about the data."
    )
    fingerprint: str | None = Field(default=None, max_length=64, description="prepared/FINGERPRINT on the storage.")
    prepared_by: str | None = Field(
        default=None, max_length=253, description="The job that prepared it, if another one."
    )
    prepared_time: str | None = Field(default=None, max_length=64, description="When it was prepared.")
