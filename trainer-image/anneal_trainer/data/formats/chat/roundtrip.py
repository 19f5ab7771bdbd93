"""Training text against inference: what precedes an answer must be what a server sends to have it answered.

Templates often break this: one that drops earlier reasoning only while generating, one whose generation prompt differs
from the header it writes for finished turns. It shows in no loss. Each shape of conversation is checked once.
Not here: whether the prompt's tokens are those of the training text (`seams`).
"""

from typing import NamedTuple

from anneal_trainer.data.formats.chat import notes
from anneal_trainer.data.formats.chat.locate import differing
from anneal_trainer.data.formats.chat.template import Template
from anneal_trainer.data.formats.chat.turns import Conversation
from anneal_trainer.data.pieces import Note, RowError

_MOST_SHAPES = 256
_SHOWN = 40
Shape = tuple[str, ...] | tuple[tuple[str, ...], ...]


class Compared(NamedTuple):
    """What differs, if something does, and where the prompts that a server would send end in the text."""

    note: Note | None = None
    prompts: tuple[int, ...] = ()


class RoundTrip:
    """Checks answers of shapes that it has not seen; of each it remembers how far behind a prompt an answer begins."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._seen: dict[Shape, dict[int, int]] = {}

    def compared(self, conversation: Conversation, text: str, answers: dict[int, int]) -> Compared:
        """`answers` are where the assistant's turns begin in `text`."""
        shape: Shape | None = conversation.shape
        if shape is None:
            shape = tuple((turn.role, *sorted(turn.message)) for turn in conversation.turns)
        behind = self._seen.get(shape)
        if behind is not None:
            # What a template writes around more than words may depend on these.
            return Compared(prompts=_ends(answers, behind) if conversation.shape else ())
        if len(self._seen) >= _MOST_SHAPES:
            return Compared()
        sent = {index: self._sent(conversation, index) for index in answers if index}
        there = {index: prompt for index, prompt in sent.items() if prompt is not None}
        behind = {index: len(there[index]) - answers[index] for index in there if text.startswith(there[index])}
        self._seen[shape] = behind
        other = next((index for index in there if index not in behind), None)
        note = None if other is None else _differing(there[other], text[: answers[other]])
        return Compared(note, _ends(answers, behind))

    def _sent(self, conversation: Conversation, index: int) -> str | None:
        try:
            return self._template.render(conversation.messages[:index], conversation.tools, prompt=True)
        except RowError:  # a template that refuses to answer here has nothing to compare with
            return None


def _ends(answers: dict[int, int], behind: dict[int, int]) -> tuple[int, ...]:
    return tuple(start + behind[index] for index, start in answers.items() if index in behind)


def _differing(sent: str, had: str) -> Note:
    place = differing(sent, had)[0]
    return notes.other_prompt(sent[place:][:_SHOWN], had[place:][:_SHOWN])
