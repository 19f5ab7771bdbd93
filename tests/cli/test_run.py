"""`anneal run`: what it refuses before anything heavy is imported, and with which exit code."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anneal_api import exitcodes
from anneal_cli.__main__ import app

JOB = """\
apiVersion: anneal.dev/v1alpha1
kind: FineTuneJob
metadata: {name: support-bot}
spec:
  model: {source: volume://models/tiny}
  datasets: [{source: volume://data/train.jsonl}]
  storage: {volume: {claimName: runs}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A manifest whose job uses three claims."""
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and standard error of `anneal run`."""
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_every_unmapped_claim_is_named_with_its_field(file: Path) -> None:
    """A claim without a directory is reported with the field that uses it and the option to add."""
    code, said = run(file)
    assert code == exitcodes.USAGE
    assert said.splitlines() == [
        f"{file}: spec.storage.volume.claimName: no directory is given for the claim 'runs': add --volume runs=DIR",
        f"{file}: spec.model.source: no directory is given for the claim 'models': add --volume models=DIR",
        f"{file}: spec.datasets[0].source: no directory is given for the claim 'data': add --volume data=DIR",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["runs"], "--volume runs: write CLAIM=DIR", id="no-directory"),
        pytest.param(["=x"], "--volume =x: write CLAIM=DIR", id="no-claim"),
        pytest.param(["runs=.", "runs=/"], "the claim 'runs' has a directory already", id="twice"),
        pytest.param(["runs=missing-dir"], "no such directory; make it with: mkdir -p missing-dir", id="missing"),
    ],
)
def test_a_bad_volume_option_says_how_to_write_it(file: Path, options: list[str], expected: str) -> None:
    """A mapping that cannot be used is a usage error with the remedy."""
    code, said = run(file, *(word for option in options for word in ("--volume", option)))
    assert code == exitcodes.USAGE
    assert expected in said


def test_a_file_that_is_not_there_exits_as_no_input(tmp_path: Path) -> None:
    """A missing file has the exit code for missing input."""
    code, said = run(tmp_path / "none.yaml")
    assert code == exitcodes.NO_INPUT
    assert "cannot be read: No such file or directory" in said


def test_an_invalid_manifest_exits_as_configuration(file: Path) -> None:
    """An invalid manifest has the exit code for configuration, and every problem is printed."""
    file.write_text(JOB.replace("datasets", "datsets"))
    code, said = run(file)
    assert code == exitcodes.CONFIG
    assert "spec.datasets: is required" in said
    assert "spec.datsets: unknown key (did you mean datasets?)" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], "has 2 jobs (support-bot, other): choose one with --name NAME", id="no-name"),
        pytest.param(["--name", "third"], "has no job called 'third'; it has: support-bot, other", id="unknown-name"),
    ],
)
def test_one_job_of_several_must_be_chosen(file: Path, options: list[str], expected: str) -> None:
    """A file with several jobs needs --name, and the error lists them."""
    file.write_text(f"{JOB}---\n{JOB.replace('support-bot', 'other')}")
    code, said = run(file, *options)
    assert code == exitcodes.USAGE
    assert expected in said


def test_a_generated_name_is_refused_here(file: Path) -> None:
    """A job with generateName only has no run directory on this machine."""
    file.write_text(JOB.replace("name: support-bot", "generateName: support-"))
    code, said = run(file)
    assert code == exitcodes.USAGE
    assert "metadata.name: is required to run a job here" in said


PIPELINE = """\
apiVersion: anneal.dev/v1alpha1
kind: RLHFJob
metadata: {name: dpo}
spec:
  method: dpo
  model: {source: job://finetunejob/sft}
  reference: {source: volume://models/tiny}
  datasets: [{source: volume://data/pairs.jsonl}]
  storage: {volume: {claimName: runs}}
"""


@pytest.mark.parametrize("command", ["run", "preview", "validate"])
def test_what_another_job_made_is_looked_for_on_the_storage(tmp_path: Path, command: str) -> None:
    """Also a preview needs it then; the reference's claim is one of the job's, and `validate` asks for none."""
    path = tmp_path / "dpo.yaml"
    path.write_text(PIPELINE)
    result = CliRunner().invoke(app, [command, str(path)])
    assert result.exit_code == (0 if command == "validate" else exitcodes.USAGE)
    missing = {line.split("claim ")[1].split(":")[0] for line in result.stderr.splitlines()}
    assert missing == (set() if command == "validate" else {"'runs'", "'models'", "'data'"})


JUDGED = """\
apiVersion: anneal.dev/v1alpha1
kind: RLHFJob
metadata: {name: grpo}
spec:
  method: grpo
  model: {source: ./model}
  adapter: {}
  datasets: [{source: ./prompts.jsonl}]
  rewards:
    - {name: first, function: {configMap: my-rewards}}
    - {name: second, function: {configMap: my-rewards, name: other}}
    - {name: third, function: {configMap: shared}}
    - {name: fourth, model: {source: volume://models/judge}}
"""


def test_every_config_map_without_a_directory_is_named(tmp_path: Path) -> None:
    """Once, with the option to add; so is the claim of a reward model."""
    path = tmp_path / "grpo.yaml"
    path.write_text(JUDGED)
    assert run(path) == (
        exitcodes.USAGE,
        f"{path}: spec.rewards[3].model.source: no directory is given for the claim 'models': add --volume models=DIR\n",
    )
    code, said = run(path, "--volume", f"models={tmp_path}", "--config-map", f"shared={tmp_path}")
    words = "no directory is given for the ConfigMap 'my-rewards': add --config-map my-rewards=DIR"
    assert (code, said) == (exitcodes.USAGE, f"{path}: spec.rewards[0].function.configMap: {words}\n")
    code, said = run(path, "--volume", f"models={tmp_path}", "--config-map", "shared", "--config-map", "my-rewards=no")
    assert code == exitcodes.USAGE
    assert "--config-map shared: write NAME=DIR, like --config-map my-rewards=./rewards" in said


@pytest.mark.parametrize("command", ["run", "preview", "prepare"])
def test_help_names_both_kinds(command: str) -> None:
    """A file may hold either."""
    said = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "160"}).stdout.split())
    assert "The manifest of a FineTuneJob or RLHFJob." in said


def test_what_only_a_cluster_reads_is_named(tmp_path: Path) -> None:
    """In one line; a job that has none of it, or writes a default, is told nothing."""
    path = tmp_path / "grpo.yaml"
    compute = (
        "queue: team\n  compute: {nodes: 2, gpuType: h100, gpusPerNode: 8}\n  rollout: {replicas: 2, maxStaleness: 1}\n"
    )
    path.write_text(f"{JUDGED}  {compute}")
    said = run(path)[1].splitlines()
    assert (
        said[0] == "note: queue, compute.gpuType, compute.nodes, rollout.replicas are for a cluster, and not used here"
    )
    path.write_text(f"{JUDGED}  compute: {{nodes: 1, pool: small}}\n")
    assert run(path)[1].splitlines()[0] == "note: compute.pool is for a cluster, and not used here"
    path.write_text(f"{JUDGED}  compute: {{nodes: 1}}\n")
    assert "note" not in run(path)[1]
