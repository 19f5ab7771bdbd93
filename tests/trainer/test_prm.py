"""Process reward models: right and wrong at each step's end, and the saved model says what was measured."""

from pathlib import Path
from typing import Any

import pytest

from trainer.aligning import aligned, alignment_job, step_rows, tokenizer_of
from trainer.training import losses, records


def solutions(count: int = 24) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Sums in steps; a step that shouts is wrong."""
    made = []
    for number in range(count):
        right = [number % 2 == 0, number % 3 == 0, True][: 1 + number % 3]
        steps = [(f"one two {place}" if good else f"ONE TWO {place}", good) for place, good in enumerate(right)]
        made.append((f"Add {number}: ", steps))
    return made


def judged(model: Any, rows: list[dict[str, Any]]) -> float:
    """The share of steps that the saved model judges rightly."""
    import torch

    hits = []
    for row in rows:
        with torch.no_grad():
            guesses = model(torch.tensor([row["input_ids"]])).logits[0].argmax(-1).tolist()
        hits += [guess == label for guess, label in zip(guesses, row["labels"], strict=True) if label != -100]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("adapter", [None, {"r": 4}], ids=["full", "adapter"])
def test_a_saved_model_judges_steps_as_it_was_trained(storage: Path, adapter: Any) -> None:
    """It learns, and its accuracy on held-out steps is what the run reported."""
    from peft import PeftModel
    from transformers import AutoModelForTokenClassification

    rows = step_rows(tokenizer_of(storage), solutions())
    made = alignment_job(
        "prm", adapter=adapter, evaluation={"holdout": {"count": 6}}, training={"maxSteps": 30, "learningRate": 1e-2}
    )
    result = aligned(storage, made, rows[6:], rows[:6])
    output = storage / "runs/job-rlhf/output"
    if adapter:
        base = AutoModelForTokenClassification.from_pretrained(storage / "model", num_labels=2)
        saved = PeftModel.from_pretrained(base, output).eval()
    else:
        saved = AutoModelForTokenClassification.from_pretrained(output).eval()
    assert judged(saved, rows[:6]) == pytest.approx(result.metrics["eval_accuracy"])
    assert result.metrics["eval_accuracy"] > 0.9
    assert losses(storage)[-1] < losses(storage)[0] - 0.3


def test_steps_without_a_label_are_not_trained(storage: Path) -> None:
    """The loss and the accuracy are over the judged steps alone."""
    rows = step_rows(tokenizer_of(storage), solutions(8))
    aligned(storage, alignment_job("prm", "all", training={"maxSteps": 1}), rows)
    first = [row | {"labels": [-100] * len(row["labels"])} if i else row for i, row in enumerate(rows)]
    aligned(storage, alignment_job("prm", "one", training={"maxSteps": 1}), first)
    assert losses(storage, "one") != pytest.approx(losses(storage, "all"))
    steps = sum(label != -100 for label in rows[0]["labels"])
    share = records(storage, "one")[0]["accuracy"] * steps
    assert share == pytest.approx(round(share), abs=1e-4)
