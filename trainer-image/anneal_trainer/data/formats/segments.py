"""`input_output`: texts as they are, each with a label that says whether it is trained. No token is added.

Every segment is tokenized by itself; start and end tokens are the row's to write.
"""

from typing import Any

from anneal_trainer.data.formats.values import Columns, Row, shown
from anneal_trainer.data.pieces import Piece, RowError, Text, trained


def example(row: Row, columns: Columns) -> Text:
    """One row."""
    segments = columns.entries(row, "segments", "{label, text}")
    place = columns.of(row, "segments")
    return Text(tuple(_segment(segment, f"{place}[{index}]") for index, segment in enumerate(segments)))


def _segment(segment: Any, place: str) -> Piece:
    if not isinstance(segment, dict):
        raise RowError(f"{place} must be a mapping of label and text, got {shown(segment)}")
    label, text = segment.get("label"), segment.get("text")
    if not isinstance(label, bool):
        raise RowError(f"{place}.label must be true or false, got {shown(label)}")
    if not isinstance(text, str):
        raise RowError(f"{place}.text must be text, got {shown(text)}")
    return trained(text) if label else Piece(text)
