"""What a row is on its way to tokens: text with the characters that are trained marked, or tokens already.

A format decides *what* is said and *which* of it is trained; it never tokenizes. So formats are pure functions of
a row that are tested by reading, and tokenization happens once, in batches, for all of them (`encode`).
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

IGNORED = -100


class Piece(NamedTuple):
    """A text that is tokenized by itself; the spans are half-open, of its characters, sorted and apart.

    A token with a character in `trained` is trained, unless it has one in `masked`. A token is also trained if it lies
    in one of `partly` or has at least two characters there. `starts`: the tokenizer's own start tokens come before the
    piece. `ends`: EOS comes after it, trained, if it has tokens at all: a model must not learn to answer with silence.
    """

    text: str
    trained: tuple[tuple[int, int], ...] = ()
    masked: tuple[tuple[int, int], ...] = ()
    partly: tuple[tuple[int, int], ...] = ()
    starts: bool = False
    ends: bool = False

    @property
    def whole(self) -> bool:
        """Whether every token of the piece is trained."""
        return self.trained == ((0, len(self.text)),) and not self.masked


@dataclass(frozen=True)
class Note:
    """Something worth telling about a row that is fine: why in one word, and what, going on from "rows that …"."""

    reason: str
    kind: str
    detail: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What rows are counted by."""
        return self.reason, self.kind


class Text(NamedTuple):
    """Pieces in order. `starts` and `ends` are those of the first and of the last piece.

    `division`: a row that becomes several sequences, cut behind one another or with an overlap (`division`).
    `asked`: what the row itself says in a prompt that its type words.
    `prompts`: where in a conversation's only piece the texts end that a server would send to have it answered.
    """

    pieces: tuple[Piece, ...]
    starts: bool = False
    ends: bool = False
    division: Literal["", "chunks", "windows"] = ""
    notes: tuple[Note, ...] = ()
    prompts: tuple[int, ...] = ()
    asked: str = ""


@dataclass(frozen=True)
class Tokens:
    """Token ids, and for each the label that its prediction is judged by (-100: none)."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


Example = Text | Tokens


class RowError(ValueError):
    """A row that its type cannot make sense of; the message names the column, the value and what is accepted."""


def trained(text: str) -> Piece:
    """A piece of which everything is trained."""
    return Piece(text, ((0, len(text)),))


def all_trained(example: Example) -> Example:
    """The same with every piece trained as a whole."""
    if isinstance(example, Tokens):
        return example
    return example._replace(
        pieces=tuple(piece._replace(trained=((0, len(piece.text)),), masked=(), partly=()) for piece in example.pieces)
    )
