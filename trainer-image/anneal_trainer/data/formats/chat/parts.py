"""Contents that come in parts, and which characters of a content are trained.

Two shapes are known: a list of parts with a flag each, and a list of character ranges beside the text. They differ at
a token on the edge of a range. Parts follow their flags strictly: a token with a character of an untrained part is not
trained. Ranges, which people write around words, take a token that has at least two characters inside.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.pieces import RowError

Span = tuple[int, int]
_SWITCH = (0, 1)
_TEXT_KEYS = ("text", "content", "value")


@dataclass(frozen=True)
class Detail:
    """The trained ranges of a content, half open; `strict` keeps every token out that is partly outside."""

    spans: tuple[Span, ...]
    strict: bool
    given: bool = True


def joined(content: Any, place: str, *, absent: bool) -> tuple[str | None, Detail | None]:
    """A content as one text, and its flags if its parts have any."""
    if isinstance(content, str):
        return content, None
    if content is None and absent:
        return None, None
    if not isinstance(content, list):
        raise RowError(f"{place} must be text or a list of parts, got {shown(content)}")
    texts, spans, flagged, length = [], [], False, 0
    for index, part in enumerate(content):
        text, flag = _part(part, f"{place}[{index}]")
        flagged = flagged or flag is not None
        if text and flag is not False:
            spans.append((length, length + len(text)))
        length += len(text)
        texts.append(text)
    return "".join(texts), Detail(tuple(spans), strict=True) if flagged else None


def _part(part: Any, place: str) -> tuple[str, bool | None]:
    if isinstance(part, str):
        return part, None
    kind = part.get("type", "text") if isinstance(part, dict) else None
    text = next((part[key] for key in _TEXT_KEYS if part.get(key) is not None), None) if kind is not None else None
    if not isinstance(text, str):
        raise RowError(f"{place} must be a part with text, like {{type: text, text: …}}; got {shown(part)}")
    flag = part.get("train", part.get("weight"))
    return text, None if flag is None else _switch(flag, place)


def detail_of(value: Any, place: str) -> Detail | None:
    """The ranges that a message lists; an empty list trains nothing of its turn."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowError(f"{place} must be a list of {{begin_offset, end_offset, train}}, got {shown(value)}")
    spans = [_range(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    return Detail(tuple(span for span in spans if span), strict=False, given=bool(value))


def _range(entry: Any, place: str) -> Span | None:
    begin, end = (entry.get("begin_offset"), entry.get("end_offset")) if isinstance(entry, dict) else (None, None)
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise RowError(
            f"{place} must hold begin_offset and end_offset, whole numbers from 0 with the end included, and train; "
            f"got {shown(entry)}"
        )
    return (begin, end + 1) if _switch(entry.get("train"), f"{place}.train") else None


def _switch(value: Any, place: str) -> bool:
    if not isinstance(value, bool | int | float) or value not in _SWITCH:
        raise RowError(f"{place} must be true or false, got {shown(value)}")
    return bool(value)


def merged(spans: Collection[Span]) -> tuple[Span, ...]:
    """Sorted, and one where they touch."""
    if not spans:
        return ()
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)
