"""Answers to `evaluation.samples` while training, kept in `samples/` on the job's storage.

Greedy, so that the difference between any two is the training and not the dice. Not here: judging them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anneal_api import FineTuneSpec, Layout
from anneal_api.alignment import AlignmentFormat
from anneal_api.chat import CHAT_TYPES
from anneal_api.dataset import FormatSpec
from anneal_api.job import JobSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.status import SAMPLE_LENGTH, SampleAnswer
from anneal_trainer.data.alignment import pairs
from anneal_trainer.data.formats import instruction
from anneal_trainer.data.formats.chat import Renderer
from anneal_trainer.files import read_json, write_json

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model said."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Asking:
    """How training rows ask: their type, and its wording or template where the manifest holds it.

    `given`: the variables that the manifest gives the template.
    """

    kind: str
    format: FormatSpec | AlignmentFormat | None = None
    template: str | None = None
    given: dict[str, Any] | None = None
    aligns: bool = False

    def text(self, prompt: str, tokenizer: Any) -> tuple[str, bool]:
        """What the model reads, as its rows have it; and whether the tokenizer's start tokens come before it."""
        if self.aligns and not self.kind.startswith("chat_template"):
            assert not isinstance(self.format, FormatSpec), "an alignment job has its own"
            return pairs.prompt_of(self.kind, prompt, self.format), True
        if self.aligns or self.kind in CHAT_TYPES:
            choice = self.template or ("chatml" if self.kind == "messages" else None)
            renderer = Renderer.of(tokenizer, own=tokenizer.own_chat_template)
            return renderer.chosen(choice, self.given).render([{"role": "user", "content": prompt}], prompt=True), False
        assert not isinstance(self.format, AlignmentFormat), "a fine-tuning job has its own"
        worded = instruction.prompt_of(self.kind, prompt, self.format)
        return prompt if worded is None else worded, True


def asking(spec: JobSpec, kind: str) -> Asking:
    """As the first source of a job asks, whose type is or was found to be `kind`."""
    if isinstance(spec, RLHFSpec):
        return Asking(kind, spec.datasets[0].format, aligns=True)
    assert isinstance(spec, FineTuneSpec), "there are two kinds"
    first = spec.datasets[0]
    return Asking(kind, first.format, first.chat_template, given=first.chat_template_kwargs)


def answers(model: Any, tokenizer: Any, prompts: Sequence[str], *, asking: Asking, most: int) -> list[Sample]:
    """The model's greedy answers, at most `most` tokens each."""
    import torch

    was_training = model.training
    model.eval()
    found = []
    with torch.no_grad():
        for prompt in prompts:
            text, special = asking.text(prompt, tokenizer)
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


def reported(found: Sequence[Sample], step: int) -> list[SampleAnswer]:
    """As they go into a report: texts are cut."""
    return [
        SampleAnswer(prompt=sample.prompt[:SAMPLE_LENGTH], answer=sample.answer[:SAMPLE_LENGTH], step=step)
        for sample in found
    ]


def load(layout: Layout, when: str) -> list[Sample]:
    """What an earlier attempt kept; nothing if there is none."""
    return [Sample(**entry) for entry in read_json(layout.samples / f"{when}.json") or []]
