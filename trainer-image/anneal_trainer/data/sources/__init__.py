"""Rows of a data source with the place each came from: found in one process, read in any.

`chunks` lists a source as bounded, picklable shares; reading a share parses it. Sources of any size take no more memory
than a few shares. A broken row does not end the reading: it is a problem with a file and a number, so that all of them
can be told at once. What cannot be opened at all is an InputError, what may pass a TemporaryError.

    files     which files an entry is, here or elsewhere       streams   their bytes, decompressed
    lines elements delimited tables webdataset                 a module a format
    hub sql   sources that are no files                        select    limit, shards, shuffle
    failures  what storage libraries raise, for people

Not here: what a row means (`formats`).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from anneal_api.datasource import DataSource
from anneal_api.sources import is_database, is_whole_hub_dataset
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.files import files_of
from anneal_trainer.data.sources.placed import Chunk, Placed, Row, packed
from anneal_trainer.data.sources.streams import DataFile

__all__ = ["Chunk", "DataFile", "Placed", "Row", "chunks", "files_of", "rows"]


def chunks(dataset: DataSource, volumes: dict[str, Path], problems: Problems, *, seed: int = 0) -> Iterator[Chunk]:
    """The shares of one `datasets[]` entry, in order. `seed` chooses the rows where it says `shuffle`."""
    from anneal_trainer.data.sources import select

    source = partial(_chunks, dataset, volumes)
    if select.selects(dataset):
        yield from select.selected(dataset, source, problems, seed)
    else:
        yield from source(problems)


def rows(dataset: DataSource, volumes: dict[str, Path], problems: Problems, *, seed: int = 0) -> Iterator[Placed]:
    """Every readable row of one entry, read in this process."""
    for chunk in chunks(dataset, volumes, problems, seed=seed):
        yield from chunk.read(problems)


def _chunks(dataset: DataSource, volumes: dict[str, Path], problems: Problems) -> Iterator[Chunk]:
    if is_database(dataset.source):
        from anneal_trainer.data.sources import sql

        yield from packed(dataset.source, "row", sql.rows(dataset, volumes))
    elif is_whole_hub_dataset(dataset.source) and not dataset.data_files:
        from anneal_trainer.data.sources import hub

        yield from packed(dataset.source, "row", hub.rows(dataset))
    else:
        for file in files_of(dataset, volumes):
            yield from _of_file(file, dataset, problems)


def _of_file(file: DataFile, dataset: DataSource, problems: Problems) -> Iterator[Chunk]:
    from anneal_trainer.data.sources import delimited, elements, lines, tables, webdataset

    match file.kind:
        case "jsonl":
            yield from lines.chunks(file, problems)
        case "json" if elements.is_lines(file):
            yield from lines.chunks(DataFile(file.shown, file.url, file.scheme, "jsonl", file.compression), problems)
        case "json":
            yield from packed(file.shown, "element", elements.elements(file, problems))
        case "text" if dataset.sample_by == "line":
            yield from lines.chunks(file, problems)
        case "text":
            read = lines.paragraphs if dataset.sample_by == "paragraph" else lines.document
            yield from packed(file.shown, "line", read(file, problems))
        case "csv" | "tsv":
            yield from packed(file.shown, "line", delimited.rows(file, problems))
        case "parquet":
            yield from tables.parquet_chunks(file, problems)
        case "arrow":
            yield from tables.arrow_chunks(file, problems)
        case _:
            assert file.kind == "webdataset", file.kind
            yield from packed(file.shown, "sample", webdataset.rows(file, problems))
