"""Reading one column of a row, with the error that says what was found instead."""

import json
from typing import Any

from anneal_trainer.data.pieces import RowError

_SHOWN = 60


def shown(value: Any) -> str:
    """A value for an error message: short, and as it stands in the file, so that its type can be seen."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def text_of(row: dict[str, Any], column: str) -> str:
    """The text in a column that must be there."""
    if column not in row:
        raise RowError(f"the column {column!r} is missing; this row has {', '.join(map(str, row)) or 'no column'}")
    value = row[column]
    if not isinstance(value, str):
        raise RowError(f"{column} must be text, got {shown(value)}")
    return value


def optional_text_of(row: dict[str, Any], column: str) -> str:
    """The text in a column that may be absent or null: then it is empty."""
    return "" if row.get(column) is None else text_of(row, column)
