"""Each method learns a preference that can be measured: on held-out rows, and in what the model then says.

One model is taught first to answer in small letters or in capitals, as often the one as the other; what is preferred is
capitals. Every run has a fixed seed and is a small matter of seconds.
"""

from pathlib import Path
from typing import Any

import pytest

from anneal_trainer.data.pieces import IGNORED
from trainer.aligning import (
    aligned,
    alignment_job,
    compared_rows,
    judged_rows,
    pair_rows,
    step_rows,
    tokenizer_of,
)
from trainer.training import WORDS, records

Texts = list[tuple[str, str, str]]
HELD = 16


def texts(count: int = 96) -> Texts:
    """Prompt, answer in capitals, the same in small letters."""
    made = []
    for number in range(count):
        said = " ".join([WORDS[number % 15], WORDS[(number * 7 + number // 15) % 15]])
        made.append((f"Say {said}: ", said.upper(), said))
    return made


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model that answers such prompts, half in capitals."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    rows = pair_rows(tokenizer, texts())
    parts = [part for row in rows for part in _halves(row)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    torch.manual_seed(0)
    for step in range(150):
        chosen = [parts[i] for i in torch.randperm(len(parts))[:32].tolist()]
        ids, labels = (torch.nn.utils.rnn.pad_sequence([part[k] for part in chosen], batch_first=True, padding_value=filler) for k, filler in ((0, 0), (1, IGNORED)))  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * (1 - step / 150)
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("taught") / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _halves(row: dict[str, Any]) -> list[tuple[Any, Any]]:
    import torch

    ids, labels = (torch.tensor(row[name]).split(row["seq_lengths"]) for name in ("input_ids", "labels"))
    return list(zip(ids, labels, strict=True))


@pytest.fixture
def place(tmp_path: Path, taught: Path) -> Path:
    """A claim with that model."""
    (tmp_path / "model").symlink_to(taught)
    return tmp_path


def capitals(answers: list[str]) -> float:
    """The share of letters that are capitals."""
    letters = [letter for answer in answers for letter in answer if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / max(1, len(letters))


def said(storage: Path, when: str) -> list[str]:
    """The answers kept with the run."""
    import json

    return [sample["answer"] for sample in json.loads((storage / f"runs/job-rlhf/samples/{when}.json").read_text())]


# The rates are those of a small model: far above what is usual.
GENERATING: dict[str, dict[str, Any]] = {
    "dpo": {},
    "ipo": {},
    "kto": {"kto": {"beta": 0.2}},
    "orpo": {"orpo": {"beta": 1.0}},
    "simpo": {},
    "cpo": {},
}


@pytest.mark.parametrize("method", GENERATING)
def test_preferences_are_learnt_and_shown(place: Path, method: str) -> None:
    """Held-out accuracy rises above nine in ten, and greedy answers turn from mixed letters to capitals."""
    tokenizer, rows = tokenizer_of(place), texts()
    made = judged_rows(tokenizer, rows) if method == "kto" else pair_rows(tokenizer, rows)
    prompts = [{"prompt": prompt} for prompt, _, _ in rows[:8]]
    job = alignment_job(
        method,
        datasets=[{"source": "volume://runs/pairs.jsonl", "type": "user_defined", "format": {}}],
        evaluation={"holdout": {"count": HELD}, "samples": prompts, "maxSampleTokens": 12, "everySteps": 1000},
        training={"maxSteps": 40, "learningRate": 5e-3, "globalBatchSize": 16, "microBatchSize": 16},
        **GENERATING[method],
    )
    result = aligned(place, job, made[HELD:], made[:HELD])
    before = next(record for record in records(place) if record["step"] == 0)
    assert before["eval_rewards/accuracies"] < 0.8
    assert result.metrics["eval_rewards/accuracies"] > 0.9
    assert result.metrics["eval_rewards/margins"] > before["eval_rewards/margins"]
    assert capitals(said(place, "before")) < 0.75
    assert capitals(said(place, "after")) > 0.9


def test_a_reward_model_learns_what_is_preferred(place: Path) -> None:
    """Held-out pairs are told apart."""
    made = compared_rows(tokenizer_of(place), texts())
    job = alignment_job("reward", evaluation={"holdout": {"count": HELD}}, training={"maxSteps": 30})
    result = aligned(place, job, made[HELD:], made[:HELD])
    before = next(record for record in records(place) if record["step"] == 0)
    assert result.metrics["eval_accuracy"] > 0.9
    assert result.metrics["eval_margin"] > before["eval_margin"] + 1


def test_a_process_reward_model_learns_which_steps_are_right(place: Path) -> None:
    """Held-out steps are judged rightly."""
    tokenizer = tokenizer_of(place)
    solutions = [
        (prompt, [(good, True), (bad, False)][:: 1 if i % 2 else -1]) for i, (prompt, good, bad) in enumerate(texts())
    ]
    made = step_rows(tokenizer, solutions)
    job = alignment_job("prm", evaluation={"holdout": {"count": HELD}}, training={"maxSteps": 30})
    result = aligned(place, job, made[HELD:], made[:HELD])
    assert result.metrics["eval_accuracy"] > 0.9
