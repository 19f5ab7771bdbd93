"""WebDataset: a tar whose members with the same name but another ending are one row.

Members keep the names of the datasets library: a column for each ending, beside `__key__`. A `.json` member that is an
object gives its own columns, since a column of a column has no name. Not here: pictures and sound, which stay bytes.
"""

import json
import posixpath
import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.lines import json_message
from anneal_trainer.data.sources.placed import Row
from anneal_trainer.data.sources.streams import DataFile, opened

_TEXT = ("txt", "text", "transcript", "md")
_NUMBER = ("cls", "cls2", "index", "inx", "id")


def rows(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    """Every sample with its number in the tar."""
    number = 0
    try:
        with opened(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, (key, members) in enumerate(groupby(_members(tar), key=lambda member: member[0]), start=1):
                row = _row(f"{file.shown}, sample {number} ({key})", key, members, problems)
                if row is not None:
                    yield number, row
    except tarfile.TarError as error:
        problems.add(file.shown, f"is not a whole tar file: {error} (after sample {number})", fatal=True)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """Key, ending and content of each plain file; the ending begins at the first dot of the name."""
    for member in tar:
        folder, name = posixpath.split(member.name)
        key, dot, ending = name.partition(".")
        if member.isfile() and key and dot:
            content = tar.extractfile(member)
            assert content is not None, "it is a plain file"
            yield posixpath.join(folder, key), ending.lower(), content.read()


def _row(place: str, key: str, members: Iterator[tuple[str, str, bytes]], problems: Problems) -> Row | None:
    row: Row = {"__key__": key}
    good = True
    for _, ending, content in members:
        try:
            value = _value(ending, content)
        except ValueError as error:
            problems.add(place, f".{ending}: {json_message(error)}")
            good = False
            continue
        row |= value if isinstance(value, dict) and ending == "json" else {ending: value}
    return row if good else None


def _value(ending: str, content: bytes) -> Any:
    kind = ending.rpartition(".")[2]
    if kind == "json":
        return json.loads(content.decode("utf-8"))
    if kind == "jsonl":
        return [json.loads(line) for line in content.decode("utf-8").splitlines() if line.strip()]
    if kind in _TEXT:
        return content.decode("utf-8")
    return int(content) if kind in _NUMBER else content
