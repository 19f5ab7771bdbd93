"""A model that answers as is wanted, but seldom: what online methods have something to learn from.

It is taught by plain steps over all weights, in seconds, and with a fixed seed. Words in capitals are the rule, the same
in small letters the exception.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anneal_trainer.data.pieces import IGNORED
from trainer.training import WORDS

# What is asked, and what is wanted: the same word in small letters, alone.
ROWS = [{"prompt": f"Say {word}{mark} ", "answer": word} for mark in (":", ".", "!") for word in WORDS]
SMALL = {"name": "small", "pattern": {"pattern": "[a-z]+"}}
_ANSWERS = 5
_STEPS, _BATCH, _RATE = 150, 32, 6e-3


def teach(base: Path, path: Path) -> None:
    """Write to `path` a model that answers `ROWS` in small letters one time in five, and else in capitals."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    parts = [
        (torch.tensor(asked + said), torch.tensor([IGNORED] * len(asked) + said)) for asked, said in _parts(tokenizer)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    torch.manual_seed(0)
    for step in range(_STEPS):
        chosen = [parts[i] for i in torch.randperm(len(parts))[:_BATCH].tolist()]
        ids, labels = (
            torch.nn.utils.rnn.pad_sequence([part[k] for part in chosen], batch_first=True, padding_value=filler)
            for k, filler in ((0, 0), (1, IGNORED))
        )
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _parts(tokenizer: Any) -> Sequence[tuple[list[int], list[int]]]:
    """Every prompt with each of its answers, as tokens."""
    texts = [
        (row["prompt"], row["answer"] if n == _ANSWERS - 1 else row["answer"].upper())
        for row in ROWS
        for n in range(_ANSWERS)
    ]
    return [(tokenizer(ask)["input_ids"], [*tokenizer(say)["input_ids"], tokenizer.eos_token_id]) for ask, say in texts]
