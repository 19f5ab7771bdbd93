"""Reading rows: every file format, and the place of every row and problem."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import sources
from anneal_trainer.data.problems import Problems
from anneal_trainer.errors import DataError, InputError

ROWS = [{"text": "one"}, {"text": "two"}, {"text": "three"}]


def read(root: Path, path: str) -> tuple[list[dict[str, Any]], list[str], Problems]:
    """Rows, their places, and what was wrong."""
    problems = Problems()
    dataset = DatasetSpec.model_validate({"source": f"volume://claim/{path}"})
    found = list(sources.rows(dataset, {"claim": root}, problems))
    return [placed.row for placed in found], [placed.place for placed in found], problems


def problems_of(root: Path, path: str) -> list[str]:
    """The problems in a file."""
    _, _, problems = read(root, path)
    with pytest.raises(DataError) as raised:
        problems.raise_if_any()
    return str(raised.value).splitlines()


def _write(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(ROWS)
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in ROWS))
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".csv":
            path.write_text("text\none\ntwo\nthree\n")
        case ".parquet":
            parquet.write_table(table, path)
        case ".arrow":
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "arrow"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    """What a file is written in makes no difference to its rows."""
    _write(tmp_path / f"d.{suffix}")
    rows, places, problems = read(tmp_path, f"d.{suffix}")
    assert rows == ROWS
    assert problems.total == 0
    assert all(place.startswith(f"volume://claim/d.{suffix}, ") for place in places)


def test_arrows_file_container_is_read_too(tmp_path: Path) -> None:
    """Both of Arrow's containers are called .arrow."""
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(tmp_path / "d.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path, "d.arrow")[0] == ROWS


def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    """Many .json files are lines of objects."""
    (tmp_path / "d.json").write_text("\n".join(json.dumps(row) for row in ROWS))
    assert read(tmp_path, "d.json")[0] == ROWS


def test_a_byte_order_mark_and_blank_lines_are_not_rows(tmp_path: Path) -> None:
    """What editors add is left out, and line numbers stay those of the file."""
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n\n{"text": "two"}\n')
    rows, places, _ = read(tmp_path, "d.jsonl")
    assert rows == ROWS[:2]
    assert places[1] == "volume://claim/d.jsonl, line 3"


def test_a_directory_is_all_of_its_data_files_in_order(tmp_path: Path) -> None:
    """Sorted by path, other files and hidden ones left out."""
    for name, text in (("d/b.jsonl", "two"), ("d/a.jsonl", "one"), ("d/c/x.jsonl", "three")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": text}))
    (tmp_path / "d/README.md").write_text("# not data")
    (tmp_path / "d/.hidden.jsonl").write_text("broken")
    assert read(tmp_path, "d")[0] == ROWS


def test_a_directory_saved_by_datasets_is_its_arrow_files(tmp_path: Path) -> None:
    """The library's own JSON files beside the data are not rows."""
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert read(tmp_path, "saved")[0] == ROWS


def test_a_glob_takes_what_it_matches(tmp_path: Path) -> None:
    """Only matching files, sorted."""
    for name, text in (("part-2.jsonl", "two"), ("part-1.jsonl", "one"), ("other.jsonl", "no")):
        (tmp_path / name).write_text(json.dumps({"text": text}))
    assert read(tmp_path, "part-*.jsonl")[0] == ROWS[:2]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("d.jsonl", b'{"a": 1}\n{"a": \xff}\n', ["line 2: not UTF-8 text"], id="encoding"),
        pytest.param("d.jsonl", b'{"a": 1}\n3\n', ["line 2: must be a JSON object, got 3"], id="not an object"),
        pytest.param("d.json", b'[{"a": 1},\n{"a": }]', ["line 2: not JSON from column 7: Expecting value"], id="json"),
        pytest.param("d.json", b'[{"a": 1}, 2]', ["element 2: must be a JSON object, got 2"], id="element"),
        pytest.param("d.json", b'"a"', ['must be a list of objects or one object a line, got "a"'], id="json type"),
        pytest.param(
            "d.csv", b"a,b\n1,2\n3\n4,5,6\n", ["line 3: has 1 field, the header has 2", "line 4: has 3"], id="csv"
        ),
        pytest.param("d.parquet", b"PAR0", ["not a Parquet file"], id="parquet"),
        pytest.param("d.arrow", b"ARROW1xx", ["not an Arrow file"], id="arrow"),
    ],
)
def test_what_cannot_be_read_is_placed(tmp_path: Path, name: str, content: bytes, expected: list[str]) -> None:
    """Every problem has its file and line."""
    (tmp_path / name).write_bytes(content)
    found = problems_of(tmp_path, name)
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith(f"volume://claim/{name}")
        assert words in line


def test_a_quoted_line_break_does_not_shift_csv_lines(tmp_path: Path) -> None:
    """A row is where it ends in the file, as an editor shows it."""
    with (tmp_path / "d.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["text"], ["one\nmore"], ["two"]])
    assert read(tmp_path, "d.csv")[1] == ["volume://claim/d.csv, line 3", "volume://claim/d.csv, line 4"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent.jsonl", "there is no such file; volume://claim holds empty, notes.md"),
        ("gone/absent-*.jsonl", "there is no such file; volume://claim holds empty, notes.md"),
        ("empty", "the directory holds no data file; accepted: .jsonl"),
        ("notes.md", "files that end in .md cannot be read; accepted: .jsonl"),
    ],
)
def test_a_source_without_data_is_named(tmp_path: Path, path: str, words: str) -> None:
    """What is not there, or is no data, is exit code 66."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("hi")
    with pytest.raises(InputError) as raised:
        read(tmp_path, path)
    assert f"volume://claim/{path}: " in str(raised.value)
    assert words in str(raised.value)
    assert raised.value.exit_code == 66
