"""Turns in rows of alignment: read as role/content or from/value, and rendered by the model's template.

Not here: training switches of single turns; an alignment row trains its answers, whole.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from anneal_trainer.data.formats.chat.options import ROLES
from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.pieces import RowError

Turn = dict[str, str]


class Template(Protocol):
    """The chat template: turns to text, with the beginning of an answer behind them if `generate`."""

    def __call__(self, messages: Sequence[Turn], *, generate: bool) -> str:
        """Render; whatever the template raises is the row's problem."""
        ...


def turn(value: Any, place: str, role: str = "") -> Turn:
    """One turn; a text alone is what `role` says."""
    if isinstance(value, str) and role:
        return {"role": role, "content": value}
    if not isinstance(value, dict):
        raise RowError(f"{place} must be a turn with role and content, got {shown(value)}")
    keys = ("from", "value") if "from" in value and "role" not in value else ("role", "content")
    said_by, words = value.get(keys[0]), value.get(keys[1])
    if said_by not in ROLES:
        raise RowError(f"{place}.{keys[0]} is {shown(said_by)}; write one of: {', '.join(ROLES)}")
    if not isinstance(words, str):
        raise RowError(f"{place}.{keys[1]} must be text, got {shown(words)}")
    return {"role": ROLES[said_by], "content": words}


def turns(value: Any, place: str) -> list[Turn]:
    """A list of turns that is not empty; a text alone is what the user says."""
    if isinstance(value, str):
        return [turn(value, place, "user")]
    if not isinstance(value, list) or not value:
        raise RowError(f"{place} must be a list of turns with role and content, got {shown(value)}")
    return [turn(entry, f"{place}[{index}]") for index, entry in enumerate(value)]


def said_by_the_model(entry: Turn, place: str) -> Turn:
    """The turn, which must be an answer."""
    if entry["role"] != "assistant":
        raise RowError(f"{place} must end with an assistant turn, got one of {entry['role']}")
    return entry


def exchange(value: Any, place: str) -> tuple[str, str]:
    """A conversation of one question and one answer: their words."""
    said = turns(value, place)
    if [entry["role"] for entry in said] != ["user", "assistant"]:
        roles = ", ".join(entry["role"] for entry in said)
        raise RowError(
            f"{place} must be one user turn and one assistant turn, got {roles}: "
            "longer conversations are for chat_template.argilla_chat"
        )
    return said[0]["content"], said[1]["content"]


def rendered(template: Template, messages: Sequence[Turn], *, generate: bool = False) -> str:
    """The turns as text; RowError if the template refuses them."""
    try:
        return template(messages, generate=generate)
    except RowError:
        raise
    except Exception as error:  # a template raises what its author chose, jinja2.TemplateError or worse
        raise RowError(f"the chat template refuses these messages: {error}") from error


def answer(template: Template, before: Sequence[Turn], said: Turn, prompt: str) -> str:
    """What the template writes behind `prompt` for the last turn, as it stands in the whole conversation.

    Taken from the whole, since a template may trim or rewrite what it is given: looking for the turn's words in the
    text, as Axolotl does, cuts at another place when they are not there any more.
    """
    whole = rendered(template, [*before, said])
    if not whole.startswith(prompt):
        raise RowError(
            "the chat template renders the prompt differently once an answer follows, so where the answer begins "
            f"cannot be told; the prompt ends with {shown(prompt[-40:])}"
        )
    return whole[len(prompt) :]
