"""`anneal estimate` as a process: a table for people, bytes for programs, and what is wrong in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from anneal_cli.__main__ import app

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A claim with the config of a model, and no weights."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def estimate(storage: Path, *options: str, kind: str = "FineTuneJob", **spec: Any) -> Any:
    """Run the command on a job."""
    blocks = {"model": {"source": "volume://runs/model"}, "datasets": [{"source": "volume://data/rows.jsonl"}], **spec}
    job = {"apiVersion": "anneal.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": blocks}
    file = storage / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return CliRunner().invoke(app, ["estimate", str(file), "--volume", f"runs={storage}", *options])


def test_the_table_names_every_part_and_the_peak(storage: Path) -> None:
    """Only the model's claim is needed, not that of the data."""
    done = estimate(storage, adapter={"r": 4})
    assert done.exit_code == 0, done.output
    named = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert named[0].startswith("LlamaForCausalLM: 115,008 parameters; ")
    assert named[1:5] == ["PART", "weights", "adapter", "gradients"]
    assert named[-1] == "peak"


def test_json_is_in_bytes_and_adds_up(storage: Path) -> None:
    """The parts are the peak; without the context and what is lost between blocks they are what torch allocates."""
    found = json.loads(estimate(storage, "--json").stdout)
    sizes = {part["name"]: part["bytes"] for part in found["parts"]}
    assert found["peakBytes"] == sum(sizes.values())
    assert found["allocatedBytes"] == found["peakBytes"] - sizes["context"] - sizes["fragmentation"]
    assert sizes["weights"] == 4 * found["parameters"] == 4 * found["trainedParameters"]


def test_an_unknown_architecture_is_a_warning(storage: Path) -> None:
    """It is told which parts are not in the estimate, and how to find the peak."""
    (storage / "model/config.json").write_text('{"model_type": "of_tomorrow"}')
    done = estimate(storage)
    assert done.exit_code == 0
    assert "job.yaml: spec.model.source: warning: of_tomorrow is not" in done.stderr
    assert "weights and activations are not in it" in done.stderr


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        pytest.param({"model": {"source": "volume://runs/gone"}}, "there is no config.json in it", id="no-model"),
        pytest.param(
            {"model": {"source": "volume://other/m"}}, "no directory is given for the claim 'other'", id="no-claim"
        ),
    ],
)
def test_a_model_that_is_not_there_is_one_line(storage: Path, spec: dict[str, Any], told: str) -> None:
    """With the field and the source."""
    done = estimate(storage, **spec)
    assert done.exit_code == 66
    assert done.stderr.startswith(f"error: model.source {spec['model']['source']}: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reference_of_its_own_is_a_second_model(storage: Path) -> None:
    """Its config is read too: it may be another size."""
    (storage / "large").mkdir()
    (storage / "large/config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 4}))
    done = estimate(
        storage,
        "--json",
        kind="RLHFJob",
        method="dpo",
        adapter={"r": 4},
        reference={"source": "volume://runs/large"},
    )
    sizes = {part["name"]: part["bytes"] for part in json.loads(done.stdout)["parts"]}
    assert sizes["reference model"] > sizes["weights"]


FULL = {"training": {"globalBatchSize": 32, "microBatchSize": 32, "gradientCheckpointing": False}}


def test_it_tells_whether_a_gpu_is_enough(storage: Path) -> None:
    """And if not what would be, a line each; programs get the same as a sentence and a flag."""
    fits = estimate(storage, "--gpu-memory", "80", **FULL)
    assert fits.stdout.splitlines()[-1] == "fits a GPU of 80.0 GiB"
    done = estimate(storage, "--gpu-memory", "1", **FULL)
    assert done.exit_code == 79
    lines = done.stdout.splitlines()
    told = lines.index("does not fit a GPU of 1.0 GiB")
    assert lines[told - 1].startswith("peak")
    assert lines[told + 1].startswith("  training.microBatchSize: ")
    found = json.loads(estimate(storage, "--gpu-memory", "1", "--json", **FULL).stdout)
    assert (found["gpuBytes"], found["fits"], found["tuned"]) == (2**30, False, False)
    assert "training.microBatchSize: " in found["message"]


def test_without_a_gpu_nothing_is_said_of_fitting(storage: Path) -> None:
    """What a pool has is not known here; `auto` is the default size then."""
    training = {"globalBatchSize": 32, "microBatchSize": "auto"}
    found = json.loads(estimate(storage, "--json", training=training).stdout)
    assert found["microBatchSize"] == 8
    assert not found.keys() & {"gpuBytes", "fits", "message"}
    assert "fit" not in estimate(storage, training=training).stdout


def test_what_would_be_chosen_is_shown(storage: Path) -> None:
    """The table is of that choice."""
    training = {"globalBatchSize": 32, "microBatchSize": "auto"}
    done = estimate(storage, "--gpu-memory", "80", training=training)
    assert done.stdout.splitlines()[-2:] == [
        "chosen: microBatchSize 32, gradientCheckpointing on",
        "fits a GPU of 80.0 GiB",
    ]
    assert "32 x 2048 tokens" in done.stdout
    small = estimate(storage, "--gpu-memory", "1", "--json", compute={"memoryFit": "autotune"}, **FULL)
    found = json.loads(small.stdout)
    assert (found["fits"], found["tuned"]) == (True, True)
    assert found["microBatchSize"] < 32


ONLINE: dict[str, Any] = {
    "method": "grpo",
    "adapter": {"r": 4},
    "rewards": [{"name": "short", "length": {"most": 9}}],
    "datasets": [{"source": "volume://data/prompts.jsonl"}],
}


def test_a_job_that_draws_answers_tells_of_its_servers(storage: Path) -> None:
    """What one needs, and whether it fits a GPU like the trainer's; sizes that do not divide are told in any case."""
    done = estimate(storage, "--gpu-memory", "8", kind="RLHFJob", **ONLINE)
    assert done.exit_code == 0, done.output
    assert "a vLLM server for LlamaForCausalLM:" in done.stdout
    assert "fits the 7.200 GiB that memoryUtilization 0.9 gives it: room for" in done.stdout
    found = json.loads(estimate(storage, "--json", kind="RLHFJob", **ONLINE).stdout)["server"]
    assert found["bytes"] == sum(part["bytes"] for part in found["parts"])
    odd = estimate(storage, kind="RLHFJob", rollout={"tensorParallel": 3}, **ONLINE)
    assert "a vLLM server cannot start: spec.rollout.tensorParallel: 3 does not divide" in odd.stdout


def test_a_server_that_does_not_fit_exits_as_a_trainer_that_does_not(storage: Path) -> None:
    """With 79, and what would help."""
    tight = {"rollout": {"memoryUtilization": 0.1}, "training": {"microBatchSize": 1, "sequenceLength": 600}}
    done = estimate(storage, "--gpu-memory", "4", kind="RLHFJob", **ONLINE, **tight)
    assert done.exit_code == 79
    assert "does not fit the 0.400 GiB that memoryUtilization 0.1 gives it" in done.stdout
    assert "rollout.memoryUtilization: 0.95 would need" in done.stdout
