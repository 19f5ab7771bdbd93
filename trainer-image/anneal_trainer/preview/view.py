"""What a preview shows, as plain data that prints as JSON: sequences of segments, and packs of sequences.

A segment is one token, or the few that only together are text (a character of several bytes). Its text is what the
token adds to the decoded text before it, so that a tokenizer which writes spaces as prefixes shows them where they are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anneal_trainer.data.pieces import IGNORED, Tokens

# Tokens before a token that can change how it is decoded: a space at the start, bytes of one character.
_CONTEXT = 8
_BROKEN = "\ufffd"


@dataclass(frozen=True)
class Segment:
    """Text and the ids behind it. `trained`: a prediction of it is learnt from. `special`: a control token."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    special: bool


@dataclass(frozen=True)
class Shown:
    """One row: where it stands, and either its segments or why it has none.

    `dataset`: the number of its source; those of evaluation are counted on behind those of training.
    `cut`: the beginning of what lies beyond the sequence length, `cut_tokens` in all. `left_out`: tokens of the middle
    that are not drawn, for want of room, before segment `gap`. `fate`: why it is not trained on all the same.
    `notes`: worth telling.
    """

    dataset: int
    place: str
    kind: str = ""
    segments: tuple[Segment, ...] = ()
    cut: tuple[Segment, ...] = ()
    cut_tokens: int = 0
    gap: int = 0
    left_out: int = 0
    left_out_trained: int = 0
    problem: str = ""
    fate: str = ""
    notes: tuple[str, ...] = ()

    def but(self, **changes: Any) -> "Shown":
        """The same row with `changes`."""
        return replace(self, **changes)

    @property
    def tokens(self) -> int:
        """Tokens that reach the model."""
        return self.left_out + sum(len(segment.ids) for segment in self.segments)

    @property
    def trained(self) -> int:
        """Those whose prediction is learnt from."""
        return self.left_out_trained + sum(len(segment.ids) for segment in self.segments if segment.trained)

    @property
    def trained_words(self) -> str:
        """How many those are; nothing of a prompt, which alone has none and is used all the same."""
        return f", {self.trained:,} trained" if self.trained or self.fate else ""

    def shortened(self, most: int) -> "Shown":
        """At most `most` segments: two thirds from the beginning, one from the end, where the answer is."""
        if len(self.segments) <= most:
            return self
        gap, end = most - most // 3, len(self.segments) - most // 3
        out = self.segments[gap:end]
        return self.but(
            segments=self.segments[:gap] + self.segments[end:],
            gap=gap,
            left_out=sum(len(segment.ids) for segment in out),
            left_out_trained=sum(len(segment.ids) for segment in out if segment.trained),
        )

    @property
    def gap_words(self) -> str:
        """What stands where segments are left out."""
        trained = f", {self.left_out_trained:,} trained" if self.trained_words else ""
        return f" ⋯ {self.left_out:,} tokens{trained} ⋯ " if self.left_out else ""


@dataclass(frozen=True)
class Preview:
    """What one command shows. `packs`: for each pack the numbers of its sequences in `rows`."""

    job: str
    sequence_length: int
    rows: tuple[Shown, ...]
    packs: tuple[tuple[int, ...], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def dump(self) -> dict[str, Any]:
        """For JSON: every row with its counts."""
        rows = [{**asdict(row), "tokens": row.tokens, "trained": row.trained} for row in self.rows]
        return {**asdict(self), "rows": rows}


def segments(tokenizer: Any, tokens: Tokens) -> tuple[Segment, ...]:
    """The segments of a sequence, in order; their ids together are `tokens.input_ids`.

    The first token of a sequence is nobody's prediction, so it is never shown as trained.
    """
    ids, special = tokens.input_ids, set(tokenizer.all_special_ids)
    found: list[Segment] = []
    begin = 0
    while begin < len(ids):
        end, text = _readable(tokenizer, ids, begin)
        trained = any(tokens.labels[i] != IGNORED and i > 0 for i in range(begin, end))
        found.append(Segment(text, tuple(ids[begin:end]), trained, special=ids[begin] in special))
        begin = end
    return tuple(found)


def _readable(tokenizer: Any, ids: Sequence[int], begin: int) -> tuple[int, str]:
    """Where the segment that begins here ends, and its text: as many tokens as make whole characters."""
    before = ids[max(0, begin - _CONTEXT) : begin]
    prefix = _decoded(tokenizer, before)
    for end in range(begin + 1, min(begin + _CONTEXT, len(ids)) + 1):
        text = _decoded(tokenizer, [*before, *ids[begin:end]])
        if not text.endswith(_BROKEN):
            return end, text[len(prefix) :] if text.startswith(prefix) else _decoded(tokenizer, ids[begin:end])
    return begin + 1, _decoded(tokenizer, ids[begin : begin + 1])


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
