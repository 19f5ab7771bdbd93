"""Training text against inference: what precedes an answer must be what a server sends to have it answered.

Templates often break this: one that drops earlier reasoning only while generating, one whose generation prompt differs
from the header it writes for finished turns. It shows in no loss. Each shape of conversation is checked once.
"""

from anneal_trainer.data.formats.chat import notes
from anneal_trainer.data.formats.chat.locate import differing
from anneal_trainer.data.formats.chat.template import Template
from anneal_trainer.data.formats.chat.turns import Conversation
from anneal_trainer.data.pieces import Note, RowError

_MOST_SHAPES = 256
_SHOWN = 40
Shape = tuple[str, ...] | tuple[tuple[str, ...], ...]


class RoundTrip:
    """Checks answers of shapes that it has not seen."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._seen: set[Shape] = set()

    def note(self, conversation: Conversation, text: str, answers: dict[int, int]) -> Note | None:
        """What differs, if something does; `answers` are where the assistant's turns begin in `text`."""
        shape: Shape | None = conversation.shape
        if shape is None:
            shape = tuple((turn.role, *sorted(turn.message)) for turn in conversation.turns)
        if shape in self._seen or len(self._seen) >= _MOST_SHAPES:
            return None
        self._seen.add(shape)
        found = (self._differs(conversation, text, start, index) for index, start in answers.items() if index)
        return next((note for note in found if note is not None), None)

    def _differs(self, conversation: Conversation, text: str, start: int, index: int) -> Note | None:
        try:
            sent = self._template.render(conversation.messages[:index], conversation.tools, prompt=True)
        except RowError:  # a template that refuses to answer here has nothing to compare with
            return None
        had = text[:start]
        if text.startswith(sent):
            return None
        place = differing(sent, had)[0]
        return notes.other_prompt(sent[place:][:_SHOWN], had[place:][:_SHOWN])
