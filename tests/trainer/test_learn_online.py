"""grpo and rloo learn what is rewarded: answers that were rare become the rule. Every run has a fixed seed."""

import shutil
from pathlib import Path

import pytest

from trainer.prompting import answered
from trainer.teaching import ROWS, small_letters_job, teach
from trainer.test_online import drawn
from trainer.training import records, write_jsonl


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model that gives the wanted answer one time in five."""
    return teach(tiny_model, tmp_path_factory.mktemp("taught") / "model")


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_what_is_rewarded_is_learnt(tmp_path: Path, taught: Path, method: str) -> None:
    """The mean reward rises from under 0.3 to over 0.9, of drawn answers and on the holdout; both kinds were seen."""
    shutil.copytree(taught, tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    result = answered(tmp_path, small_letters_job(method, adapter=None, training={"learningRate": 2e-3}))
    found = records(tmp_path)
    drawn_rewards = [record["reward"] for record in found if "reward" in record]
    assert found[0]["eval_reward"] < 0.3
    assert drawn_rewards[0] < 0.3
    assert result.metrics["eval_reward"] > 0.9
    assert sum(drawn_rewards[-5:]) / 5 > 0.9
    assert {row["reward"] for row in drawn(tmp_path, "job")} == {0.0, 1.0}
