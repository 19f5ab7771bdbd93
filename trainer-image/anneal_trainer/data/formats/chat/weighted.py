"""Type `messages`: turns with a weight each, written as ChatML or Llama 3 turns without a template.

Every turn is tokenized by itself. What is trained is the content of turns with a weight (by default the assistant's)
and the token that ends them; parts of a content may have a weight of their own, which can only take out. A token that
begins before a trained text is not trained. Tool calls and responses among the parts are written as JSON between tags.
Not here: templates and all that depends on them.
"""

import json
from dataclasses import dataclass
from typing import Any

from anneal_api.chat import chat_options
from anneal_api.dataset import DatasetFields, DatasetSpec
from anneal_trainer.data.formats.chat.notes import special_text
from anneal_trainer.data.formats.chat.options import message_columns
from anneal_trainer.data.formats.chat.parts import merged
from anneal_trainer.data.formats.chat.template import Renderer
from anneal_trainer.data.formats.chat.turns import messages_of
from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.pieces import Piece, RowError, Text
from anneal_trainer.errors import ConfigError

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "ipython": "ipython",
}
# The order in which a call's keys have always been written; others follow.
_CALL_KEYS = ("name", "arguments", "content", "id")
_ACTING = ("chatTemplate", "messagePropertyMappings", "messageFieldTraining")


@dataclass(frozen=True)
class _Layout:
    """What stands around a content: the header's two halves, the token that ends the turn, and what follows it."""

    start: str
    header: tuple[str, str]
    end: str
    after: str
    renamed: dict[str, str]


_LAYOUTS = {
    "chatml": _Layout("", ("<|im_start|>", "\n"), "<|im_end|>", "\n", {}),
    "llama3": _Layout(
        "<|begin_of_text|>", ("<|start_header_id|>", "<|end_header_id|>\n\n"), "<|eot_id|>", "", {"tool": "ipython"}
    ),
}


class WeightedFormat:
    """The function of one entry."""

    def __init__(self, dataset: DatasetSpec, renderer: Renderer) -> None:
        idle = [name for name in chat_options(dataset) if name not in _ACTING]
        if idle:
            raise ConfigError(f"{', '.join(idle)} cannot act on type messages: leave it out, or use chat_template")
        choice = dataset.chat_template or "chatml"
        if choice not in _LAYOUTS:
            raise ConfigError(
                f"type messages writes chatml or llama3, not {choice[:60]!r}: use type chat_template for it"
            )
        self._layout = _LAYOUTS[choice]
        self._check_tokens(choice, renderer)
        keys = dataset.message_property_mappings or {}
        self._columns = message_columns(dataset.fields or DatasetFields())
        self._role_keys = _keys(keys.get("role"), ("role", "from"))
        self._content_keys = _keys(keys.get("content"), ("value", "text", "content"))
        self._weight_keys = _keys(dataset.message_field_training, ("train", "weight"))
        self._special = renderer.special_tokens
        self._every_role = dataset.train_on_inputs

    def __call__(self, row: dict[str, Any]) -> Text:
        """One conversation."""
        column, messages = messages_of(row, self._columns)
        pieces, marked = [], False
        for index, message in enumerate(messages):
            place = f"{column}[{index}]"
            if not isinstance(message, dict):
                raise RowError(f"{place} must be a turn with role and content, got {shown(message)}")
            role = self._role(message, place)
            parts = self._parts(message, place)
            marked = marked or (
                role != "assistant" and any(name in text for text, _ in parts for name in self._special)
            )
            pieces.append(self._piece(role, parts, weight=self._weight(message, role, place), first=not index))
        return Text(tuple(pieces), notes=(special_text(),) if marked else ())

    def _check_tokens(self, choice: str, renderer: Renderer) -> None:
        layout = self._layout
        tokens = [text.strip() for text in (layout.start, *layout.header, layout.end) if text.strip()]
        missing = [token for token in tokens if token not in renderer.added_tokens]
        if missing:
            raise ConfigError(
                f"type messages writes {choice} turns with {', '.join(missing)}, which this tokenizer lacks: add them "
                "with model.addSpecialTokens, or set chatTemplate to chatml or llama3"
            )

    def _piece(self, role: str, parts: list[tuple[str, bool]], *, weight: bool, first: bool) -> Piece:
        layout = self._layout
        text = (layout.start if first else "") + layout.header[0] + layout.renamed.get(role, role) + layout.header[1]
        spans = []
        for content, kept in [*parts, (layout.end, True)]:
            if weight and kept and content:
                spans.append((len(text), len(text) + len(content)))
            text += content
        trained = merged(spans)
        return Piece(text + layout.after, trained, masked=tuple((first - 1, first) for first, _ in trained if first))

    def _role(self, message: dict[str, Any], place: str) -> str:
        key = _first(message, self._role_keys)
        role = message.get(key)
        if role not in _ROLES:
            raise RowError(f"{place}.{key} is {shown(role)}; write one of: {', '.join(_ROLES)}")
        return _ROLES[role]

    def _weight(self, message: dict[str, Any], role: str, place: str) -> bool:
        key = _first(message, self._weight_keys)
        value = message.get(key)
        usual = self._every_role or role == "assistant"
        return usual if value is None else _switch(value, f"{place}.{key}")

    def _parts(self, message: dict[str, Any], place: str) -> list[tuple[str, bool]]:
        key = _first(message, self._content_keys)
        content = message.get(key)
        if isinstance(content, str):
            return [(content, True)]
        if not isinstance(content, list):
            raise RowError(f"{place}.{key} must be text or a list of parts, got {shown(content)}")
        return [_part(part, f"{place}.{key}[{index}]") for index, part in enumerate(content)]


def _keys(chosen: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return (chosen,) if chosen else usual


def _first(message: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((key for key in keys if message.get(key) is not None), keys[0])


def _part(part: Any, place: str) -> tuple[str, bool]:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    value = _first(part, ("value", "text", "content")) if isinstance(part, dict) else ""
    kept = kind is not None and (part.get("weight") is None or _switch(part["weight"], f"{place}.weight"))
    if kind == "text" and isinstance(part.get(value), str):
        return part[value], kept
    if kind in ("tool_call", "tool_response") and isinstance(part.get(value), dict):
        call = part[value]
        body = json.dumps({key: call[key] for key in (*_CALL_KEYS, *call) if call.get(key) is not None})
        return f"<{kind}>\n{body}\n</{kind}>\n", kept
    raise RowError(
        f"{place} must be a part like {{type: text, value: …}}, or a tool_call or tool_response whose value is an "
        f"object; got {shown(part)}"
    )


def _switch(value: Any, place: str) -> bool:
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise RowError(f"{place} must be 0 or 1, or true or false; got {shown(value)}")
    return bool(value)
