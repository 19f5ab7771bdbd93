r"""Whether two answers are the same number or expression; runs in a reward's own process.

The answer is what stands in the last \boxed{}, else after the last ####, else the last expression of the text. What is
equal is the library's to say: it reads LaTeX and plain text, and compares by sympy. Its own time-outs do not end a
computation that is under way, so they are off: the process has one.
"""

import logging
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

# Where nothing marks the answer it is at the end; looking for expressions in pages of reasoning takes long.
_END = 2000

logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(expected: str, answer: str) -> list[float]:
    """1 if they are the same, else 0."""
    found = marked(answer)
    if not found and not answer.strip():
        return [0.0]
    try:
        given = _parsed(_boxed(found)) if found else _parsed(answer[-_END:])
        return [float(bool(verify(list(_expected(expected)), given, timeout_seconds=None)))]
    except (MemoryError, RecursionError):
        return [0.0]


def marked(text: str) -> str:
    r"""The answer where the text says which part of it that is; else nothing.

    >>> marked(r"so \boxed{\frac{1}{2}}."), marked("3 + 4 = 7\n#### 7\n"), marked("it is 7")
    ('\\frac{1}{2}', '7', '')
    """
    _, box, rest = text.rpartition(r"\boxed{")
    if box:
        return _braced(rest)
    _, mark, rest = text.rpartition("####")
    return rest.strip().partition("\n")[0].strip() if mark else ""


def _braced(text: str) -> str:
    """Up to the brace that closes; nothing where the text ends before."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:index].strip()
    return ""


def _boxed(text: str) -> str:
    return rf"\boxed{{{text.replace('$', '')}}}"


@lru_cache(maxsize=1024)
def _expected(text: str) -> tuple[Any, ...]:
    # All of a column's text is the answer, unless it is a whole solution with the answer marked.
    return tuple(_parsed(_boxed(marked(text) or text.strip())))


def _parsed(text: str) -> list[Any]:
    found: list[Any] = parse(text, parsing_timeout=None)
    return found
