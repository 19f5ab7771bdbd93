"""`anneal prepare`: a data set on disk that other tools open, made once, and never over something else."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from typer.testing import CliRunner

from anneal_api import Job
from anneal_cli.__main__ import app
from trainer.prompting import asking_rows, online_job
from trainer.training import alpaca_rows, job, write_jsonl


def invoke(directory: Path, out: Path, *options: str, **changes: Any) -> Any:
    """`anneal prepare` of a job whose claim `runs` is `directory`."""
    return invoke_of(job(**{"training": {"sequenceLength": 256}, **changes}), directory, out, *options)


def invoke_of(made: Job, directory: Path, out: Path, *options: str) -> Any:
    """The same of any job."""
    manifest = directory / "job.json"
    head = {"apiVersion": made.api_version, "kind": made.kind, "metadata": made.metadata}
    manifest.write_text(json.dumps(head | {"spec": made.spec.dump()}))
    return CliRunner().invoke(
        app, ["prepare", str(manifest), "--out", str(out), "--volume", f"runs={directory}", *options]
    )


def test_the_splits_open_and_the_report_adds_up(storage: Path, tmp_path: Path) -> None:
    """Tokens and labels of every row, the holdout apart, and a report with the same numbers."""
    out = tmp_path / "made"
    result = invoke(storage, out, evaluation={"holdout": {"count": 6}})
    assert result.exit_code == 0, result.output
    train, measured = load_from_disk(str(out / "train")), load_from_disk(str(out / "eval"))
    report = json.loads((out / "report.json").read_text())
    assert (len(train), len(measured), report["used"], report["evalRows"]) == (42, 6, 42, 6)
    assert sum(map(len, train["input_ids"])) == report["tokens"]
    assert sum(label != -100 for labels in train["labels"] for label in labels) == report["trainedTokens"]
    assert "42 of 48 rows trained on, 6 held out" in result.stdout
    assert "tokens  █" in result.stdout


def test_packs_say_where_their_rows_end(storage: Path, tmp_path: Path) -> None:
    """Packed as the job says; --no-pack leaves rows apart."""
    packing = {"packing": True, "sequenceLength": 256}
    assert invoke(storage, tmp_path / "packed", training=packing).exit_code == 0
    packed = load_from_disk(str(tmp_path / "packed/train"))
    assert all(sum(row["seq_lengths"]) == len(row["input_ids"]) <= 256 for row in packed)
    assert len(packed) < 48
    assert invoke(storage, tmp_path / "apart", "--no-pack", training=packing).exit_code == 0
    assert len(load_from_disk(str(tmp_path / "apart/train"))) == 48


def test_what_is_there_is_used_again_until_something_changes(storage: Path, tmp_path: Path) -> None:
    """The same job finds it up to date; other data replaces it."""
    out = tmp_path / "made"
    assert "written" in invoke(storage, out).stderr
    before = (out / "report.json").stat().st_mtime_ns
    assert "is up to date" in invoke(storage, out).stderr
    assert (out / "report.json").stat().st_mtime_ns == before
    write_jsonl(storage / "data.jsonl", alpaca_rows(20))
    assert "written" in invoke(storage, out).stderr
    assert len(load_from_disk(str(out / "train"))) == 20
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".made")] == []


@pytest.mark.parametrize(
    ("file", "prepared"),
    [("", False), ("thesis.txt", False), ("report.json", False), ("thesis.txt", True), ("train/notes.txt", True)],
)
def test_something_else_is_never_overwritten(storage: Path, tmp_path: Path, file: str, prepared: bool) -> None:  # noqa: FBT001 - a case of the table
    """A file or directory that is not prepared data alone stays, beside it too; the message says what it is."""
    out = tmp_path / "mine"
    if prepared:
        assert invoke(storage, out).exit_code == 0
        write_jsonl(storage / "data.jsonl", alpaca_rows(20))
    kept = out / file
    kept.parent.mkdir(exist_ok=True, parents=True)
    kept.write_text('{"precious": 1}')
    result = invoke(storage, out)
    assert result.exit_code == 78
    assert ("mine holds something else than prepared data: " if file else "mine is a file: name a new") in result.stderr
    assert file in result.stderr
    assert kept.read_text() == '{"precious": 1}'


@pytest.mark.parametrize("damage", ["no split", "no file", "short", "no sizes"])
def test_what_is_damaged_is_made_again(storage: Path, tmp_path: Path, damage: str) -> None:
    """A split that is gone or cut short does not count as up to date."""
    out = tmp_path / "made"
    assert invoke(storage, out).exit_code == 0
    whole = {path: path.read_bytes() for path in (out / "train").iterdir()}
    match damage:
        case "no split":
            shutil.rmtree(out / "train")
        case "no file":
            (out / "train/state.json").unlink()
        case "short":
            os.truncate(out / "train/data.arrow", 100)
        case _:
            report = json.loads((out / "report.json").read_text())
            (out / "report.json").write_text(json.dumps({key: report[key] for key in report if key != "files"}))
    assert "made: written" in invoke(storage, out).stderr
    assert {path: path.read_bytes() for path in (out / "train").iterdir()} == whole
    assert "is up to date" in invoke(storage, out).stderr


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("/proc/foo", "/proc/foo cannot be written: No such file or directory; name a directory that can be made"),
        ("../job.json/x", "job.json/x cannot be written: File exists; name a directory that can be made"),
        (
            ".",
            "is a mount point or the working directory, and cannot be replaced as a whole: name a new directory in it",
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_told(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:
    """In one line, with what to do, before a row is read."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = invoke(storage, Path(out))
    assert (result.exit_code, list(Path.cwd().iterdir())) == (78, []), (result.output, result.exception)
    assert words in result.stderr.split("error: ")[1]


def test_neither_weights_nor_storage_are_needed(storage: Path, tmp_path: Path) -> None:
    """Tokens need a tokenizer and a config."""
    (storage / "model/model.safetensors").unlink()
    assert invoke(storage, tmp_path / "made", storage={"volume": {"claimName": "elsewhere"}}).exit_code == 0


def test_rewards_are_opened_as_the_prepare_pod_opens_them(storage: Path, tmp_path: Path) -> None:
    """All that is wrong with them at once, also where the data is there already; a model of the hub is not fetched."""
    write_jsonl(storage / "prompts.jsonl", asking_rows())
    (storage / "mine").mkdir()
    (storage / "mine/rewards.py").write_text("def reward(completions, answer): return [1.0] * len(completions)")
    rewards = [
        {"name": "hub", "model": {"source": "hf://org/judge"}},
        {"name": "right", "match": {"column": "gold"}},
        {"name": "asked", "http": {"url": "http://judge/$(NO_SUCH_KEY)"}},
        {"name": "mine", "function": {"configMap": "my-rewards", "name": "other"}},
        {"name": "judge", "model": {"source": "volume://runs/model"}},
    ]
    options = "--config-map", f"my-rewards={storage / 'mine'}"
    out = tmp_path / "made"
    made = online_job(rewards=rewards, secrets=[{"name": "judge"}])
    for _ in range(2):
        result = invoke_of(made, storage, out, *options)
        assert result.exit_code == 78, result.output
        for words in (
            "reward right: ",
            "the data has no column gold",
            "$(NO_SUCH_KEY), which is not in the environment",
            "reward mine: ",
            "volume://runs/model: it is a ",
        ):
            assert words in result.stderr
        assert "hub" not in result.stderr
    assert "no directory is given for the ConfigMap 'my-rewards'" in invoke_of(made, storage, out).stderr
    right = online_job(rewards=[{"name": "mine", "function": {"configMap": "my-rewards"}}])
    result = invoke_of(right, storage, out, *options)
    assert (result.exit_code, "is up to date" in result.stderr) == (0, True), result.output
