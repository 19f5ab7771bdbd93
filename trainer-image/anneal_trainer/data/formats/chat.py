"""`chat_template`: a list of turns, rendered by the tokenizer's template; what the assistant says is trained.

Which characters a turn became is found by rendering the conversation again with a stand-in for that turn and
comparing the two texts, so it works for templates that trim, add or rewrite what they are given. The token that
ends a turn is trained too, since a model that never learns it never stops: it is whatever special token the template
puts right behind an assistant's words. ShareGPT rows (`from`/`value`) are read as the same thing under other names.

Not here: tools, per-turn training switches, and templates that need more than the messages.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anneal_api.dataset import DatasetFields
from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.pieces import Piece, RowError, Text

Message = dict[str, Any]
ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
# A private-use character no tokenizer's template treats specially, in a word that no one writes.
STAND_IN = "\ue000stand-in\ue000"


@dataclass(frozen=True)
class Renderer:
    """The template as a function, and the special tokens among which the end of a turn is looked for."""

    render: Callable[[list[Message]], str]
    special_tokens: tuple[str, ...]


def message_columns(fields: DatasetFields) -> tuple[str, ...]:
    """The columns in which the turns may be."""
    return (fields.messages,) if fields.messages else ("messages", "conversations")


def example(row: dict[str, Any], fields: DatasetFields, renderer: Renderer) -> Text:
    """One conversation."""
    messages = _messages(row, fields)
    text = _rendered(renderer, messages)
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            spans += _turn_spans(text, messages, index, renderer)
    return Text((Piece(text, tuple(spans)),))


def _rendered(renderer: Renderer, messages: list[Message]) -> str:
    try:
        return renderer.render(messages)
    except Exception as error:  # a template raises what its author chose, jinja2.TemplateError or worse
        raise RowError(f"the chat template refuses these messages: {error}") from error


def _turn_spans(text: str, messages: list[Message], index: int, renderer: Renderer) -> list[tuple[int, int]]:
    other = _rendered(renderer, [*messages[:index], {**messages[index], "content": STAND_IN}, *messages[index + 1 :]])
    place = other.find(STAND_IN)
    if place < 0:
        return []
    start = _common_prefix(text, other[:place])
    tail = _common_suffix(text[start:], other[place + len(STAND_IN) :])
    end = len(text) - tail
    return [(start, end), *_end_of_turn(text, end, renderer.special_tokens)] if end > start else []


def _common_prefix(one: str, two: str) -> int:
    """The number of leading characters that both share."""
    if one.startswith(two):
        return len(two)
    return next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)


def _common_suffix(one: str, two: str) -> int:
    return len(two) if one.endswith(two) else _common_prefix(one[::-1], two[::-1])


def _end_of_turn(text: str, end: int, special_tokens: Sequence[str]) -> list[tuple[int, int]]:
    """The special token that follows, at most white space away."""
    rest = text[end:]
    begin = end + len(rest) - len(rest.lstrip())
    found = max((token for token in special_tokens if text.startswith(token, begin)), key=len, default="")
    return [(begin, begin + len(found))] if found else []


def _messages(row: dict[str, Any], fields: DatasetFields) -> list[Message]:
    columns = message_columns(fields)
    column = next((name for name in columns if row.get(name) is not None), None)
    if column is None:
        raise RowError(f"the column {columns[0]!r} is missing or null; this row has {', '.join(map(str, row))}")
    turns = row[column]
    if isinstance(turns, str):
        turns = _parsed(turns, column)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"{column} must be a list of turns with role and content, got {shown(turns)}")
    return [_message(turn, f"{column}[{index}]") for index, turn in enumerate(turns)]


def _parsed(text: str, column: str) -> Any:
    """A list of turns that a CSV file holds as JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{column} must be a list of turns with role and content, got {shown(text)}") from error


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{place} must be a turn with role and content, got {shown(turn)}")
    known = {key: value for key, value in turn.items() if value is not None}
    role_key, content_key = ("from", "value") if "from" in known and "role" not in known else ("role", "content")
    role, content = known.pop(role_key, None), known.pop(content_key, None)
    if role not in ROLES:
        raise RowError(f"{place}.{role_key} is {shown(role)}; write one of: {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"{place}.{content_key} must be text, got {shown(content)}")
    return {**known, "role": ROLES[role], "content": content}
