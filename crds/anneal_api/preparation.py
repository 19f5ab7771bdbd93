"""`spec.preparation`: what is done with rows between reading and training.

The defaults lose nothing silently: a bad row ends the preparation, and whatever is dropped is counted with its reason
in `status.dataset.dropped`. Not here: how a row becomes tokens (`dataset`) and how rows share a sequence
(`training.packing`).
"""

from typing import Literal

from pydantic import Field

from anneal_api.base import Block


class PreparationSpec(Block):
    """Bad rows, long rows, duplicates and sampling. What is dropped is counted in status, and named in report.json."""

    on_bad_row: Literal["fail", "drop"] = Field(
        default="fail",
        description="A row that cannot be read, or that its type cannot make sense of: fail lists all of them and ends the job before any GPU is asked for; drop leaves them out, up to maxBadRows.",
    )
    max_bad_rows: int = Field(
        default=100,
        ge=1,
        le=1_000_000_000,
        description="With onBadRow drop: more bad rows than this end the job after all, since then it is not the rows that are wrong.",
    )
    long_rows: Literal["truncate", "drop", "error"] = Field(
        default="truncate",
        description="Rows of more than training.sequenceLength tokens: truncate cuts their ends (a row whose whole answer would be cut off is dropped; of pairs the prompt is cut first, from its left), drop leaves them out, error ends the job.",
    )
    duplicates: Literal["keep", "dropExact", "dropNear"] = Field(
        default="keep",
        description="dropExact keeps the first of the rows that have the same tokens and labels; dropNear also the first of rows that are much alike (MinHash over runs of five tokens, without those that most rows share). Training rows that are also evaluation rows are dropped too. With keep, exact duplicates are counted and reported.",
    )
    similarity: float = Field(
        default=0.85,
        ge=0.5,
        lt=1,
        description="With duplicates dropNear: the estimated share of common runs of tokens (Jaccard) from which rows are alike.",
    )
    sampling: Literal["withoutReplacement", "withReplacement"] = Field(
        default="withoutReplacement",
        description="How weighted datasets are mixed: withoutReplacement uses every row at most once, and as many rows as the weights allow; withReplacement keeps the number of rows and draws each at random by seed, so rows of small sources repeat.",
    )
    preview_rows: int = Field(
        default=3,
        ge=0,
        le=10,
        description="So many rows of each source are shown, token by token, in preview.html beside the data and in the ConfigMap that status.children.preview names. 0 keeps no text of the data outside the storage.",
    )
