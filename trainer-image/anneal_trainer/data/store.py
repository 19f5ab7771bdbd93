"""Prepared data on the job's storage: Arrow files that every rank maps into memory, and where they are found.

    prepared/FINGERPRINT/{train,eval}/data.arrow   input_ids and labels, a row a sequence
    prepared/FINGERPRINT/report.json               what was made of the sources
    prepared/by-key/PREPARE_KEY.json               which fingerprint a spec's data has, and what it was made from

The fingerprint is over contents, so two specs that come to the same data share it; the key is over the spec alone, so a
trainer finds its data without reading a source. Not here: making the data (`prepare`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api import Layout
from anneal_api.status import DatasetReport
from anneal_trainer.data.identity import Identity
from anneal_trainer.data.pieces import Tokens
from anneal_trainer.files import read_json, write_json

TRAIN, EVAL = "train", "eval"
_FILE = "data.arrow"
_REPORT = "report.json"


@dataclass(frozen=True)
class Prepared:
    """Data that is there: its directory and what it holds."""

    path: Path
    report: DatasetReport

    def dataset(self, split: str) -> Any:
        """One split as a memory-mapped `datasets.Dataset`; None if it is empty."""
        from datasets import Dataset

        file = self.path / split / _FILE
        return Dataset.from_file(str(file)) if file.exists() else None


def pointer(layout: Layout, key: str) -> Path:
    """The file that says which data a prepare key stands for."""
    return layout.storage / "prepared" / "by-key" / f"{key}.json"


def find(layout: Layout, key: str) -> tuple[Prepared | None, Identity | None]:
    """The data of a prepare key, and the identity of the sources that it was made from."""
    found = read_json(pointer(layout, key))
    if found is None:
        return None, None
    return load(layout.prepared(found["fingerprint"])), found["sources"]


def load(path: Path) -> Prepared | None:
    """The prepared data at `path`, if it is there."""
    report = read_json(path / _REPORT)
    return None if report is None else Prepared(path, DatasetReport.model_validate(report))


def point(layout: Layout, key: str, fingerprint: str, sources: Identity) -> None:
    """Make `key` stand for `fingerprint`."""
    write_json(pointer(layout, key), {"fingerprint": fingerprint, "prepareKey": key, "sources": sources})


def write_report(path: Path, report: DatasetReport) -> None:
    """The last file to be written into prepared data."""
    write_json(path / _REPORT, report.dump())


class SplitWriter:
    """Appends sequences to one split's Arrow file."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        path.mkdir(parents=True, exist_ok=True)
        integers = pa.list_(pa.int32())
        self._schema = pa.schema([("input_ids", integers), ("labels", integers)])
        self._writer = pa.ipc.new_stream(str(path / _FILE), self._schema)

    def write(self, rows: Iterable[Tokens]) -> None:
        """One record batch."""
        import pyarrow as pa

        kept = list(rows)
        if kept:
            columns = [[row.input_ids for row in kept], [row.labels for row in kept]]
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def split_off(path: Path, held_out: set[int]) -> None:
    """Move the rows of train/ whose numbers are in `held_out` to eval/, in pieces."""
    import pyarrow as pa

    source = path / TRAIN / _FILE
    whole = source.with_name("whole.arrow")
    source.rename(whole)
    with pa.memory_map(str(whole)) as stream:
        reader = pa.ipc.open_stream(stream)
        (path / EVAL).mkdir()
        with (
            pa.ipc.new_stream(str(source), reader.schema) as train,
            pa.ipc.new_stream(str(path / EVAL / _FILE), reader.schema) as held,
        ):
            number = 0
            for batch in reader:
                mask = pa.array([index in held_out for index in range(number, number + batch.num_rows)])
                number += batch.num_rows
                held.write_batch(batch.filter(mask))
                train.write_batch(batch.filter(pa.compute.invert(mask)))
    whole.unlink()
