"""Parquet and Arrow: columns. Cut by what their own footers and batches say, without reading a value.

A worker reads its own part of a Parquet file, wherever that is, and of a local Arrow file; the batches of any other
Arrow file are handed on as they are. Not here: what `save_to_disk` wrote (`files` lists it).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources.placed import CHUNK_BYTES, CHUNK_ROWS, Chunk, Placed
from anneal_trainer.data.sources.streams import DataFile, opened, seekable

_BATCH = 256


@dataclass(frozen=True)
class ParquetRows:
    """`count` rows of one row group, from its row `start`; `first` is the number of the first in the file."""

    file: DataFile
    group: int
    start: int
    count: int
    first: int

    def read(self, problems: Problems) -> Iterator[Placed]:
        """Its rows, in order."""
        number = self.first
        with seekable(self.file) as stream:
            try:
                for batch in self._batches(stream):
                    yield from _placed(self.file, batch, number)
                    number += batch.num_rows
            except _broken() as error:
                if getattr(error, "errno", None) is not None:
                    raise
                problems.add(self.file.shown, f"is broken after row {number - 1}: {error}", fatal=True)

    def _batches(self, stream: IO[bytes]) -> Iterator[Any]:
        from pyarrow import parquet

        before, end = 0, self.start + self.count
        file = parquet.ParquetFile(stream)
        about = file.metadata.row_group(self.group)
        size = max(1, min(_BATCH, 4 * CHUNK_BYTES * about.num_rows // max(1, about.total_byte_size)))
        for batch in file.iter_batches(batch_size=size, row_groups=[self.group]):
            begin = max(0, self.start - before)
            if begin < batch.num_rows:
                yield batch.slice(begin, end - before - begin)
            before += batch.num_rows
            if before >= end:
                return


def _broken() -> tuple[type[Exception], ...]:
    """What pyarrow raises of broken data: its own errors, and for some codecs a plain OSError without a number."""
    from pyarrow import ArrowException

    return (ArrowException, OSError)


def parquet_chunks(file: DataFile, problems: Problems) -> Iterator[Chunk]:
    """The parts of a file, from its footer."""
    from pyarrow import ArrowException, parquet

    try:
        with seekable(file) as stream:
            if not _size(stream):
                problems.add(file.shown, "is empty: 0 bytes are no Parquet file", fatal=True)
                return
            footer = parquet.ParquetFile(stream).metadata
        yield from _parts(file, footer)
    except ArrowException as error:
        problems.add(file.shown, f"not a Parquet file: {error}", fatal=True)


def _size(stream: IO[bytes]) -> int:
    size = stream.seek(0, 2)
    stream.seek(0)
    return size


def _parts(file: DataFile, footer: Any) -> Iterator[ParquetRows]:
    first = 1
    for group in range(footer.num_row_groups):
        about = footer.row_group(group)
        # A large row group is read again for each of its parts: so parts are not too small.
        step = max(CHUNK_ROWS, about.num_rows * 4 * CHUNK_BYTES // max(1, about.total_byte_size))
        if file.compression:
            step = about.num_rows
        for start in range(0, about.num_rows, step):
            count = min(step, about.num_rows - start)
            yield ParquetRows(file, group, start, count, first + start)
        first += about.num_rows


@dataclass(frozen=True)
class ArrowRows:
    """Record batches `begin` to `end` of a local file; `first` is the number of the first row."""

    file: DataFile
    begin: int
    end: int
    first: int

    def read(self, problems: Problems) -> Iterator[Placed]:
        """Its rows, in order."""
        number = self.first
        with _arrow_told(self.file, problems), _mapped(self.file) as stream:
            for batch in _record_batches(stream, self.begin, self.end):
                yield from _placed(self.file, batch, number)
                number += batch.num_rows


@dataclass(frozen=True)
class ArrowBatch:
    """A record batch that was read already."""

    file: DataFile
    batch: Any
    first: int

    def read(self, problems: Problems) -> Iterator[Placed]:  # noqa: ARG002 - told when it was read
        """Its rows, in order."""
        yield from _placed(self.file, self.batch, self.first)


def _placed(file: DataFile, batch: Any, first: int) -> Iterator[Placed]:
    number = first
    for start in range(0, batch.num_rows, _BATCH):
        for row in batch.slice(start, _BATCH).to_pylist():
            yield Placed(file.shown, "row", number, row)
            number += 1


def arrow_chunks(file: DataFile, problems: Problems) -> Iterator[Chunk]:
    """The parts of a file: consecutive batches."""
    with _arrow_told(file, problems):
        if not file.mappable:
            yield from _handed_on(file)
            return
        with _mapped(file) as stream:
            yield from _ranges(file, stream)


def _ranges(file: DataFile, stream: Any) -> Iterator[ArrowRows]:
    begin, first, rows, index = 0, 1, 0, -1
    for index, batch in enumerate(_record_batches(stream)):
        rows += batch.num_rows
        if rows >= CHUNK_ROWS:
            yield ArrowRows(file, begin, index + 1, first)
            begin, first, rows = index + 1, first + rows, 0
    if rows:
        yield ArrowRows(file, begin, index + 1, first)


def _handed_on(file: DataFile) -> Iterator[ArrowBatch]:
    """A file of another place: a stream as it comes, the seekable container from a copy."""
    first = 1
    with opened(file) as head:
        container = head.read(6) == b"ARROW1"
    with seekable(file) if container else opened(file) as stream:
        for batch in _record_batches(stream):
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                part = batch.slice(start, CHUNK_ROWS)
                yield ArrowBatch(file, part, first)
                first += part.num_rows


@contextmanager
def _arrow_told(file: DataFile, problems: Problems) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        problems.add(file.shown, f"not an Arrow file: {error}", fatal=True)


@contextmanager
def _mapped(file: DataFile) -> Iterator[Any]:
    import pyarrow as pa

    from anneal_trainer.data.sources.failures import told

    with told(file.shown, file.scheme), pa.memory_map(str(file.local)) as stream:
        yield stream


def _record_batches(stream: Any, begin: int = 0, end: int | None = None) -> Iterator[Any]:
    """Of either of Arrow's two containers: the file format, and the stream that the datasets library writes."""
    import pyarrow as pa

    if _is_container(stream):
        reader = pa.ipc.open_file(stream)
        yield from (reader.get_batch(index) for index in range(begin, end or reader.num_record_batches))
        return
    for index, batch in enumerate(pa.ipc.open_stream(stream)):
        if end is not None and index >= end:
            return
        if index >= begin:
            yield batch


def _is_container(stream: Any) -> bool:
    if not stream.seekable():
        return False
    found: bool = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return found
