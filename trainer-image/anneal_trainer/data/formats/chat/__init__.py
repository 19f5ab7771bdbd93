"""`chat_template`: a list of turns, rendered by a chat template; what the assistant says, and its end, is trained.

One file a question: what the entry asks for (`options`), what the row says (`turns`, `parts`, `tools`, `thinking`),
what text that is (`template`, `known`), where each turn stands in it (`locate`), what ends a turn (`endings`), which
characters are trained (`marks`), and whether inference would send the same (`roundtrip`). This file puts the answers
together. ShareGPT rows (`from`/`value`) are read as the same thing under other names. Not here: type `messages`, which
has no template (`weighted`).
"""

from collections.abc import Iterator
from typing import Any

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data.formats.chat import notes
from anneal_trainer.data.formats.chat.endings import Endings
from anneal_trainer.data.formats.chat.locate import Locator
from anneal_trainer.data.formats.chat.marks import Marker, Marks
from anneal_trainer.data.formats.chat.options import Options, message_columns
from anneal_trainer.data.formats.chat.roundtrip import RoundTrip
from anneal_trainer.data.formats.chat.template import Message, Renderer, Template
from anneal_trainer.data.formats.chat.turns import Conversation, Reader
from anneal_trainer.data.formats.chat.weighted import WeightedFormat
from anneal_trainer.data.pieces import Note, Piece, Text

__all__ = ["ChatFormat", "Message", "Renderer", "WeightedFormat", "message_columns"]


class ChatFormat:
    """The function of one entry. It remembers shapes of conversations, so one process should keep it for all rows."""

    def __init__(self, dataset: DatasetSpec, renderer: Renderer) -> None:
        template: Template = renderer.chosen(dataset.chat_template, dataset.chat_template_kwargs)
        self._template = template
        self._options = Options.of(dataset, template)
        self._reader = Reader(self._options, template.names, renderer.special_tokens)
        endings = Endings.of(dataset, self._options, template)
        self._marker = Marker(self._options, endings, Locator(template))
        self._round_trip = RoundTrip(template)
        self._bos_twice = renderer.bos * 2
        self._thinking_unread = self._options.thinking not in template.names
        self._other_template = template.source != renderer.template

    def __call__(self, row: dict[str, Any]) -> Text:
        """One conversation."""
        conversation = self._reader.conversation(row)
        text = self._template.render(conversation.messages, conversation.tools)
        marks = self._marker.marks(conversation, text)
        piece = Piece(text, marks.trained, masked=marks.masked, partly=marks.partly)
        compared = self._round_trip.compared(conversation, text, marks.answers)
        told = list(self._notes(conversation, text, marks))
        if compared.note is not None:
            told.append(compared.note)
        return Text((piece,), notes=tuple(told), prompts=compared.prompts)

    def _notes(self, conversation: Conversation, text: str, marks: Marks) -> Iterator[Note]:
        if self._other_template:
            yield notes.other_template()
        if conversation.marked and self._options.special_text == "keep":
            yield notes.special_text()
        if conversation.switched:
            yield notes.marks_unread()
        if conversation.tools and "tools" not in self._template.names:
            yield notes.tools_unread()
        if conversation.calls and "tool_calls" not in self._template.names:
            yield notes.calls_unread()
        if self._thinking_unread and any(message.get(self._options.thinking) for message in conversation.messages):
            yield notes.thinking_unread()
        if self._bos_twice and text.startswith(self._bos_twice):
            yield notes.start_twice()
        if marks.open_ended and "none" not in (self._options.eos, self._options.eot):
            yield notes.end_untrained()
        missing = next((turn for turn in marks.missing if turn.message.get("content")), None)
        if missing is not None:
            yield notes.left_out(missing.role)
