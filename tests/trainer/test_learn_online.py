"""grpo and rloo learn what is rewarded: answers that were rare become the rule.

One model is taught first to answer in capitals, and now and then in small letters; what is rewarded is a word in small
letters. Every run has a fixed seed.
"""

import shutil
from pathlib import Path

import pytest

from trainer.prompting import answered, online_job
from trainer.teaching import ROWS, SMALL, teach
from trainer.test_online import drawn
from trainer.training import records, write_jsonl


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model that answers such prompts, one time in five as it is wanted."""
    path = tmp_path_factory.mktemp("taught") / "model"
    teach(tiny_model, path)
    return path


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_what_is_rewarded_is_learnt(tmp_path: Path, taught: Path, method: str) -> None:
    """The mean reward rises from under 0.3 to over 0.9, of drawn answers and on the holdout; both kinds were seen."""
    shutil.copytree(taught, tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    job = online_job(
        method,
        adapter=None,
        rewards=[SMALL],
        evaluation={"holdout": {"count": 9}, "everySteps": 1000},
        training={
            "maxSteps": 40,
            "learningRate": 2e-3,
            "globalBatchSize": 64,
            "microBatchSize": 64,
            "lrScheduler": "constant",
        },
        **{method: {"numGenerations": 8}},
    )
    result = answered(tmp_path, job)
    found = records(tmp_path)
    drawn_rewards = [record["reward"] for record in found if "reward" in record]
    assert found[0]["eval_reward"] < 0.3
    assert drawn_rewards[0] < 0.3
    assert result.metrics["eval_reward"] > 0.9
    assert sum(drawn_rewards[-5:]) / 5 > 0.9
    assert {row["reward"] for row in drawn(tmp_path, "job")} == {0.0, 1.0}
