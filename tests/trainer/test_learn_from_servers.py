"""Answers are drawn from a real vLLM server: what it computes is what the trainer computes, and both methods learn.

One server is started for all tests here; each run hands it its own adapters.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from anneal_api.meta import ENV_ROLLOUT_HOST
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.rollout.local import LOOPBACK, LocalServer, Place, ports
from anneal_trainer.rollout.where import as_here
from trainer.aligning import alignment_context
from trainer.prompting import answered
from trainer.teaching import ROWS, small_letters_job, teach
from trainer.test_online import drawn
from trainer.training import alpaca_rows, records, write_jsonl

SERVED = {"rollout": {"mode": "server"}}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives the wanted answer one time in five, with heads as wide as vLLM needs them."""
    from anneal_trainer import quiet_libraries
    from anneal_trainer.data.formats import alpaca
    from anneal_trainer.quickstart import model

    quiet_libraries.apply()
    place = tmp_path_factory.mktemp("taught")
    texts = [alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in alpaca_rows()]
    model.build(texts, place / "start", vocabulary=320, width=64, heads=2)
    return teach(place / "start", place / "model")


@pytest.fixture(scope="module")
def server(taught: Path, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server of that model."""
    place = tmp_path_factory.mktemp("server")
    spec = alignment_context(place, small_letters_job("grpo", **SERVED)).spec
    assert isinstance(spec, RLHFSpec)
    with LocalServer(
        as_here(spec, gpu=False), Place(str(vllm_python), taught, place / "vllm.log", place / "ports")
    ) as running:
        running.wait(say=print)
        yield f"{LOOPBACK}:{ports(place / 'ports')[0]}"


@pytest.fixture
def place(tmp_path: Path, taught: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with the model and its prompts, where runs draw from the server."""
    shutil.copytree(taught, tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    monkeypatch.setenv(ENV_ROLLOUT_HOST, server)
    return tmp_path


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_what_is_rewarded_is_learnt(place: Path, method: str) -> None:
    """The mean reward rises from under 0.3 to over 0.9, of drawn answers and on the holdout.

    What draws agrees with what learns to rounding, at every step: each draw had the weights of its step.
    """
    result = answered(place, small_letters_job(method, training={"learningRate": 1e-2}, adapter={"r": 8}, **SERVED))
    found = records(place)
    steps = [record for record in found if "reward" in record]
    assert found[0]["eval_reward"] < 0.3
    assert steps[0]["reward"] < 0.3
    assert result.metrics["eval_reward"] > 0.9
    assert sum(record["reward"] for record in steps[-5:]) / 5 > 0.9
    assert max(record["rollout/logp_difference"] for record in steps) < 1e-4
    assert all(abs(record["rollout/importance"] - 1) < 1e-3 for record in steps)
    assert [record["rollout/version"] for record in steps] == list(range(40))
    assert {(row["step"] - row["version"], row["staleness"]) for row in drawn(place, "job")} == {(1, 0)}
