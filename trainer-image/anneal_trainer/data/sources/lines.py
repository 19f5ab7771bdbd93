"""Files of lines: one JSON object each, or plain text. Cut into shares at line breaks without parsing.

A share of a local file is a range of bytes that a worker reads itself; of any other, the bytes are handed on. Counting
line breaks keeps the numbers of lines those of the file. Not here: lists of objects (`elements`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.failures import told
from anneal_trainer.data.sources.placed import CHUNK_BYTES, Placed, Row
from anneal_trainer.data.sources.streams import DataFile, opened
from anneal_trainer.errors import DataError

# A line longer than this is a file of another kind.
MAX_LINE = 256 << 20
_BOM = b"\xef\xbb\xbf"
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_SHOWN = 60
_NUL = "the file was not written whole, or is not UTF-8 text"


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
            except (ValueError, RecursionError) as error:
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
            wrong = _other_file(file.kind, data) if index == 0 else ""
            if wrong:
                problems.add(file.shown, wrong, fatal=True)
                return
            handed_on = None if file.mappable else data[mark:]
            yield Lines(file, first, start + mark, len(data) - mark, handed_on)
            first, start = first + data.count(b"\n"), start + len(data)


def other_encoding(head: bytes) -> str:
    """What is wrong with a file that begins so, if it is text in an encoding of two or four bytes a character."""
    name = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "")
    # Without a mark: Latin text has a NUL beside each letter.
    pairs = head[:2] if len(head) > 1 else b"xx"
    name = name or ("UTF-16" if pairs.count(0) == 1 and len(head) > len(pairs) else "")
    return f"is {name} text, it begins with {head[:8]!r}: save it as UTF-8" if name else ""


def _other_file(kind: str, head: bytes) -> str:
    """What is wrong with a whole file of lines, from its first one."""
    wrong = other_encoding(head)
    if wrong or kind != "jsonl":
        return wrong
    first = head.removeprefix(_BOM).lstrip()
    if first.startswith(b"["):
        return f"is no file of one object a line, it begins with {text(first)}: name it .json, or set dsType: json"
    if first.startswith(b"{") and first[1:].lstrip(b" \t\r").startswith(b"\n"):
        return (
            f"holds an object over several lines, it begins with {text(first)}: write one object a line, or a list of "
            "objects in a .json file"
        )
    return ""


def text(value: bytes, at: int = 0) -> str:
    """The beginning of some bytes for an error message, from a little before `at`."""
    begin = max(0, at - 20)
    part = value[begin : begin + _SHOWN]
    return (
        ("…" if begin else "")
        + repr(part.decode("utf-8", "backslashreplace"))
        + ("…" if begin + _SHOWN < len(value) else "")
    )


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
        super().__init__(f"must be a JSON object, got {shown(value)}")


def _text(line: bytes) -> Row:
    if b"\0" in line:
        raise ValueError
    return {"text": line.decode("utf-8")}


def _message(error: ValueError | RecursionError, line: bytes) -> str:
    if b"\0" in line:
        at = line.index(b"\0")
        return f"holds NUL bytes from column {at + 1}: {_NUL}"
    return json_message(error)


def json_message(error: ValueError | RecursionError) -> str:
    """What is wrong with JSON text, for people."""
    match error:
        case json.JSONDecodeError() if error.doc[error.pos : error.pos + 1] == "\0":
            return f"holds NUL bytes from column {error.colno}: {_NUL}"
        case json.JSONDecodeError():
            begin = max(0, error.pos - 20)
            found = ("…" if begin else "") + repr(error.doc[begin : error.pos + 40])
            reason = error.msg.removesuffix(" at").removesuffix(" starting")
            return f"not JSON from column {error.colno}: {reason}, in {found}"
        case UnicodeDecodeError():
            where = text(error.object, error.start)
            return f"not UTF-8 text from column {error.start + 1}, in {where}: save it as UTF-8"
        case RecursionError():
            return "is nested too deeply: hundreds of lists or objects stand in one another"
        case _:
            return str(error)


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
