"""Which characters of a rendered conversation are trained: turns by role or by their own marks, and what ends them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from anneal_trainer.data.formats.chat.endings import Endings, behind
from anneal_trainer.data.formats.chat.locate import Locator, Spans
from anneal_trainer.data.formats.chat.options import Ends, Options
from anneal_trainer.data.formats.chat.parts import Detail, Span, merged
from anneal_trainer.data.formats.chat.turns import Conversation, Turn
from anneal_trainer.data.pieces import RowError


class Marks(NamedTuple):
    """Trained characters as a `Piece` takes them, and what is noteworthy about them.

    `answers` are where the assistant's trained turns begin; `missing` the trained turns that are not in the text;
    `open_ended` says that no token that ends a turn follows some answer.
    """

    trained: tuple[Span, ...]
    masked: tuple[Span, ...]
    partly: tuple[Span, ...]
    answers: dict[int, int]
    missing: tuple[Turn, ...]
    open_ended: bool


@dataclass(frozen=True)
class Marker:
    """Marks conversations by the options of one entry."""

    options: Options
    endings: Endings
    locator: Locator

    def marks(self, conversation: Conversation, text: str) -> Marks:
        """The marks of one conversation; RowError if a part that it marks cannot be found in the text."""
        turns = conversation.turns
        trained = [index for index, turn in enumerate(turns) if self._is_trained(turn)]
        every = "all" in (self.options.eos, self.options.eot)
        looked_at = range(len(turns)) if every else trained
        spans = self.locator.spans(conversation, text, looked_at)
        there = [index for index in trained if index in spans]
        details = [index for index in there if _has_detail(turns[index])]
        whole = [spans[index] for index in there if index not in details]
        parts, masked, partly = self._in_detail(conversation, text, details)
        ends, closed = self._ends(
            conversation, text, {index: spans[index] for index in looked_at if index in spans}, trained
        )
        answers = {index: spans[index][0] for index in there if turns[index].role == "assistant"}
        return Marks(
            trained=merged([*whole, *parts, *ends]),
            masked=merged(masked),
            partly=merged(partly),
            answers=answers,
            missing=tuple([turns[index] for index in trained if index not in spans]),
            open_ended=not closed.issuperset(answers),
        )

    def _is_trained(self, turn: Turn) -> bool:
        if turn.train is not None:
            return turn.train
        if not _has_detail(turn):
            return self.options.every_role or turn.role in self.options.trained_roles
        return any(detail.given for detail in (turn.content, turn.thinking) if detail is not None)

    def _in_detail(
        self, conversation: Conversation, text: str, indices: Iterable[int]
    ) -> tuple[list[Span], list[Span], list[Span]]:
        """Trained, masked and partly trained characters of the turns that mark parts of themselves."""
        trained: list[Span] = []
        masked: list[Span] = []
        partly: list[Span] = []
        for index in indices:
            turn = conversation.turns[index]
            for key, detail in (("content", turn.content), (self.options.thinking, turn.thinking)):
                if detail is None:
                    continue
                place = self.locator.part(conversation, text, index, key)
                spans = _placed(detail, turn.message.get(key, ""), text, place)
                if detail.strict:
                    trained += spans
                    masked += _outside(spans, place)
                else:
                    partly += spans
        return trained, masked, partly

    def _ends(
        self, conversation: Conversation, text: str, spans: Spans, trained: list[int]
    ) -> tuple[list[Span], set[int]]:
        """The trained tokens that end turns, and the turns that have one behind them at all."""
        ends: list[Span] = []
        closed: set[int] = set()
        for tokens, option in ((self.endings.eot, self.options.eot), (self.endings.eos, self.options.eos)):
            if tokens is None:
                continue
            found = {index: end for index, span in spans.items() if (end := behind(text, span[1], tokens))}
            found = {i: end for i, end in found.items() if self._is_own(conversation, text, i, (spans[i][1], end[0]))}
            closed.update(found)
            ends += _chosen(found, option, trained)
        return ends, closed

    def _is_own(self, conversation: Conversation, text: str, index: int, between: Span) -> bool:
        """Whether the token behind `between` ends this turn, and not the next one, whose words may stand before it."""
        if not text[slice(*between)].strip() or index + 1 == len(conversation.turns):
            return True
        following = self.locator.spans(conversation, text, [index + 1]).get(index + 1)
        return following is None or following[0] >= between[1]


def _has_detail(turn: Turn) -> bool:
    return turn.content is not None or turn.thinking is not None


def _chosen(found: Spans, option: Ends, trained: list[int]) -> list[Span]:
    match option:
        case "all":
            return list(found.values())
        case "turn":
            return [end for index, end in found.items() if index in trained]
        case "last":
            return [found[max(found)]] if found else []
        case "none":
            return []


def _placed(detail: Detail, content: str, text: str, place: Span) -> list[Span]:
    """The ranges of a content as ranges of the text, where the template may have trimmed it."""
    start, end = place
    missing = content.find(text[start:end])
    if missing < 0:
        raise RowError(
            f"the chat template rewrites a content of which parts are marked (it begins {text[start : start + 30]!r}), "
            "so that they cannot be found: mark whole turns, or use a template that writes contents as they are"
        )
    moved = ((max(first - missing, 0) + start, min(last - missing + start, end)) for first, last in detail.spans)
    return [(first, last) for first, last in moved if first < last]


def _outside(spans: list[Span], place: Span) -> Iterator[Span]:
    """What of `place` is in none of the sorted `spans`."""
    start, end = place
    for first, last in spans:
        if start < first:
            yield start, first
        start = last
    if start < end:
        yield start, end
