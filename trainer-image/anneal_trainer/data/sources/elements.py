"""A .json file: a list of objects, read element by element, or (as many are) one object a line.

The standard library parses whole texts only; its `raw_decode` on a window that slides over the file keeps the memory
at the size of the largest element. Not here: lines (`lines`).
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO

from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.lines import json_message, other_encoding, text
from anneal_trainer.data.sources.placed import Row
from anneal_trainer.data.sources.streams import DataFile, opened

_WINDOW = 1 << 20
_BLANK = " \t\r\n"


def is_lines(file: DataFile) -> bool:
    """Whether the first thing in it is an object."""
    with opened(file) as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def elements(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    """The objects of the list with their numbers."""
    with opened(file) as stream:
        head = stream.read(_WINDOW)
        wrong = other_encoding(head)
        if wrong:
            problems.add(file.shown, wrong, fatal=True)
            return
        window = _Window(stream, head)
        try:
            yield from _elements(file, window, problems)
        except json.JSONDecodeError as error:
            problems.add(f"{file.shown}, line {window.line + error.lineno - 1}", json_message(error), fatal=True)
        except UnicodeDecodeError as error:
            value = text(error.object, error.start)
            problems.add(
                f"{file.shown}, line {window.here}", f"not UTF-8 text, in {value}: save it as UTF-8", fatal=True
            )
        except (ValueError, RecursionError) as error:
            problems.add(f"{file.shown}, line {window.here}", json_message(error), fatal=True)


def _elements(file: DataFile, window: "_Window", problems: Problems) -> Iterator[tuple[int, Row]]:
    if window.peek() != "[":
        found = shown(window.value()) if window.peek() else "nothing"
        problems.add(file.shown, f"must be a list of objects or one object a line, got {found}", fatal=True)
        return
    window.take("[")
    number = 0
    while window.peek() != "]":
        number += 1
        row = window.value()
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(f"{file.shown}, element {number}", f"must be a JSON object, got {shown(row)}")
        if window.peek() != "]":
            window.take(",")
    window.take("]")
    if window.peek():
        raise window.error("Extra data")


class _Window:
    """The part of a file that is looked at: grows until a value fits, forgets what was read."""

    def __init__(self, stream: IO[bytes], head: bytes) -> None:
        self._head = head
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8-sig")()
        self._parser = json.JSONDecoder()
        self._text, self._at, self._done = "", 0, False
        self.line = 1

    @property
    def here(self) -> int:
        """The number of the line that is looked at."""
        return self.line + self._text.count("\n", 0, self._at)

    def _more(self, size: int) -> bool:
        """Read on; what is behind is forgotten, and its line breaks counted."""
        if self._done:
            return False
        data, self._head = self._head or self._stream.read(size), b""
        self._done = not data
        try:
            more = self._decoder.decode(data, final=self._done)
        except UnicodeDecodeError as error:
            self.line += self._text.count("\n") + error.object[: error.start].count(b"\n")
            self._text, self._at = "", 0
            raise
        # The columns of an error are those of the line: keep it from its beginning where it is short.
        keep = self._text.rfind("\n", 0, self._at) + 1
        keep = keep if self._at - keep < _WINDOW else self._at
        self.line += self._text.count("\n", 0, keep)
        self._text = self._text[keep:] + more
        self._at -= keep
        return True

    def peek(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._more(_WINDOW):
                return ""

    def take(self, wanted: str) -> None:
        """Step over a character that must be there."""
        if self.peek() != wanted:
            raise self.error(f"Expecting '{wanted}' delimiter")
        self._at += 1

    def error(self, message: str) -> json.JSONDecodeError:
        """What is wrong at this place."""
        return json.JSONDecodeError(message, self._text, self._at)

    def value(self) -> object:
        """The value that begins here. The window doubles, so a long value costs a few attempts and no more."""
        self.peek()
        while True:
            try:
                found, end = self._parser.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # An error far from the end of the window is one; near it, the rest may be missing.
                if self._is_final(error) or not self._more(max(_WINDOW, len(self._text) - self._at)):
                    raise
                continue
            if end < len(self._text) or not self._more(_WINDOW):
                self._at = end
                return found

    def _is_final(self, error: json.JSONDecodeError) -> bool:
        # An unterminated string is reported where it begins.
        return error.pos < len(self._text) - 16 and not error.msg.startswith("Unterminated")
