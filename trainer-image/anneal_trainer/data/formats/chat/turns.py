"""From a row to the turns that a template is given, each with what the row says about training it.

Rows come from many hands: turns as JSON text, keys under other names, null where nothing is meant, arguments of tool
calls as text. All of that is made one shape here, or refused with its place and value. Not here: rendering.
"""

import json
import re
from typing import Any, NamedTuple

from anneal_trainer.data.formats.chat.options import Options
from anneal_trainer.data.formats.chat.parts import Detail, detail_of, joined
from anneal_trainer.data.formats.chat.template import Message
from anneal_trainer.data.formats.chat.thinking import split
from anneal_trainer.data.formats.chat.tools import call_arguments, tools_of, without_nulls
from anneal_trainer.data.formats.values import names, shown
from anneal_trainer.data.pieces import RowError

_SWITCH = {True: True, False: False}
_PLAIN = 2
_ROLE_AND_CONTENT = frozenset({"role", "content", "from", "value"})


class Turn(NamedTuple):
    """One message and its marks; `train` is None where the row leaves it to the turn's role."""

    message: Message
    train: bool | None = None
    content: Detail | None = None
    thinking: Detail | None = None

    @property
    def role(self) -> str:
        """Who speaks."""
        role: str = self.message["role"]
        return role

    @property
    def plain(self) -> bool:
        """Whether role and content are all there is."""
        return len(self.message) == _PLAIN and "content" in self.message


class Conversation(NamedTuple):
    """A row's turns and tools. `marked`: a special token's name was found in a text. `calls`: a turn calls a tool.

    `switched`: a turn says that it is not to be trained, and no option has that read.
    """

    turns: tuple[Turn, ...]
    tools: list[Any] | None = None
    marked: bool = False
    calls: bool = False
    switched: bool = False

    @property
    def messages(self) -> list[Message]:
        """What the template is given."""
        return [turn.message for turn in self.turns]

    @property
    def shape(self) -> tuple[str, ...] | None:
        """The roles, if these and contents are all there is: conversations of one shape are rendered alike."""
        if self.tools or not all(turn.plain for turn in self.turns):
            return None
        return tuple([turn.role for turn in self.turns])


class Reader:
    """Reads rows by the options of one entry; `passed` are the keys that its template can read."""

    def __init__(self, options: Options, passed: frozenset[str], special_tokens: tuple[str, ...]) -> None:
        self._options = options
        mapped = set(options.keys.values())
        self._passed = frozenset(passed - mapped - _ROLE_AND_CONTENT)
        asked = {*mapped, options.training_key, options.detail_key}
        self._asks_no_more = asked.isdisjoint(_ROLE_AND_CONTENT) and not options.split_thinking
        names = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names))) if names else None

    def conversation(self, row: dict[str, Any]) -> Conversation:
        """The row's conversation, or RowError."""
        column, messages = messages_of(row, self._options.columns)
        turns = [self._turn(message, f"{column}[{index}]") for index, message in enumerate(messages)]
        system = row.get(self._options.system_column)
        if system is not None and turns[0].role != "system":
            if not isinstance(system, str):
                raise RowError(f"{self._options.system_column} must be text, got {shown(system)}")
            turns.insert(0, Turn({"role": "system", "content": system}))
        if self._options.drop_system and turns[0].role == "system":
            del turns[0]
            if not turns:
                raise RowError(f"{column} holds a system turn alone, which dropSystemMessage leaves out")
        marked, checked = self._special_checked(turns, column)
        key = self._options.keys.get("tool_calls", "tool_calls")
        calls = any(message.get(key) for message in messages)
        switched = self._options.training_key is None and any(map(_is_off, messages))
        return Conversation(tuple(checked), tools_of(row, self._options.tools_column), marked, calls, switched)

    def _turn(self, given: Any, place: str) -> Turn:
        if not isinstance(given, dict):
            raise RowError(f"{place} must be a turn with role and content, got {shown(given)}")
        if len(given) == _PLAIN and self._asks_no_more and (turn := self._plain_turn(given)):
            return turn
        known = {key: without_nulls(value) for key, value in given.items() if value is not None}
        role_key, content_key = self._keys(known)
        message: Message = {"role": self._role(known, role_key, f"{place}.{role_key}")}
        detail = None
        if self._options.detail_key:
            detail = detail_of(known.get(self._options.detail_key), f"{place}.{self._options.detail_key}")
        text, flags = joined(known.get(content_key), f"{place}.{content_key}", absent=self._may_lack_content(known))
        if text is not None:
            message["content"] = text
        self._add_rest(message, known)
        thinking = self._joined_thinking(message, place)
        if self._options.split_thinking and message["role"] == "assistant":
            split(message, self._options.thinking)
        call_arguments(message, place)
        return Turn(message, self._switch(known, place), flags or detail, thinking)

    def _plain_turn(self, given: Message) -> Turn | None:
        """The turn of a message that is a known role and a text: as `_turn` would make it, in a tenth of the time."""
        role_key, content_key = ("role", "content") if "role" in given else ("from", "value")
        role, content = given.get(role_key), given.get(content_key)
        if type(role) is str and type(content) is str and role in self._options.roles:
            return Turn({"role": self._options.roles[role], "content": content})
        return None

    def _keys(self, known: Message) -> tuple[str, str]:
        """The keys of role and content: as mapped, else as ShareGPT or OpenAI name them."""
        mapped = self._options.keys
        sharegpt = "from" in known and "role" not in known
        role = mapped.get("role") or ("from" if sharegpt else "role")
        return role, mapped.get("content") or ("value" if sharegpt else "content")

    def _role(self, known: Message, key: str, place: str) -> str:
        options, role = self._options, known.get(key)
        if isinstance(role, str) and role in options.roles:
            return options.roles[role]
        if not isinstance(role, str) or role not in options.known_roles:
            accepted = ", ".join(options.roles)
            if role is None and known:
                raise RowError(
                    f"{place} is null, the turn has {names(known)}: name the keys of role and content in "
                    "messagePropertyMappings, {role: …, content: …}"
                )
            raise RowError(f"{place} is {shown(role)}; write one of: {accepted}; or map it in roles")
        return role

    def _may_lack_content(self, known: Message) -> bool:
        keys = (self._options.keys.get("tool_calls", "tool_calls"), self._options.keys[self._options.thinking])
        return any(known.get(key) for key in keys)

    def _add_rest(self, message: Message, known: Message) -> None:
        """The keys that are mapped, and those that the template names."""
        for key, source in self._options.keys.items():
            if key not in ("role", "content") and source in known:
                message[key] = known[source]
        for key in known:
            if key in self._passed and key not in message:
                message[key] = known[key]

    def _joined_thinking(self, message: Message, place: str) -> Detail | None:
        key = self._options.thinking
        if key not in message:
            return None
        message[key], flags = joined(message[key], f"{place}.{key}", absent=False)
        return flags

    def _switch(self, known: Message, place: str) -> bool | None:
        key = self._options.training_key
        value = known.get(key) if key else None
        if value is None:
            return None
        if not isinstance(value, bool | int | float) or value not in _SWITCH:
            raise RowError(f"{place}.{key} must be true or false, got {shown(value)}")
        return bool(value)

    def _special_checked(self, turns: list[Turn], column: str) -> tuple[bool, list[Turn]]:
        """Names of special tokens in what was not written by the assistant, treated as the entry asks."""
        if self._special is None:
            return False, turns
        search = self._special.search
        hits = [
            index
            for index, turn in enumerate(turns)
            if turn.role != "assistant" and search(turn.message.get("content", ""))
        ]
        if hits and self._options.special_text == "fail":
            found = search(turns[hits[0]].message["content"])
            raise RowError(
                f"{column}: the {turns[hits[0]].role}'s text holds {shown(found and found[0])}, the name of a special "
                "token, which it would become: take it out, or set specialTokensInText to escape or keep"
            )
        if self._options.special_text == "escape":
            turns = [self._escaped(turn) if index in hits else turn for index, turn in enumerate(turns)]
        return bool(hits), turns

    def _escaped(self, turn: Turn) -> Turn:
        assert self._special is not None, "asked for only where something was found"
        if turn.content is not None:
            raise RowError("a text with marked parts holds a special token's name: it cannot be escaped, take it out")
        content = self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", turn.message["content"])
        return Turn({**turn.message, "content": content}, turn.train)


def _is_off(message: Message) -> bool:
    """Whether a turn is marked as OpenAI's and Axolotl's files mark what is not to be trained."""
    return ("train" in message and message["train"] in (False, 0)) or (
        "weight" in message and message["weight"] in (False, 0)
    )


def messages_of(row: dict[str, Any], columns: tuple[str, ...]) -> tuple[str, list[Any]]:
    """The turns of a row, and the column that they are in."""
    column = next((name for name in columns if row.get(name) is not None), None)
    if column is None:
        raise RowError(f"the column {columns[0]!r} is missing or null; this row has {names(row)}")
    messages = row[column]
    if isinstance(messages, str):
        messages = _parsed(messages, column)
    if not isinstance(messages, list) or not messages:
        raise RowError(f"{column} must be a list of turns with role and content, got {shown(messages)}")
    return column, messages


def _parsed(text: str, column: str) -> Any:
    """A list of turns that a CSV file holds as JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{column} must be a list of turns with role and content, got {shown(text)}") from error
