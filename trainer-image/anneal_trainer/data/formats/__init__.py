"""One pure function per dataset type: from a row to an `Example`. A new type is one file and one arm in `formatter`."""

from collections.abc import Callable, Iterable
from typing import Any

from anneal_api.dataset import DatasetFields, DatasetType
from anneal_trainer.data.formats import alpaca, chat, completion, tokenized
from anneal_trainer.data.pieces import Example

Row = dict[str, Any]
Format = Callable[[Row], Example]


def formatter(kind: DatasetType, fields: DatasetFields | None, *, renderer: Callable[[], chat.Renderer]) -> Format:
    """The function of one type; `renderer` makes the chat renderer, and is called for `chat_template` alone."""
    names = fields or DatasetFields()
    match kind:
        case "chat_template":
            template = renderer()
            return lambda row: chat.example(row, names, template)
        case "alpaca":
            return lambda row: alpaca.example(row, names)
        case "completion":
            return lambda row: completion.example(row, names)
        case "tokenized":
            return tokenized.example


def needed(kind: DatasetType, fields: DatasetFields | None) -> dict[str, tuple[str, ...]]:
    """For each thing the type reads: the columns of which one must be there, keyed by its name in `fields`."""
    names = fields or DatasetFields()
    match kind:
        case "chat_template":
            return {"messages": chat.message_columns(names)}
        case "alpaca":
            return {"instruction": (names.instruction or "instruction",), "output": (names.output or "output",)}
        case "completion":
            return {"text": (names.text or "text",)}
        case "tokenized":
            return {"input_ids": ("input_ids",)}


def detect(columns: Iterable[str], fields: DatasetFields | None) -> DatasetType | None:
    """The type that the columns speak of, the most specific first."""
    present = set(columns)
    kinds: tuple[DatasetType, ...] = ("tokenized", "chat_template", "alpaca", "completion")
    for kind in kinds:
        if all(present.intersection(names) for names in needed(kind, fields).values()):
            return kind
    return None


EXPECTED = (
    "messages or conversations (chat_template), instruction and output (alpaca), text (completion), "
    "input_ids (tokenized)"
)
