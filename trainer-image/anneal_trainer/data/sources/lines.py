"""Files of lines: one JSON object each, or plain text. Cut into shares at line breaks without parsing.

A share of a local file is a range of bytes that a worker reads itself; of any other, the bytes are handed on. Counting
line breaks keeps the numbers of lines those of the file. Not here: lists of objects (`elements`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.failures import told
from anneal_trainer.data.sources.placed import CHUNK_BYTES, Placed, Row
from anneal_trainer.data.sources.streams import DataFile, opened
from anneal_trainer.errors import DataError

# A line longer than this is a file of another kind.
MAX_LINE = 256 << 20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Lines:
    """Some whole lines of a file: its bytes, or where they are."""

    file: DataFile
    first: int
    start: int
    length: int
    data: bytes | None

    def read(self, problems: Problems) -> Iterator[Placed]:
        """Its rows, in order."""
        parse = _object if self.file.kind == "jsonl" else _text
        for number, line in enumerate(self.bytes().split(b"\n"), start=self.first):
            if not line or line.isspace():
                continue
            try:
                yield Placed(self.file.shown, "line", number, parse(line.removesuffix(b"\r")))
            except ValueError as error:
                problems.add(f"{self.file.shown}, line {number}", _message(error, line))

    def bytes(self) -> bytes:
        """The lines as they are in the file."""
        if self.data is not None:
            return self.data
        assert self.file.local is not None, "only a local file is handed on as a range"
        with told(self.file.shown, self.file.scheme), self.file.local.open("rb") as stream:
            stream.seek(self.start)
            data = stream.read(self.length)
        if len(data) < self.length:
            raise DataError(f"{self.file.shown}: became shorter while it was read")
        return data


def chunks(file: DataFile, problems: Problems) -> Iterator[Lines]:
    """The shares of a file; a byte order mark is left out."""
    first, start = 1, 0
    with opened(file) as stream:
        for index, data in enumerate(_blocks(stream, file.shown)):
            mark = len(_BOM) if index == 0 and data.startswith(_BOM) else 0
            if index == 0 and data.startswith(_UTF16):
                problems.add(file.shown, "is UTF-16 text: save it as UTF-8", fatal=True)
                return
            handed_on = None if file.mappable else data[mark:]
            yield Lines(file, first, start + mark, len(data) - mark, handed_on)
            first, start = first + data.count(b"\n"), start + len(data)


def _blocks(stream: IO[bytes], shown: str) -> Iterator[bytes]:
    """About CHUNK_BYTES each, ending with a line break."""
    while data := stream.read(CHUNK_BYTES):
        if data.endswith(b"\n"):
            yield data
            continue
        parts = [data]
        while more := stream.readline(CHUNK_BYTES):
            parts.append(more)
            if more.endswith(b"\n"):
                break
            if len(parts) * CHUNK_BYTES > MAX_LINE:
                raise DataError(
                    f"{shown}: a line is longer than {MAX_LINE >> 20} MiB: this is no file of one row a line; "
                    "set dsType, or write it as jsonl"
                )
        yield b"".join(parts)


def _object(line: bytes) -> Row:
    # JSON's own rule is UTF-8.
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise NotAnObjectError(row)
    return row


class NotAnObjectError(ValueError):
    """JSON, but no row."""

    def __init__(self, value: Any) -> None:
        super().__init__(f"must be a JSON object, got {type(value).__name__}")


def _text(line: bytes) -> Row:
    if b"\0" in line:
        raise ValueError
    return {"text": line.decode("utf-8")}


def _message(error: ValueError, line: bytes) -> str:
    if b"\0" in line:
        return "holds NUL bytes: the file was not written whole, or is not UTF-8 text"
    return json_message(error)


def json_message(error: ValueError) -> str:
    """What is wrong with JSON text, for people."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON from column {error.colno}: {error.msg.removesuffix(' starting at')}"
    if isinstance(error, NotAnObjectError):
        return str(error)
    return "not UTF-8 text"


def paragraphs(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    """Text up to each empty line, with the number of its first line."""
    begun, kept = 1, list[str]()
    for share in chunks(file, problems):
        for number, line in enumerate(_decoded(share, problems), start=share.first):
            if line.strip():
                begun = begun if kept else number
                kept.append(line)
            elif kept:
                yield begun, {"text": "\n".join(kept)}
                kept = []
    if kept:
        yield begun, {"text": "\n".join(kept)}


def document(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    """The whole file as one row, its line breaks as they are."""
    before = problems.total
    text = "\n".join(line for share in chunks(file, problems) for line in _decoded(share, problems))
    if text.strip() and problems.total == before:
        yield 1, {"text": text}


def _decoded(share: Lines, problems: Problems) -> Iterator[str]:
    """Every line of a share; one that is not text is a problem and empty."""
    for number, line in enumerate(share.bytes().removesuffix(b"\n").split(b"\n"), start=share.first):
        try:
            yield _text(line.removesuffix(b"\r"))["text"] if line else ""
        except ValueError as error:
            problems.add(f"{share.file.shown}, line {number}", _message(error, line))
            yield ""
