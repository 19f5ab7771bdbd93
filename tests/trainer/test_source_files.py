"""Files of sources: compression, listing, shares that other processes read, and every way a file can be broken."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from anneal_trainer.errors import InputError
from trainer.reading import ROWS, Found, read

JSONL = "\n".join(json.dumps(row) for row in ROWS).encode()


def volume(root: Path, path: str, **options: Any) -> Found:
    """What volume://claim/PATH gives."""
    return read(f"volume://claim/{path}", {"claim": root}, **options)


def zst(data: bytes) -> bytes:
    """Zstandard, in two frames, as parallel compressors write it."""
    import pyarrow as pa

    half = len(data) // 2
    return b"".join(pa.Codec("zstd").compress(part).to_pybytes() for part in (data[:half], data[half:]))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zst,
}


def tar_of(**members: bytes) -> bytes:
    """A tar of these members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    ("name", "content"),
    [("d.jsonl", JSONL), ("d.csv", "text\none\ntwo ü\nthree\n".encode()), ("d.json", json.dumps(ROWS).encode())],
    ids=["jsonl", "csv", "json"],
)
def test_a_compressed_file_gives_its_rows(tmp_path: Path, packer: str, name: str, content: bytes) -> None:
    """The second ending says how it is compressed."""
    (tmp_path / f"{name}.{packer}").write_bytes(PACKERS[packer](content))
    assert volume(tmp_path, f"{name}.{packer}").rows == ROWS


@pytest.mark.parametrize("packer", ["gz", "zst"])
def test_compressed_columns_give_their_rows(tmp_path: Path, packer: str) -> None:
    """Parquet and both containers of Arrow, which must be read from a copy."""
    import pyarrow as pa
    from pyarrow import parquet

    table, raw = pa.Table.from_pylist(ROWS), {name: io.BytesIO() for name in ("d.parquet", "d.arrow", "e.arrow")}
    parquet.write_table(table, raw["d.parquet"])
    for name, make in (("d.arrow", pa.ipc.new_stream), ("e.arrow", pa.ipc.new_file)):
        with make(raw[name], table.schema) as writer:
            writer.write_table(table)
    for name, stream in raw.items():
        (tmp_path / f"{name}.{packer}").write_bytes(PACKERS[packer](stream.getvalue()))
        assert volume(tmp_path, f"{name}.{packer}").rows == ROWS


@pytest.mark.parametrize("packer", PACKERS)
def test_half_a_compressed_file_is_refused(tmp_path: Path, packer: str) -> None:
    """A copy that was cut off is never taken for the whole."""
    lines = b"\n".join(json.dumps({"text": random.Random(i).randbytes(40).hex()}).encode() for i in range(5000))
    packed = PACKERS[packer](lines)
    (tmp_path / f"d.jsonl.{packer}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=f"d.jsonl.{packer}: is not a whole .{packer} file"):
        volume(tmp_path, f"d.jsonl.{packer}")


def test_a_name_may_lie_about_its_compression(tmp_path: Path) -> None:
    """Plain text that is called .gz is named."""
    (tmp_path / "d.jsonl.gz").write_bytes(JSONL)
    with pytest.raises(InputError, match=r"is not a whole \.gz file"):
        volume(tmp_path, "d.jsonl.gz")


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [{"text": "a"}, {"text": "b"}, {"text": "c d"}]),
        ({"sampleBy": "paragraph"}, [{"text": "a\nb"}, {"text": "c d"}]),
        ({"sampleBy": "document"}, [{"text": "a\nb\n\n\nc d"}]),
    ],
    ids=["line", "paragraph", "document"],
)
def test_text_is_lines_paragraphs_or_one_document(tmp_path: Path, options: dict[str, Any], rows: list[Any]) -> None:
    """As `sampleBy` says; the byte order mark and Windows line ends are not text."""
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\n\r\nc d\r\n")
    assert volume(tmp_path, "d.txt", **options).rows == rows


def test_tabs_separate_tsv(tmp_path: Path) -> None:
    """And commas are text."""
    (tmp_path / "d.tsv").write_text("text\tmore\na,b\tc\n")
    assert volume(tmp_path, "d.tsv").rows == [{"text": "a,b", "more": "c"}]


def test_members_of_a_tar_are_rows(tmp_path: Path) -> None:
    """Same name, one row; an object's own columns; other endings under their names."""
    members = {
        "a/1.txt": b"one",
        "a/1.cls": b"7",
        "a/2.json": b'{"text": "two"}',
        "a/2.bin": b"\xff",
        "a/3.json": b"[1]",
    }
    (tmp_path / "d.tar").write_bytes(tar_of(**members))
    found = volume(tmp_path, "d.tar")
    assert found.rows == [
        {"__key__": "a/1", "txt": "one", "cls": 7},
        {"__key__": "a/2", "text": "two", "bin": b"\xff"},
        {"__key__": "a/3", "json": [1]},
    ]
    assert found.places[2] == "volume://claim/d.tar, sample 3"


def test_ds_type_reads_a_file_whose_name_says_nothing(tmp_path: Path) -> None:
    """Without it, the error asks for it."""
    (tmp_path / "data.v2").write_bytes(JSONL)
    with pytest.raises(InputError, match=r"files that end in \.v2 cannot be read.*or say with dsType"):
        volume(tmp_path, "data.v2")
    assert volume(tmp_path, "data.v2", dsType="jsonl").rows == ROWS


def test_text_counts_in_a_directory_of_text_alone(tmp_path: Path) -> None:
    """A licence beside the data is not data."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/LICENSE.txt").write_text("do what you want")
    assert volume(tmp_path, "d").rows == [{"text": "do what you want"}]
    (tmp_path / "d/rows.jsonl").write_bytes(JSONL)
    assert volume(tmp_path, "d").rows == ROWS


def test_what_was_saved_by_split_is_read_by_split(tmp_path: Path) -> None:
    """`save_to_disk` of several splits, each of several files, in the library's order."""
    from datasets import Dataset, DatasetDict

    rows = [{"text": str(index)} for index in range(30)]
    both = DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(ROWS))
    both.save_to_disk(tmp_path / "saved", num_shards={"train": 12, "test": 1})
    assert volume(tmp_path, "saved").rows == rows
    assert volume(tmp_path, "saved", split="test").rows == ROWS
    with pytest.raises(InputError, match="volume://claim/saved: has no split 'valid'; it has train, test"):
        volume(tmp_path, "saved", split="valid")


def test_data_files_are_read_in_their_order(tmp_path: Path) -> None:
    """Files and globs below the source."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert [row["text"] for row in volume(tmp_path, "*.jsonl").rows] == ["a", "b", "c"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.jsonl").write_text('{"text": "x"}')
    found = read(str(tmp_path), dataFiles=["c.jsonl", "d/*.jsonl", "a.jsonl"])
    assert [row["text"] for row in found.rows] == ["c", "x", "a"]


@pytest.mark.parametrize("packer", [None, "gz"], ids=["ranges", "handed on"])
def test_a_large_file_is_several_shares_with_the_files_own_lines(tmp_path: Path, packer: str | None) -> None:
    """Every row once, in order, numbered as an editor does, whatever a share begins with."""
    made = random.Random(0)
    texts = ["ü" * made.randrange(3000) for _ in range(4000)]
    data = b"\xef\xbb\xbf" + b"\n\n".join(json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts)
    name = "d.jsonl" if packer is None else f"d.jsonl.{packer}"
    (tmp_path / name).write_bytes(data if packer is None else PACKERS[packer](data))
    found = volume(tmp_path, name)
    assert [row["text"] for row in found.rows] == texts
    assert found.places == [f"volume://claim/{name}, line {2 * index + 1}" for index in range(4000)]
    assert found.chunks > 2


@pytest.mark.parametrize("groups", [1000, 100_000], ids=["small groups", "one large group"])
def test_columns_are_several_shares_too(tmp_path: Path, groups: int) -> None:
    """Parts of a row group where it is large."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"n": index, "text": f"{index} " * 400} for index in range(9000)]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "d.parquet", row_group_size=groups)
    with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    for name in ("d.parquet", "d.arrow"):
        found = volume(tmp_path, name)
        assert [row["n"] for row in found.rows] == list(range(9000))
        assert found.places[8500] == f"volume://claim/{name}, row 8501"
        assert found.chunks > 1


def test_a_row_of_ten_megabytes_is_a_row(tmp_path: Path) -> None:
    """In every format that a row may be long in, with its neighbours."""
    rows = [{"text": "a"}, {"text": "x" * 10_000_000}, {"text": "b"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "d.csv").write_text("\n".join(["text", *(row["text"] for row in rows)]))
    for name in ("d.jsonl", "d.json", "d.csv"):
        found = volume(tmp_path, name)
        assert (found.rows, found.chunks) == (rows, 2), "what is handed on together is bounded in bytes"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "d.jsonl",
            b'{"text": "a"}\n\0\0\0\0\n',
            "line 2: holds NUL bytes from column 1: the file was not written whole",
        ),
        ("d.jsonl", '{"text": "a"}'.encode("utf-16"), "d.jsonl: is UTF-16 text, it begins with"),
        ("d.txt", b"fine\na\0b", "line 2: holds NUL bytes"),
        ("d.txt", b"fine\n\xff", "line 2: not UTF-8 text"),
        ("d.csv", b"text\na\0b\n", "line 2: not CSV: holds NUL bytes"),
        ("d.csv", b"text\na\n\xff\n", r"d.csv, near line 1: not UTF-8 text, in 'text\na\n\\xff\n': save it as UTF-8"),
        ("d.csv", b"a,b,a\n1,2,3\n", "line 1: the header has the column 'a' twice"),
        ("d.csv", b'text\n"a\n', "not CSV: unexpected end of data"),
        ("d.json", b'[{"a": 1}\n {"a": 2}]', "line 2: not JSON from column 2: Expecting ',' delimiter"),
        ("d.json", b'[{"a": 1}, {"a": ', "line 1: not JSON from column 18: Expecting value"),
        ("d.json", b'[{"a": 1}] x', "line 1: not JSON from column 12: Extra data"),
        ("d.json", b"", "must be a list of objects or one object a line, got nothing"),
        ("d.json", b'[{"a": "\xff"}]', "d.json, line 1: not UTF-8 text, in '[{"),
        ("d.parquet", b"", "d.parquet: is empty: 0 bytes are no Parquet file"),
        ("d.arrow", b"", "d.arrow: not an Arrow file"),
        ("d.tar", tar_of(**{"1.json": b"{"}), "d.tar, sample 1 (1): .json: not JSON from column 2"),
        ("d.tar", tar_of(**{"1.txt": b"x" * 5000})[:3000], "d.tar: is not a whole tar file"),
        ("d.tar", b"no tar at all" * 100, "d.tar: is not a whole tar file"),
    ],
)
def test_what_is_broken_is_placed(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    """One problem, with the file and the place in it."""
    (tmp_path / name).write_bytes(content)
    found = volume(tmp_path, name)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"volume://claim/{name}")
    assert problem in found.problems[0]


def test_a_broken_column_chunk_is_placed(tmp_path: Path) -> None:
    """A Parquet file whose footer is fine and whose data is not."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([{"text": random.Random(i).randbytes(30).hex()} for i in range(2000)])
    parquet.write_table(table, tmp_path / "d.parquet")
    data = bytearray((tmp_path / "d.parquet").read_bytes())
    data[100:5000] = b"\xff" * 4900
    (tmp_path / "d.parquet").write_bytes(bytes(data))
    found = volume(tmp_path, "d.parquet")
    assert [problem.split(":")[2] for problem in found.problems] == [" is broken after row 0"]


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """A directory in the place of a file stands for every failure of a file system: root may read everything."""
    (tmp_path / "d.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "d.jsonl")
    with pytest.raises(InputError, match=r"volume://claim/d\.jsonl"):
        volume(tmp_path, "d.jsonl")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full is a disk without room: the copy of a compressed table cannot be made there."""
    import tempfile

    import pyarrow as pa
    from pyarrow import parquet

    from anneal_trainer.errors import TemporaryError

    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), stream)
    (tmp_path / "d.parquet.gz").write_bytes(gzip.compress(stream.getvalue()))
    full = partial(Path("/dev/full").open, "r+b", buffering=0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(TemporaryError, match="the disk is full"):
        volume(tmp_path, "d.parquet.gz")
