"""Which characters of a rendered conversation each turn became.

A conversation of a known shape (its sequence of roles) is rendered once: the text must be the shape's own pieces with
the contents between them, whole or trimmed, which is checked to the last character and so proves where each stands.
The pieces are what the template makes of stand-ins, kept per shape. Where the text is not of that form (a template that
rewrites what it is given, reasoning, tool calls), each turn is replaced by a stand-in once and the two texts compared.
Every rendering keeps the other turns, so that what a template does by position is the same on both sides.
Not here: which turns are trained.
"""

from collections.abc import Iterable, Iterator

from anneal_trainer.data.formats.chat.parts import Span
from anneal_trainer.data.formats.chat.template import Message, Template
from anneal_trainer.data.formats.chat.turns import Conversation
from anneal_trainer.data.pieces import RowError

# Private-use characters at both ends: no template treats them specially, none is shared with what stands beside them.
_EDGE = "\ue000"
STAND_IN = f"{_EDGE}stand-in{_EDGE}"
_MOST_SHAPES = 4096
_BLOCK = 4096
Spans = dict[int, Span]


class Locator:
    """Finds turns in what one template renders; remembers the shapes that it has seen."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._shapes: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def spans(self, conversation: Conversation, text: str, wanted: Iterable[int]) -> Spans:
        """The characters of each wanted turn that is in the text at all; an empty turn is not."""
        found = self._by_shape(conversation, text)
        if found is None:
            found = dict(self._one_by_one(conversation, text, wanted))
        return {index: span for index, span in found.items() if span[1] > span[0]}

    def part(self, conversation: Conversation, text: str, index: int, key: str) -> Span:
        """The characters of one key's value in one turn."""
        message = conversation.turns[index].message
        return self._differing(conversation, text, index, {**message, key: STAND_IN})

    def _by_shape(self, conversation: Conversation, text: str) -> Spans | None:
        shape = conversation.shape
        if shape is None:
            return None
        if shape in self._shapes:
            pieces = self._shapes[shape]
        else:
            pieces = pieces_of(self._template, shape)
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes[shape] = pieces
        contents = [turn.message["content"] for turn in conversation.turns]
        return None if pieces is None else _rebuilt(text, pieces, contents)

    def _one_by_one(self, conversation: Conversation, text: str, wanted: Iterable[int]) -> Iterator[tuple[int, Span]]:
        for index in wanted:
            stand_in = {"role": conversation.turns[index].role, "content": STAND_IN}
            yield index, self._differing(conversation, text, index, stand_in)

    def _differing(self, conversation: Conversation, text: str, index: int, message: Message) -> Span:
        messages = conversation.messages
        messages[index] = message
        return differing(text, self._template.render(messages, conversation.tools))


def pieces_of(template: Template, shape: tuple[str, ...]) -> tuple[str, ...] | None:
    """What the template puts before, between and behind contents; None if it does not write each once and in order."""
    names = [f"{_EDGE}{number}{_EDGE}" for number in range(len(shape))]
    try:
        text = template.render([{"role": role, "content": name} for role, name in zip(shape, names, strict=True)])
    except RowError:  # perhaps only these contents are refused; the row itself will tell
        return None
    pieces = []
    for name in names:
        before, there, text = text.partition(name)
        if not there:
            return None
        pieces.append(before)
    pieces.append(text)
    return None if any(_EDGE in piece for piece in pieces) else tuple(pieces)


def _rebuilt(text: str, pieces: tuple[str, ...], contents: list[str]) -> Spans | None:
    """Where each content stands, if the text is the pieces with the contents between them."""
    if not text.startswith(pieces[0]):
        return None
    found: Spans = {}
    place = len(pieces[0])
    for index, content in enumerate(contents):
        following = pieces[index + 1]
        end: int | None = place + len(content)
        if not (text.startswith(content, place) and text.startswith(following, end)):
            end = _end_of_trimmed(text, place, content, following)
        if end is None:
            return None
        found[index] = (place, end)
        place = end + len(following)
    return found if place == len(text) else None


def _end_of_trimmed(text: str, place: int, content: str, following: str) -> int | None:
    """Where `content` ends if it stands at `place` less the white space around it."""
    forms = (content.strip(), content.lstrip(), content.rstrip(), content.strip("\n"), content.lstrip("\n"))
    for form in forms:
        end = place + len(form)
        if text.startswith(form, place) and text.startswith(following, end):
            return end
    return None


def differing(text: str, other: str) -> Span:
    """The characters of `text` that are not in `other`, which has something else in their place."""
    most = min(len(text), len(other))
    start = _common(text, other, most)
    return start, len(text) - _common(text[::-1], other[::-1], most - start)


def _common(one: str, two: str, most: int) -> int:
    """The number of leading characters that both share, compared in blocks: a loop in Python would cost more."""
    place = 0
    while place + _BLOCK <= most and one[place : place + _BLOCK] == two[place : place + _BLOCK]:
        place += _BLOCK
    low, high = place, min(place + _BLOCK, most)
    while low < high:
        middle = (low + high + 1) // 2
        if one[place:middle] == two[place:middle]:
            low = middle
        else:
            high = middle - 1
    return low
