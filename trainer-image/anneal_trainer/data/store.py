"""Prepared data on the job's storage: Arrow files that every rank maps into memory, and where they are found.

    prepared/FINGERPRINT/{train,eval}/data.arrow   input_ids and labels, a row a sequence; packs: seq_lengths
    prepared/FINGERPRINT/report.json               what was made of the sources, with every place
    prepared/by-key/PREPARE_KEY.json               which fingerprint a spec's data has, and what it was made from

The fingerprint is over contents, so two specs that come to the same data share it; the key is over the spec alone, so a
trainer finds its data without reading a source. The report holds the size of every file of the splits: what lacks one,
or has another size, counts as not there and is made again. `datasets.load_from_disk` opens a split. Not here: making
the data (`build`).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api import Layout
from anneal_api.datasetreport import DatasetReport
from anneal_trainer.data.identity import Identity
from anneal_trainer.data.partners import spliced
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.data.spool import SpoolReader
from anneal_trainer.files import read_json, sync, write_json

TRAIN, EVAL = "train", "eval"
# The column of what rewards are given of a row, as JSON.
ROW = "row"
_FILE, _STATE_FILE, _INFO_FILE = NAMES = ("data.arrow", "state.json", "dataset_info.json")
_REPORT = "report.json"
_BATCH = 256
_STATE: dict[str, Any] = {
    "_fingerprint": "prepared",
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
}


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
    """The prepared data at `path`, if it is there and whole."""
    report = read_report(path)
    whole = "files" in report and report["files"] == _sizes(path)
    return Prepared(path, DatasetReport.model_validate(report)) if whole else None


def is_whole(path: Path) -> bool:
    """Whether there is prepared data at `path` that can be trained on."""
    return load(path) is not None


def read_report(path: Path) -> dict[str, Any]:
    """What `report.json` in a directory holds; nothing if it is not there, or no JSON object."""
    try:
        found = read_json(path / _REPORT)
    except (ValueError, NotADirectoryError):
        found = None
    return found if isinstance(found, dict) else {}


def point(layout: Layout, key: str, fingerprint: str, sources: Identity) -> None:
    """Make `key` stand for `fingerprint`."""
    write_json(pointer(layout, key), {"fingerprint": fingerprint, "prepareKey": key, "sources": sources})


def write_report(path: Path, report: DatasetReport, places: dict[str, list[str]]) -> None:
    """The last file to be written into prepared data. `places` are where rows were dropped, by reason."""
    # A name that is lost with the power is seen; contents of the right size that never reached the disk are not.
    sync(_files(path))
    write_json(path / _REPORT, {**report.dump(), "places": places, "files": _sizes(path)})


def _files(path: Path) -> list[Path]:
    return [path / split / name for split in (TRAIN, EVAL) for name in NAMES if (path / split / name).is_file()]


def _sizes(path: Path) -> dict[str, int]:
    """The files of the splits that are there, with their sizes."""
    return {str(file.relative_to(path)): file.stat().st_size for file in _files(path)}


@dataclass(frozen=True)
class Packs:
    """Numbers of sequences, pack after pack, and where each pack begins: one entry more than there are packs.

    `lengths`: packs are of several sequences and say where each ends. `values`: a further column, by its name.
    `texts`: a further column `row`, of texts beside the sequences. `spliced`: packs are of a row and its partner, whose
    answer is put behind the row's prompt, cut to so many tokens.
    """

    order: Any
    starts: Any
    lengths: bool = False
    values: tuple[str, Any] | None = None
    spliced: int | None = None
    texts: Any = None

    def __len__(self) -> int:
        return len(self.starts) - 1


def write_split(path: Path, reader: SpoolReader, packs: Packs, *, special: Any) -> dict[int, int]:
    """One split, in pieces; `datasets.load_from_disk` opens it.

    Returned is how often each token is trained for which `special` is true.
    """
    import pyarrow as pa

    seen: Counter[int] = Counter()
    path.mkdir(parents=True)
    integers = pa.list_(pa.int32())
    columns = [(name, integers) for name in ("input_ids", "labels", *(["seq_lengths"] if packs.lengths else []))]
    if packs.values:
        name, values = packs.values
        columns.append((name, pa.from_numpy_dtype(values.dtype)))
    if packs.texts is not None:
        columns.append((ROW, pa.string()))
    schema = pa.schema(columns)
    with pa.OSFile(str(path / _FILE), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for first in range(0, len(packs), _BATCH):
            last = min(first + _BATCH, len(packs))
            batch, found = _batch(reader, packs, first, last, schema, special)
            writer.write_batch(batch)
            seen.update(found)
    write_json(path / _STATE_FILE, {**_STATE, "_data_files": [{"filename": _FILE}], "_split": path.name})
    write_json(path / _INFO_FILE, {})
    return dict(seen)


def _batch(
    reader: SpoolReader, packs: Packs, first: int, last: int, schema: Any, special: Any
) -> tuple[Any, dict[int, int]]:
    """The packs from `first` to before `last`, and the special tokens that are trained in them."""
    import numpy as np
    import pyarrow as pa

    starts = packs.starts[first : last + 1]
    ids, labels, lengths = reader.read(packs.order[starts[0] : starts[-1]])
    if packs.spliced:
        ids, labels, lengths = spliced(ids, labels, lengths, packs.spliced)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    bounds = starts - starts[0]
    tokens = pa.array(ends[bounds].astype(np.int32))
    columns = [(tokens, ids), (tokens, labels)]
    if packs.lengths:
        # What follows the end of one row is not its business: nothing may be judged by the first token of the next.
        labels[ends[:-1]] = IGNORED
        columns.append((pa.array(bounds.astype(np.int32)), lengths))
    arrays = [pa.ListArray.from_arrays(offsets, pa.array(values, type=pa.int32())) for offsets, values in columns]
    if packs.values:
        arrays.append(pa.array(packs.values[1][first:last]))
    if packs.texts is not None:
        arrays.append(pa.array(reader.texts(packs.order[starts[0] : starts[-1]], packs.texts[first:last])))
    return pa.record_batch(arrays, schema=schema), _trained(labels, ends[:-1], special)


def _trained(labels: Any, firsts: Any, special: Any) -> dict[int, int]:
    """How often each special token is a label; the first token of a row is nobody's prediction."""
    import numpy as np

    judged = labels != IGNORED
    judged[firsts] = False
    tokens = labels[judged]
    found, counts = np.unique(tokens[special[tokens]], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
