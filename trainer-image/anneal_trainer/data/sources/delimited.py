"""csv and tsv, with a header. A quoted field may hold line breaks, so a file is parsed from its beginning, once.

Not here: guessing the separator; the file's ending or `dsType` says it.
"""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from anneal_api.words import counted
from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.lines import other_encoding, text
from anneal_trainer.data.sources.placed import Row
from anneal_trainer.data.sources.streams import DataFile, opened

_HEAD = 64
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def rows(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    """Every row with the number of the line where it ends."""
    csv.field_size_limit(2**31 - 1)
    with opened(file) as raw, io.BufferedReader(raw) as whole:  # type: ignore[type-var] # whatever opens reads
        wrong = other_encoding(whole.peek(_HEAD)[:_HEAD])
        if wrong:
            problems.add(file.shown, wrong, fatal=True)
            return
        yield from _parsed(file, whole, problems)


def _parsed(file: DataFile, whole: IO[bytes], problems: Problems) -> Iterator[tuple[int, Row]]:
    with io.TextIOWrapper(whole, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(_whole(stream), strict=True, delimiter=_SEPARATORS[file.kind])
        try:
            _check_header(file, reader.fieldnames or (), problems)
            for row in reader:
                if None in row or None in row.values():
                    problems.add(f"{file.shown}, line {reader.line_num}", _width(row, reader.fieldnames or ()))
                else:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            # The decoder reads ahead of the rows: only the value says which place is meant.
            value = text(error.object, error.start)
            problems.add(
                f"{file.shown}, near line {reader.line_num + 1}",
                f"not UTF-8 text, in {value}: save it as UTF-8",
                fatal=True,
            )
        except csv.Error as error:
            problems.add(f"{file.shown}, line {reader.line_num + 1}", f"not {file.kind.upper()}: {error}", fatal=True)


def _whole(stream: IO[str]) -> Iterator[str]:
    """The lines; NUL bytes, which the parser would pass on, are an error."""
    for line in stream:
        if "\0" in line:
            raise csv.Error("holds NUL bytes: the file was not written whole, or is not UTF-8 text")
        yield line


def _check_header(file: DataFile, names: Any, problems: Problems) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if names else []
    if twice:
        problems.add(
            f"{file.shown}, line 1", f"the header has the column {', '.join(map(repr, twice))} twice", fatal=True
        )


def _width(row: Row, names: Any) -> str:
    first = next(iter(row.values()))
    given = sum(value is not None for name, value in row.items() if name is not None) + len(row.get(None) or ())  # type: ignore[call-overload]
    return (
        f"has {counted(given, 'field')}, the header has {len(names)}; it begins with {shown(first)}: "
        "quote a field that holds the separator or a line break"
    )
