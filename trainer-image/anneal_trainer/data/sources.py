"""Rows of a data source, one after another, with the place each came from. Files of any size are read in pieces.

A broken line does not end the reading: it is a problem with a file and a number, so that all of them can be told at
once. Not here: what a row means (`formats`), and fetching (the hub library streams).
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api.dataset import DatasetSpec
from anneal_api.sources import Source, local_path, parse_source
from anneal_trainer.data.problems import Problems
from anneal_trainer.errors import InputError, TemporaryError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow")
_SAVED_BY_DATASETS = "dataset_info.json"


@dataclass(frozen=True)
class Placed:
    """A row and where it is: `file` as the user writes it, `unit` and `number` within it."""

    file: str
    unit: str
    number: int
    row: Row

    @property
    def place(self) -> str:
        """For an error message."""
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class DataFile:
    """A file and its name for people."""

    path: Path
    shown: str


def files_of(text: str, volumes: dict[str, Path]) -> list[DataFile]:
    """The data files of a volume or local source, sorted; InputError if there is none."""
    source = parse_source(text)
    path = local_path(text, volumes)
    root = volumes.get(source.claim, Path())
    found = _matching(path)
    if not found:
        raise InputError(f"{text}: {_why_none(path, source, root)}")
    return [DataFile(file, _shown(file, source, root)) for file in found]


def _matching(path: Path) -> list[Path]:
    if any(mark in str(path) for mark in "*?"):
        fixed = next(parent for parent in path.parents if not any(mark in str(parent) for mark in "*?"))
        return sorted(file for file in fixed.glob(str(path.relative_to(fixed))) if file.is_file())
    if path.is_dir():
        suffixes = (".arrow",) if (path / _SAVED_BY_DATASETS).exists() else SUFFIXES
        return sorted(file for file in path.rglob("*") if file.suffix in suffixes and not _hidden(file, path))
    return [path] if path.is_file() else []


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _why_none(path: Path, source: Source, root: Path) -> str:
    accepted = ", ".join(SUFFIXES)
    if path.is_dir():
        return f"the directory holds no data file; accepted: {accepted}"
    parent = next((parent for parent in path.parents if parent.is_dir()), Path("/"))
    beside = sorted(entry.name for entry in parent.iterdir())[:8]
    # A directory given for a claim may itself not be there: then its parent is what can be shown.
    where = _shown(parent, source, root).removesuffix("/.") if parent.is_relative_to(root) else str(parent)
    return f"there is no such file; {where} holds {', '.join(beside) or 'nothing'}"


def _shown(file: Path, source: Source, root: Path) -> str:
    return f"volume://{source.claim}/{file.relative_to(root)}" if source.scheme == "volume" else str(file)


def rows(dataset: DatasetSpec, volumes: dict[str, Path], problems: Problems) -> Iterator[Placed]:
    """Every readable row of one `datasets[]` entry."""
    if parse_source(dataset.source).scheme == "hf":
        yield from _hub_rows(dataset)
        return
    for file in files_of(dataset.source, volumes):
        yield from _file_rows(file, problems)


def _file_rows(file: DataFile, problems: Problems) -> Iterator[Placed]:
    unit, read = _reader(file)
    try:
        for number, row in read(file, problems):
            yield Placed(file.shown, unit, number, row)
    except OSError as error:
        raise InputError(f"{file.shown}: cannot be read: {error.strerror or error}") from error


def _reader(file: DataFile) -> tuple[str, Callable[[DataFile, Problems], Iterator[tuple[int, Row]]]]:
    match file.path.suffix:
        case ".jsonl" | ".ndjson":
            return "line", _json_lines
        case ".json":
            return ("line", _json_lines) if _is_json_lines(file.path) else ("element", _json_array)
        case ".csv":
            return "line", _csv
        case ".parquet":
            return "row", _parquet
        case ".arrow":
            return "row", _arrow
        case other:
            accepted = ", ".join(SUFFIXES)
            raise InputError(
                f"{file.shown}: files that end in {other or 'nothing'} cannot be read; accepted: {accepted}"
            )


def _is_json_lines(path: Path) -> bool:
    """Whether a .json file is one object a line, as many are, rather than one list."""
    with path.open("rb") as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _json_lines(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    with file.path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                # JSON's own rule is UTF-8; a byte order mark is what some editors add to the first line.
                row = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                problems.add(f"{file.shown}, line {number}", _json_message(error))
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                problems.add(f"{file.shown}, line {number}", f"must be a JSON object, got {type(row).__name__}")


def _json_message(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON from column {error.colno}: {error.msg.removesuffix(' starting at')}"
    return "not UTF-8 text"


def _json_array(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    try:
        found = json.loads(file.path.read_bytes())
    except json.JSONDecodeError as error:
        problems.add(f"{file.shown}, line {error.lineno}", _json_message(error))
        return
    except ValueError as error:
        problems.add(file.shown, _json_message(error))
        return
    if not isinstance(found, list):
        problems.add(file.shown, f"must be a list of objects or one object a line, got {type(found).__name__}")
        return
    for number, row in enumerate(found, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(f"{file.shown}, element {number}", f"must be a JSON object, got {type(row).__name__}")


def _csv(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)
    with file.path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    problems.add(f"{file.shown}, line {reader.line_num}", _csv_width(row, reader.fieldnames or ()))
                else:
                    yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            problems.add(f"{file.shown}, line {reader.line_num + 1}", f"not CSV: {error}")


def _csv_width(row: Row, names: Any) -> str:
    given = sum(value is not None for name, value in row.items() if name is not None) + len(row.get(None) or ())  # type: ignore[call-overload]
    return f"has {given} fields, the header {len(names)}"


def _parquet(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    from pyarrow import ArrowException, parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(file.path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowException as error:
        problems.add(file.shown, f"not a Parquet file: {error}")


def _arrow(file: DataFile, problems: Problems) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa

    try:
        number = 0
        with pa.memory_map(str(file.path)) as stream:
            for batch in _record_batches(stream):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        problems.add(file.shown, f"not an Arrow file: {error}")


def _record_batches(stream: Any) -> Iterator[Any]:
    """Of either of Arrow's two containers: the file format, and the stream that the datasets library writes."""
    import pyarrow as pa

    if stream.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(stream)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        stream.seek(0)
        yield from pa.ipc.open_stream(stream)


def _hub_rows(dataset: DatasetSpec) -> Iterator[Placed]:
    """Streamed, so that nothing but the rows at hand is kept."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = parse_source(dataset.source).path
    try:
        found = load_dataset(name, dataset.subset, split=dataset.split, revision=dataset.revision, streaming=True)
        for number, row in enumerate(found, start=1):
            yield Placed(dataset.source, "row", number, row)
    except (DatasetNotFoundError, ValueError) as error:
        raise InputError(f"{dataset.source}: {error}") from error
    except (ConnectionError, TimeoutError) as error:
        raise TemporaryError(f"{dataset.source}: the hub cannot be reached: {error}") from error
