"""Answers to `evaluation.samples` before and after training, kept in `samples/` on the job's storage.

Greedy, so that the difference between the two is the training and not the dice. Not here: judging them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anneal_api import Layout
from anneal_trainer.data.formats import alpaca
from anneal_trainer.files import read_json, write_json

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model said."""

    prompt: str
    answer: str


def prompt_text(prompt: str, *, kind: str, tokenizer: Any) -> tuple[str, bool]:
    """What the model reads, as rows of type `kind` have it; and whether the tokenizer's start tokens come before it."""
    match kind:
        case "chat_template":
            turns = [{"role": "user", "content": prompt}]
            return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), False
        case "alpaca":
            return alpaca.prompt(prompt), True
        case _:
            return prompt, True


def answers(model: Any, tokenizer: Any, prompts: Sequence[str], *, kind: str, most: int) -> list[Sample]:
    """The model's greedy answers, at most `most` tokens each."""
    import torch

    was_training = model.training
    model.eval()
    found = []
    with torch.no_grad():
        for prompt in prompts:
            text, special = prompt_text(prompt, kind=kind, tokenizer=tokenizer)
            found.append(Sample(prompt, _continued(model, tokenizer, text, special=special, most=most)))
    model.train(was_training)
    return found


def _continued(model: Any, tokenizer: Any, text: str, *, special: bool, most: int) -> str:
    inputs = tokenizer(text, add_special_tokens=special, return_tensors="pt", return_token_type_ids=False)
    inputs = inputs.to(model.device)
    # The cache is off in the config while training; without it each token would cost a pass over all before it.
    ids = model.generate(
        **inputs, max_new_tokens=most, do_sample=False, use_cache=True, pad_token_id=tokenizer.pad_token_id
    )
    said: str = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


def save(layout: Layout, when: str, found: Sequence[Sample]) -> None:
    """Keep them with the run."""
    write_json(layout.samples / f"{when}.json", [asdict(sample) for sample in found])


def load(layout: Layout, when: str) -> list[Sample]:
    """What an earlier attempt kept; nothing if there is none."""
    return [Sample(**entry) for entry in read_json(layout.samples / f"{when}.json") or []]
