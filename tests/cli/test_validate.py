"""`anneal validate`: every problem of every file at once, in a form that editors understand."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from anneal_api import jobs_in, resolve
from anneal_cli.__main__ import app

GOOD = """\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneJob
metadata: {name: support-bot}
spec:
  model: {source: hf://org/model}
  adapter: {type: lora}
  datasets: [{source: volume://runs/data.jsonl}]
"""


def manifest(tmp_path: Path, text: str, name: str = "job.yaml") -> Path:
    """A manifest file with this text."""
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_valid_manifest_is_silent(tmp_path: Path) -> None:
    """A valid file prints nothing and exits 0."""
    result = CliRunner().invoke(app, ["validate", str(manifest(tmp_path, GOOD))])
    assert (result.exit_code, result.output) == (0, "")


def test_all_problems_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    """Two broken files give all their problems as `FILE: path: message` on stderr, and exit code 2."""
    first = manifest(tmp_path, GOOD.replace("hf://org/model", "nowhere").replace("lora", "dora"), "first.yaml")
    second = manifest(tmp_path, GOOD + "  datsets: []\n", "second.yaml")
    result = CliRunner().invoke(app, ["validate", str(first), str(second)])
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [
        [f"{first}:", "spec.adapter.type:"],
        [f"{first}:", "spec.model.source:"],
        [f"{second}:", "spec.datsets:"],
    ]
    assert "did you mean datasets?" in lines[2]


def test_what_does_not_go_together_is_told_beside_wrong_fields(tmp_path: Path) -> None:
    """So that nobody mends one mistake to be told of the next."""
    text = GOOD.replace("adapter: {type: lora}", "compute: {nodes: 2, minNodes: 1, image: 1}")
    result = CliRunner().invoke(app, ["validate", str(manifest(tmp_path, text))])
    assert [line.split(" ")[1] for line in result.stderr.splitlines()] == [
        "spec.compute.image:",
        "spec.compute.minNodes:",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("a: [1", "not YAML", id="broken"),
        pytest.param(GOOD + "  method: sft\n  method: sft\n", "line 9: the key 'method' is written twice", id="twice"),
        pytest.param(GOOD.replace("FineTuneJob", "Pod"), "kind: 'Pod' is not accepted", id="kind"),
        pytest.param("- 1\n", "a manifest is a mapping", id="list"),
    ],
)
def test_what_is_not_a_job_is_said_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """A file that holds no job gets one line that says what is wrong with it."""
    result = CliRunner().invoke(app, ["validate", str(manifest(tmp_path, text))])
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_file_is_a_problem_like_any_other(tmp_path: Path) -> None:
    """A path that does not exist is reported with its name, and exits 2."""
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"


def test_standard_input_is_read_for_a_dash() -> None:
    """`-` reads standard input and names it <stdin>."""
    good, bad = (CliRunner().invoke(app, ["validate", "-"], input=text) for text in (GOOD, GOOD + "  x: 1\n"))
    assert (good.exit_code, bad.exit_code) == (0, 2)
    assert bad.stderr.startswith("<stdin>: spec.x: unknown key")


def test_a_local_path_is_noted_because_a_cluster_refuses_it(tmp_path: Path) -> None:
    """A local path is valid for `anneal run`; the note says that a cluster refuses it."""
    path = manifest(tmp_path, GOOD.replace("volume://runs/data.jsonl", "./data.jsonl"))
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 0
    assert "spec.datasets[0].source: note: './data.jsonl' works with `anneal run` only" in result.stderr


def test_a_note_of_a_file_with_several_jobs_says_which(tmp_path: Path) -> None:
    """The job's name stands before the field."""
    local = GOOD.replace("volume://runs/data.jsonl", "./data.jsonl").replace("support-bot", "other")
    result = CliRunner().invoke(app, ["validate", str(manifest(tmp_path, f"{GOOD}---\n{local}"))])
    assert "job.yaml: other: spec.datasets[0].source: note: './data.jsonl'" in result.stderr


def test_resolved_prints_every_default_and_reads_back_the_same(tmp_path: Path) -> None:
    """`--resolved` prints YAML that our own reader parses to exactly the resolved jobs."""
    path = manifest(tmp_path, f"{GOOD}---\n{GOOD.replace('support-bot', 'other')}")
    result = CliRunner().invoke(app, ["validate", "--resolved", str(path)])
    assert result.exit_code == 0
    printed = jobs_in(result.stdout)
    assert [job.name for job in printed] == ["support-bot", "other"]
    expected = resolve(jobs_in(GOOD)[0].spec)
    assert printed[0].spec == expected == resolve(printed[0].spec)
    training = yaml.safe_load(result.stdout.split("---")[0])["spec"]["training"]
    assert (training["learningRate"], training["globalBatchSize"], training["microBatchSize"]) == (2e-4, 16, 8)


def test_nothing_is_resolved_while_a_file_is_invalid(tmp_path: Path) -> None:
    """With one invalid file among several, no resolved job is printed that could be taken for the whole."""
    files = [str(manifest(tmp_path, GOOD, "good.yaml")), str(manifest(tmp_path, "x: 1", "bad.yaml"))]
    result = CliRunner().invoke(app, ["validate", "--resolved", *files])
    assert (result.exit_code, result.stdout) == (2, "")
