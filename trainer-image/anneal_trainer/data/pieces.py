"""What a row is on its way to tokens: text with the characters that are trained marked, or tokens already.

A format decides *what* is said and *which* of it is trained; it never tokenizes. So formats are pure functions of
a row that are tested by reading, and tokenization happens once, in batches, for all of them (`encode`).
"""

from dataclasses import dataclass, field

IGNORED = -100


@dataclass(frozen=True)
class Piece:
    """A text that is tokenized by itself; `trained` are half-open character spans of it."""

    text: str
    trained: tuple[tuple[int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every token of the piece is trained."""
        return self.trained == ((0, len(self.text)),)


@dataclass(frozen=True)
class Text:
    """Pieces in order. `starts`: begin with the tokenizer's own start tokens. `ends`: end with EOS, trained."""

    pieces: tuple[Piece, ...]
    starts: bool = False
    ends: bool = False


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
