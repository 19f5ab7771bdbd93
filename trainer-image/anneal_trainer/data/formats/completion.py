"""`completion`: a text, all of it trained, with the end-of-sequence token after it."""

from typing import Any

from anneal_api.dataset import DatasetFields
from anneal_trainer.data.formats.values import text_of
from anneal_trainer.data.pieces import Text, trained


def example(row: dict[str, Any], fields: DatasetFields) -> Text:
    """One row."""
    text = text_of(row, fields.text or "text")
    return Text((trained(text),), starts=True, ends=bool(text))
