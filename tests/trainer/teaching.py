"""A small task for online methods: answer with the word that was asked for, in small letters.

A model is taught first to answer in capitals, and now and then in small letters.
"""

from pathlib import Path
from typing import Any

from anneal_api.rlhfjob import RLHFJob
from anneal_trainer.data.pieces import IGNORED
from trainer.prompting import online_job
from trainer.training import WORDS

ROWS = [{"prompt": f"Say {word}{mark} ", "answer": word} for mark in (":", ".", "!") for word in WORDS]
_STEPS, _RATE = 150, 6e-3


def teach(start: Path, to: Path) -> Path:
    """A model that answers such prompts, one time in five as it is wanted."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start)
    parts = _parts(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    torch.manual_seed(0)
    for step in range(_STEPS):
        chosen = [parts[i] for i in torch.randperm(len(parts))[:32].tolist()]
        ids, labels = (
            torch.nn.utils.rnn.pad_sequence([part[k] for part in chosen], batch_first=True, padding_value=filler)
            for k, filler in ((0, 0), (1, IGNORED))
        )
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    return to


def _parts(tokenizer: Any) -> list[tuple[Any, Any]]:
    import torch

    asked = [tokenizer(row["prompt"])["input_ids"] for row in ROWS]
    said = [
        [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in (row["answer"].upper(), row["answer"])]
        for row in ROWS
    ]
    return [
        (torch.tensor(ask + say[n == 4]), torch.tensor([IGNORED] * len(ask) + say[n == 4]))
        for ask, say in zip(asked, said, strict=True)
        for n in range(5)
    ]


def small_letters_job(method: str, name: str = "job", **changes: Any) -> RLHFJob:
    """What is rewarded is a word in small letters; nine prompts are held out."""
    blocks: dict[str, Any] = {
        "rewards": [{"name": "small", "pattern": {"pattern": "[a-z]+"}}],
        "evaluation": {"holdout": {"count": 9}, "everySteps": 1000},
        "training": {"maxSteps": 40, "globalBatchSize": 64, "microBatchSize": 64, "lrScheduler": "constant"},
        method: {"numGenerations": 8},
    }
    for block, value in changes.items():
        blocks[block] = {**blocks[block], **value} if isinstance(blocks.get(block), dict) else value
    return online_job(method, name, **blocks)
