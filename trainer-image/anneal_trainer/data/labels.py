"""Which tokens of a piece are trained: from spans of characters to labels.

A span costs two look-ups inside the tokenizers library and one slice, not a pass over every token's offsets in Python,
which would cost as much as a quarter of the tokenizing itself. Spans whose edges no token covers (white space that a
tokenizer drops) take that pass. Not here: tokenizing.
"""

from typing import Any

from anneal_trainer.data.pieces import IGNORED, Piece

Span = tuple[int, int]
_LEAST_INSIDE = 2


def labels(piece: Piece, ids: list[int], encoding: Any) -> list[int]:
    """One label a token; `encoding` is the piece's, by the tokenizers library."""
    if piece.whole:
        return list(ids)
    found = [IGNORED] * len(ids)
    for span in piece.trained:
        first, last = _tokens(span, encoding)
        found[first:last] = ids[first:last]
    for span in piece.partly:
        for token in range(*_tokens(span, encoding)):
            if _mostly(encoding.offsets[token], span):
                found[token] = ids[token]
    for span in piece.masked:
        first, last = _tokens(span, encoding)
        found[first:last] = [IGNORED] * (last - first)
    return found


def _tokens(span: Span, encoding: Any) -> Span:
    """The tokens that share a character with `span`, as a half-open range."""
    first, last = span
    start = _token_at(encoding, range(first, last))
    if start is None:
        return _scanned_range(encoding, first, last)
    # Tokens that no character leads to: the bytes of one character, and white space that the tokenizer cut off.
    while start > 0 and encoding.token_to_chars(start - 1)[1] > first:
        start -= 1
    final = _token_at(encoding, range(last - 1, first - 1, -1))
    assert final is not None, "one of these characters has a token"
    end = final + 1
    while end < len(encoding) and _begin(encoding, end) < last:
        end += 1
    return start, end


def _token_at(encoding: Any, places: range) -> int | None:
    """The token of the first of these characters that has one."""
    for place in places:
        token: int | None = encoding.char_to_token(place)
        if token is not None:
            return token
    return None


def _scanned_range(encoding: Any, first: int, last: int) -> Span:
    """The same by looking at every token, for a span whose characters have none of their own."""
    found = [i for i, (_, end) in enumerate(encoding.offsets) if end > first and _begin(encoding, i) < last]
    return (found[0], found[-1] + 1) if found else (0, 0)


def _begin(encoding: Any, token: int) -> int:
    """Where a token begins. White space that a tokenizer left out of its offsets begins where the token before ends."""
    start, end = encoding.token_to_chars(token)
    if start < end:
        return int(start)
    return min(start, encoding.token_to_chars(token - 1)[1]) if token else 0


def _mostly(offset: Span, span: Span) -> bool:
    inside = min(offset[1], span[1]) - max(offset[0], span[0])
    return inside >= _LEAST_INSIDE or (offset[0] >= span[0] and offset[1] <= span[1])
