"""`tokenized`: rows that hold `input_ids` and, if not everything is trained, `labels`. Checked, never changed.

Not here: the range of the ids, which is the model's to say (`encode`).
"""

from anneal_trainer.data.formats.values import Columns, Row, listed, shown
from anneal_trainer.data.pieces import RowError, Tokens


def example(row: Row, columns: Columns) -> Tokens:
    """One row. An `attention_mask` that hides tokens is refused: padding belongs to the batch."""
    ids = _integers(row, columns.of(row, "input_ids"))
    labels = list(ids) if row.get("labels") is None else _integers(row, "labels")
    if len(ids) != len(labels):
        raise RowError(f"input_ids has {len(ids)} entries and labels {len(labels)}: they must be as long")
    if row.get("attention_mask") is not None and _integers(row, "attention_mask") != [1] * len(ids):
        raise RowError("attention_mask must be all ones and as long as input_ids: leave padding out of the rows")
    return Tokens(ids, labels)


def _integers(row: Row, column: str) -> list[int]:
    value = listed(row.get(column))
    if not isinstance(value, list) or not all(type(entry) is int for entry in value):
        raise RowError(f"{column} must be a list of whole numbers, got {shown(value)}")
    return value
