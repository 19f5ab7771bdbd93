"""grpo and rloo learn what is rewarded: answers that were rare become the rule.

One model is taught first to answer in capitals, and now and then in small letters; what is rewarded is a word in small
letters. Every run has a fixed seed.
"""

import shutil
from pathlib import Path

import pytest

from anneal_trainer.data.pieces import IGNORED
from trainer.prompting import answered, online_job
from trainer.test_online import drawn
from trainer.training import WORDS, records, write_jsonl

ROWS = [{"prompt": f"Say {word}{mark} ", "answer": word} for mark in (":", ".", "!") for word in WORDS]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model that answers such prompts, one time in five as it is wanted."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    asked = [tokenizer(row["prompt"])["input_ids"] for row in ROWS]
    said = [
        [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in (row["answer"].upper(), row["answer"])]
        for row in ROWS
    ]
    parts = [
        (torch.tensor(ask + say[n == 4]), torch.tensor([IGNORED] * len(ask) + say[n == 4]))
        for ask, say in zip(asked, said, strict=True)
        for n in range(5)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    torch.manual_seed(0)
    for step in range(150):
        chosen = [parts[i] for i in torch.randperm(len(parts))[:32].tolist()]
        ids, labels = (
            torch.nn.utils.rnn.pad_sequence([part[k] for part in chosen], batch_first=True, padding_value=filler)
            for k, filler in ((0, 0), (1, IGNORED))
        )
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * (1 - step / 150)
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("taught") / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_what_is_rewarded_is_learnt(tmp_path: Path, taught: Path, method: str) -> None:
    """The mean reward rises from under 0.3 to over 0.9, of drawn answers and on the holdout; both kinds were seen."""
    shutil.copytree(taught, tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    job = online_job(
        method,
        adapter=None,
        rewards=[{"name": "small", "pattern": {"pattern": "[a-z]+"}}],
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
