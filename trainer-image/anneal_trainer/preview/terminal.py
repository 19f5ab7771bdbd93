"""A preview for a terminal: trained text stands out, the borders of tokens can be seen, packs are drawn as bars.

Without colour trained text stands in « ». Not here: writing to the terminal (the command does).
"""

from collections.abc import Iterator

from anneal_api.words import counted
from anneal_trainer.preview.view import Preview, Segment, Shown

_RESET = "\x1b[0m"
# Two shades of each, so that neighbouring tokens can be told apart.
_TRAINED = ("\x1b[30;48;5;114m", "\x1b[30;48;5;78m")
_PROMPT = ("\x1b[38;5;250m", "\x1b[38;5;245m")
_CUT = ("\x1b[9;38;5;167m", "\x1b[9;38;5;167m")
_BAR = 64
_BLOCKS = "█▓▒░"
# What would move the cursor or hide itself in a terminal is written visibly instead.
_VISIBLE = {**{code: f"\\x{code:02x}" for code in (*range(32), 127)}, ord("\n"): "↵\n", ord("\t"): "→\t"}


def lines(preview: Preview, *, colour: bool, ids: bool) -> Iterator[str]:
    """The lines of the whole preview. `ids`: write each token's id behind it."""
    for row in preview.rows:
        yield from _row(row, preview.sequence_length, colour=colour, ids=ids)
        yield ""
    yield from _packs(preview)
    for note in preview.notes:
        yield f"note: {note}"


def _row(row: Shown, length: int, *, colour: bool, ids: bool) -> Iterator[str]:
    if row.problem:
        yield f"── {row.place}: {row.problem}"
        return
    cut = f", {row.cut_tokens:,} cut at {length}" if row.cut else ""
    yield f"── {row.place} · {row.kind} · {counted(row.tokens, 'token')}{row.trained_words}{cut}"
    paint = _coloured if colour else _bracketed
    begin, end = (paint(part, ids=ids) for part in (row.segments[: row.gap], row.segments[row.gap :]))
    yield from "".join([*begin, row.gap_words, *end, *_cut(row, colour=colour)]).splitlines()
    yield from (f"   ! {words}" for words in (row.fate, *row.notes) if words)


def _coloured(segments: tuple[Segment, ...], *, ids: bool) -> Iterator[str]:
    for number, segment in enumerate(segments):
        shade = (_TRAINED if segment.trained else _PROMPT)[number % 2]
        # The colour ends before a line does, or it would fill the line to the border.
        text = _visible(segment, ids=ids).replace("\n", f"{_RESET}\n{shade}")
        yield f"{shade}{text}{_RESET}"


def _bracketed(segments: tuple[Segment, ...], *, ids: bool) -> Iterator[str]:
    inside = False
    for segment in segments:
        if segment.trained != inside:
            yield "«" if segment.trained else "»"
            inside = segment.trained
        yield _visible(segment, ids=ids)
    if inside:
        yield "»"


def _cut(row: Shown, *, colour: bool) -> Iterator[str]:
    if not row.cut:
        return
    more = " ⋯" if sum(len(segment.ids) for segment in row.cut) < row.cut_tokens else ""
    text = "".join(_visible(segment, ids=False) for segment in row.cut) + more
    yield f"{_CUT[0]}{text}{_RESET}" if colour else f" ✂ {text}"


def _visible(segment: Segment, *, ids: bool) -> str:
    text = segment.text.translate(_VISIBLE)
    return f"{text}[{' '.join(map(str, segment.ids))}]" if ids else text


def _packs(preview: Preview) -> Iterator[str]:
    for number, pack in enumerate(preview.packs, start=1):
        lengths = [preview.rows[index].tokens for index in pack]
        drawn = bar(lengths, preview.sequence_length)
        rows = ", ".join(str(index + 1) for index in pack)
        yield f"pack {number:<3} {drawn} {sum(lengths)}/{preview.sequence_length} tokens, rows {rows}"


def bar(lengths: list[int], capacity: int) -> str:
    """A pack drawn to scale: a run of one shade for each sequence, dots for what is left.

    >>> bar([512, 256], 1024)
    '████████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓················'
    """
    drawn, filled = "", 0
    for number, length in enumerate(lengths):
        filled += length
        drawn += _BLOCKS[number % len(_BLOCKS)] * (round(filled * _BAR / capacity) - len(drawn))
    return drawn.ljust(_BAR, "·")
