"""Everything that people hand in by mistake, by the command that they run: told with its place, value and remedy.

Each case is the whole message. Nothing half-made is left, and the exit code is that of what is wrong.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anneal_api.conditions import DataReason
from anneal_trainer.data import store
from anneal_trainer.errors import DataError
from trainer.servers import Web, serving
from trainer.test_prepare import over, prepared
from trainer.test_prepare_into import invoke
from trainer.training import alpaca_rows, job, write_jsonl

USER, ANSWER = {"role": "user", "content": "cat"}, {"role": "assistant", "content": "dog"}
ALPACA = {"instruction": "cat", "output": "dog"}
CHAT = {"messages": [USER, ANSWER]}
# A template that reads tool calls, and refuses what some do.
JINJA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system\nturn') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content or '' }}{{ m.tool_calls or '' }}<|im_end|>\n{% endfor %}"
)


def jsonl(*rows: Any) -> bytes:
    """One JSON value a line."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def call(arguments: str) -> dict[str, Any]:
    """A conversation with a tool call."""
    made = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [made]}]}


CASES = [
    pytest.param(
        {"d.jsonl": jsonl(ALPACA) + b'{"instruction": "a", "outp\nnonsense\n'},
        [
            'd.jsonl, line 2: not JSON from column 22: Unterminated string, in …\'"instruction": "a", "outp\'',
            "d.jsonl, line 3: not JSON from column 1: Expecting value, in 'nonsense'",
        ],
        id="broken JSON",
    ),
    pytest.param(
        {"d.jsonl": jsonl([ALPACA])},
        [
            """d.jsonl: is no file of one object a line, it begins with '[{"instruction": "cat", "output": "dog"}]\\n': name it"""
        ],
        id="a list called jsonl",
    ),
    pytest.param(
        {"d.json": json.dumps({"data": [ALPACA]}, indent=1).encode()},
        ["d.json: holds an object over several lines, it begins with"],
        id="an object over several lines",
    ),
    pytest.param(
        {"d.jsonl": '{"instruction": "é"}'.encode("latin-1")},
        [r"""d.jsonl, line 1: not UTF-8 text from column 18, in '{"instruction": "\\xe9"}': save it as UTF-8"""],
        id="Latin-1",
    ),
    pytest.param(
        {"d.csv": "instruction,output\né,b\n".encode("latin-1")},
        ["d.csv, near line 1: not UTF-8 text, in"],
        id="Latin-1 csv",
    ),
    pytest.param(
        {"d.json": '[{"instruction":"a"},\n{"instruction":"é"}]'.encode("latin-1")},
        ["d.json, line 2: not UTF-8 text, in"],
        id="Latin-1 json",
    ),
    *(
        pytest.param(
            {f"d.{ending}": text.encode(code)}, [f"d.{ending}: is {name} text, it begins with"], id=code + ending
        )
        for ending, text in (("jsonl", '{"a": 1}\n'), ("json", "[{}]"), ("csv", "a,b\n1,2"), ("txt", "some text"))
        for code, name in (("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-32"))
    ),
    pytest.param(
        {"d.json": b'[{"instruction": "a\0b"}]'},
        ["d.json, line 1: holds NUL bytes from column 20: the file was not written whole, or is not UTF-8 text"],
        id="NUL in json",
    ),
    pytest.param(
        {
            "d.jsonl": jsonl(CHAT)
            + b'{"messages": [{"role": "user", "content": "a\\ud83d"}, {"role": "gpt", "content": "b"}]}'
        },
        [r"""d.jsonl, line 2: holds \ud83d after "<|im_start|>user\na", half of a character: write both halves"""],
        id="half a character",
    ),
    pytest.param(
        {"d.jsonl": jsonl(ALPACA) + b'{"instruction": ' + b"[" * 9999 + b"]" * 9999 + b"}"},
        ["d.jsonl, line 2: is nested too deeply"],
        id="nested too deeply",
    ),
    pytest.param({"d.jsonl": b""}, ["d.jsonl: has no row: write one at least, or leave the source out"], id="empty"),
    pytest.param({"d.csv": b"instruction,output\n"}, ["d.csv: has no row"], id="a header alone"),
    pytest.param({"d.parquet": b""}, ["d.parquet: is empty: 0 bytes are no Parquet file"], id="empty parquet"),
    pytest.param(
        {"d.jsonl": jsonl(ALPACA, {"instruction": "a", "output": ["x" * 10_000_000]})},
        ['d.jsonl, line 2: output must be text, got ["' + "x" * 58 + "…"],
        id="ten megabytes",
    ),
    pytest.param(
        {
            "d.jsonl": jsonl(
                CHAT,
                {"messages": None},
                {"messages": [None]},
                {"messages": [{"role": None, "content": None}]},
                {"messages": [USER, {**ANSWER, "content": None}]},
            )
        },
        [
            "d.jsonl, line 2: the column 'messages' is missing or null; this row has messages",
            "d.jsonl, line 3: messages[0] must be a turn with role and content, got null",
            "d.jsonl, line 4: messages[0].role is null; write one of: user, human, assistant, gpt, system, tool",
            "d.jsonl, line 5: messages[1].content must be text or a list of parts, got null",
        ],
        id="nulls",
    ),
    pytest.param(
        {"x/a.jsonl": jsonl(ALPACA), "x/b.jsonl": jsonl(CHAT, {"instruction": "a"})},
        [
            "x/b.jsonl, line 1: the columns 'instruction' and 'output' are missing; messages would be type chat_template: ",
            "x/b.jsonl, line 2: the column 'output' is missing; this row has instruction",
        ],
        id="mixed schemas",
    ),
    pytest.param(
        {"d.jsonl": jsonl(CHAT, {"messages": [{"role": "bot", "content": "a"}, ANSWER]})},
        ['d.jsonl, line 2: messages[0].role is "bot"; write one of: user, human, assistant, gpt, system, tool; or map'],
        id="an unknown role",
    ),
    pytest.param(
        {"d.jsonl": jsonl({"messages": [USER]}, {"messages": [USER, USER]})},
        [
            "no row has a token to train on: all labels of 2 rows are masked, -100 (the first: volume://runs/d.jsonl, line 1)"
        ],
        id="nobody answers",
    ),
    pytest.param(
        {"d.jsonl": jsonl({"instruction": "cat " * 300, "output": "dog"})},
        [
            "no row has a token to train on: the whole answer of 1 row lies beyond training.sequenceLength 256 (the first:"
        ],
        id="answers cut off",
    ),
    pytest.param(
        {"d.jsonl": jsonl(call('{"a": 1}'), call('{"a": '))},
        [
            'd.jsonl, line 2: messages[1].tool_calls[0].function.arguments must be JSON, got "{\\"a\\": ": Expecting value'
        ],
        id="a tool call",
    ),
    pytest.param(
        {"d.jsonl": jsonl({"segments": [{"label": "yes", "text": "a"}]}, {"segments": [{"label": 1, "text": "a"}]})},
        [
            'd.jsonl, line 1: segments[0].label must be true or false, got "yes"',
            "d.jsonl, line 2: segments[0].label must be true or false, got 1",
        ],
        id="labels",
    ),
    pytest.param(
        {"d.jsonl": jsonl({"messages": [{"role": "system", "content": "a"}, USER, ANSWER]})},
        ["d.jsonl, line 1: the chat template refuses these messages: no system turn"],
        id="a template that raises",
    ),
]


@pytest.mark.parametrize(("files", "expected"), CASES)
def test_what_is_wrong_is_told(storage: Path, tmp_path: Path, files: dict[str, bytes], expected: list[str]) -> None:
    """One line a problem: file, row, field, the value's beginning, what is accepted."""
    for name, content in files.items():
        (storage / name).parent.mkdir(exist_ok=True)
        (storage / name).write_bytes(content)
    source = f"volume://runs/{next(iter(files)).split('/')[0]}"
    model = {"source": "volume://runs/model", "chatTemplate": JINJA}
    result = invoke(storage, tmp_path / "made", datasets=[{"source": source}], model=model)
    found = result.stderr.split("error: ")[1].splitlines()
    assert result.exit_code == 65
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.removeprefix("volume://runs/").startswith(words)
    assert not list(tmp_path.glob("made")) + list(tmp_path.glob(".made*"))


@pytest.mark.parametrize("rows", [[{"messages": [ANSWER, USER, ANSWER]}], [{"messages": [ANSWER]}], [CHAT]])
def test_one_row_is_enough(storage: Path, tmp_path: Path, rows: list[Any]) -> None:
    """Also one whose conversation begins with the assistant; sentences count it as one."""
    write_jsonl(storage / "data.jsonl", rows)
    result = invoke(storage, tmp_path / "made")
    assert (result.exit_code, "1 of 1 row trained on" in result.stdout) == (0, True), result.output


def test_a_byte_order_mark_is_no_part_of_the_first_row(storage: Path, tmp_path: Path) -> None:
    """In any format that is text."""
    contents = {"jsonl": jsonl(ALPACA), "json": json.dumps([ALPACA]).encode(), "csv": b"instruction,output\na,b\n"}
    for ending, content in contents.items():
        (storage / f"d.{ending}").write_bytes(b"\xef\xbb\xbf" + content)
        result = invoke(storage, tmp_path / ending, datasets=[{"source": f"volume://runs/d.{ending}"}])
        assert result.exit_code == 0, result.output


def test_a_type_is_not_detected_from_columns_of_nulls(storage: Path) -> None:
    """A table that was put together from others has the columns of all of them in every row."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{**ALPACA, "messages": None}, {"instruction": None, "output": None, **CHAT}]
    parquet.write_table(pa.Table.from_pylist(rows), storage / "d.parquet")
    made = job(datasets=[{"source": "volume://runs/d.parquet"}], preparation={"onBadRow": "drop"})
    ready = prepared(storage, made)
    assert (ready.report.types, ready.report.used) == (["alpaca"], 1)
    assert "row 2: the columns 'instruction' and 'output' are missing; messages would be type" in str(
        ready.report.dropped[0].first
    )


def test_columns_that_the_first_row_lacks_are_not_left_out_in_silence(storage: Path) -> None:
    """A detected type that does not read what later rows have is warned of, with the first of them."""
    rows = [ALPACA, {**ALPACA, "system": "Be brief."}]
    warning = prepared(storage, over(storage, rows)).report.warnings[-1]
    assert (warning.reason, warning.rows) == ("ColumnsUnread", 1)
    assert "rows that have the columns of type alpaca_w_system.load_instruct and are read as alpaca" in warning.message
    assert "(the first: volume://runs/data.jsonl, line 2)" in warning.message


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("absent.jsonl", 66, "there is no such file (404"),
        ("403.jsonl", 66, "access is denied"),
        ("500.jsonl", 75, "500"),
    ],
)
def test_a_server_that_refuses_is_told(storage: Path, tmp_path: Path, path: str, code: int, words: str) -> None:
    """With the address; only what may pass is worth another try."""

    class Here(Web):
        files = {}  # noqa: RUF012 - as the class declares it

    with serving(Here) as address:
        result = invoke(storage, tmp_path / "made", datasets=[{"source": f"{address}/{path}"}])
    assert result.exit_code == code
    assert f"error: {address}/{path}: " in result.stderr
    assert words in result.stderr


def test_a_query_that_fails_is_told(storage: Path, tmp_path: Path) -> None:
    """In the data base's words, with the query."""
    import sqlite3

    sqlite3.connect(storage / "chats.db").execute("create table rows (n integer)").connection.close()
    entry = {"source": "volume://runs/chats.db", "query": "select text from rows"}
    result = invoke(storage, tmp_path / "made", datasets=[entry])
    assert result.exit_code == 66
    assert 'error: volume://runs/chats.db: query "select text from rows": no such column: text' in result.stderr


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system in memory with so little room."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("size", ["16k", "64k", "128k"])
def test_a_disk_that_fills_up_is_told(storage: Path, tmp_path: Path, size: str) -> None:
    """Whenever it does: while rows are tokenized, or while splits are written. Nothing half-made is found later."""
    write_jsonl(storage / "data.jsonl", alpaca_rows(400))
    with small_disk(tmp_path / "disk", size):
        result = invoke(storage, tmp_path / "disk/made")
        left = list((tmp_path / "disk").iterdir())
    assert (result.exit_code, left) == (78, []), result.output
    assert "error: the storage is full: " in result.stderr
    assert "enlarge the volume or free space on it" in result.stderr


def test_a_row_of_ten_megabytes_is_previewed_by_its_beginning(storage: Path) -> None:
    """What lies beyond the sequence length is counted, and its beginning shown."""
    from anneal_trainer.preview.read import preview

    write_jsonl(storage / "data.jsonl", [{**ALPACA, "output": "dog " * 2_500_000}])
    (row,) = preview(job(), {"runs": storage}, rows=1, dataset=None).rows
    assert row.tokens + sum(len(segment.ids) for segment in row.cut) < 1000 < row.cut_tokens


def test_counts_are_of_the_rows_that_are_used(storage: Path) -> None:
    """Rows that sampling leaves out are neither cut nor trained on."""
    long = {"instruction": "Say", "output": "red green blue " * 60}
    for name, rows in {"a": [long], "b": [ALPACA] * 9, "c": [long]}.items():
        write_jsonl(storage / f"{name}.jsonl", [*rows, {"instruction": "x", "output": name}])
    entries = [{"source": f"volume://runs/{name}.jsonl", "weight": weight} for name, weight in (("a", 1), ("b", 1))]
    evaluation = {"datasets": [{"source": "volume://runs/c.jsonl"}]}
    report = prepared(storage, job(datasets=entries, evaluation=evaluation)).report
    assert (report.used, report.truncated, report.eval_rows, report.eval_truncated) == (4, 1, 2, 1)
    assert {entry.token: entry.count for entry in report.special_tokens} == {"<|im_end|>": 3}
    assert [warning.reason for warning in report.warnings][:2] == ["RowsTruncated", "EvaluationRowsTruncated"]


@pytest.mark.parametrize(("good", "bad"), [(6, [b"nonsense"] * 5), (1, [b'{"instruction": "a"}', b"nonsense", b"[]"])])
def test_rows_that_cannot_be_read_count_as_read(storage: Path, good: int, bad: list[bytes]) -> None:
    """Read are those that are used and those that are dropped, whatever is wrong with them."""
    (storage / "data.jsonl").write_bytes(jsonl(ALPACA) * good + b"\n".join(bad))
    report = prepared(storage, job(preparation={"onBadRow": "drop", "maxBadRows": 9})).report
    assert (report.rows, report.used, [entry.rows for entry in report.dropped]) == (good + len(bad), good, [len(bad)])
    assert f"{len(bad)} of {good + len(bad)} " in report.warnings[0].message


@pytest.mark.parametrize("line", ["nonsense", '{"instruction": "a", "output": 5}'])
def test_a_job_without_a_good_row_says_what_is_wrong_with_the_bad_ones(storage: Path, line: str) -> None:
    """Although it may drop them; rows that do not parse, and rows that do."""
    (storage / "data.jsonl").write_text(f"{line}\n" * 3)
    entry = {"source": "volume://runs/data.jsonl", "type": "alpaca"}
    with pytest.raises(DataError) as raised:
        prepared(storage, job(datasets=[entry], preparation={"onBadRow": "drop", "maxBadRows": 9}))
    first, *rest = str(raised.value).splitlines()
    assert first == "no row has a token to train on: 3 bad rows dropped"
    assert [words.split(": ")[0] for words in rest] == [f"volume://runs/data.jsonl, line {n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(("duplicates", "rows"), [("keep", 2), ("dropExact", 0)])
def test_evaluation_rows_that_are_trained_on_are_told(storage: Path, duplicates: str, rows: int) -> None:
    """The evaluation loss would be too good; once duplicates are dropped there are none."""
    known, others = alpaca_rows(4), alpaca_rows(8)[4:]
    write_jsonl(storage / "data.jsonl", [*known, *others])
    write_jsonl(storage / "eval.jsonl", [{"instruction": "new", "output": "dog"}, *known[:2]])
    evaluation = {"datasets": [{"source": "volume://runs/eval.jsonl"}]}
    preparation, training = {"duplicates": duplicates}, {"sequenceLength": 256}
    made = job(evaluation=evaluation, preparation=preparation, training=training)
    found = prepared(storage, made).report.warnings
    told = [warning for warning in found if warning.reason == DataReason.TRAINING_ROWS_IN_EVALUATION]
    assert sum(warning.rows or 0 for warning in told) == rows
    assert all("2 of 3 (the first: volume://runs/eval.jsonl, line 2)" in warning.message for warning in told)


def test_the_first_hundred_places_are_kept(storage: Path) -> None:
    """The message names twenty bad rows, the report beside the data a hundred."""
    rows = [ALPACA, *[{"instruction": "a"}] * 150]
    ready = prepared(storage, over(storage, rows, preparation={"onBadRow": "drop", "maxBadRows": 200}))
    found = json.loads((ready.prepared.path / "report.json").read_text())
    assert len(found["places"]["bad"]) == 100
    assert ready.prepared.dataset(store.TRAIN) is not None


def test_every_warning_has_a_reason_of_the_api() -> None:
    """Whoever makes events or alerts of them can name all of them."""
    import re

    import anneal_trainer.data

    files = Path(anneal_trainer.data.__file__).parent.rglob("*.py")
    source = "".join(path.read_text() for path in files)
    assert set(re.findall(r'(?:Note\(|_rows\(|reason=|: \()\s*"([A-Z]\w+)"', source)) == set(DataReason)
