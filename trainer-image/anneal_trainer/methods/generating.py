"""Answers drawn from the model that is trained, with the library's own `generate`: batches of prompts, padded left.

A token is drawn by one number between 0 and 1: the first whose likelihood, added to those before it, is more. The
numbers of an answer come from its own stream, of the seed, the draw and the places of prompt and answer. So which
tokens are drawn depends on the model alone, not on what else is in the batch, on which process, or after which steps;
but for rounding, which differs with the batch's width and rarely lets a number fall to the neighbour.
Imported late: it needs torch. Not here: answers of servers (`drawing`), and what they are worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.random import RandomState
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation import (
    EosTokenCriteria,
    MinPLogitsWarper,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from anneal_api.online import SamplingSpec


@dataclass(frozen=True)
class Drawn:
    """An answer's tokens, the end of a turn among them if there is one. `cut_off`: it was not done.

    `logprobs`: of each token, as a server drew it; the trainer's own generate tells none.
    """

    ids: list[int]
    text: str
    cut_off: bool
    logprobs: Sequence[float] = ()


def numbers(seed: int, draw: int, place: int, *, answers: int, tokens: int) -> Any:
    """What the answers to the prompt at `place` of a draw are drawn by, `[answers, tokens]`."""
    # RandomState: its stream is frozen, so that a resume under a newer numpy draws the same.
    return RandomState([seed, draw, place]).random_sample((answers, tokens))


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the model's own, of which there may be several, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    found = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return sorted({token for token in found if token is not None})


@dataclass(frozen=True)
class Generator:
    """Model and tokenizer, and how answers are drawn; `at_once` of them together."""

    model: Any
    tokenizer: Any
    sampling: SamplingSpec
    at_once: int

    def answers(self, prompts: Sequence[list[int]], drawn_by: Any = None) -> list[Drawn]:
        """An answer to each prompt, drawn by the numbers of its line (`numbers`); the most likely one without."""
        was_training = self.model.training
        self.model.eval()
        try:
            found = []
            for start in range(0, len(prompts), self.at_once):
                part = slice(start, start + self.at_once)
                found += self._batch(prompts[part], None if drawn_by is None else drawn_by[part])
            return found
        finally:
            self.model.train(was_training)

    def _batch(self, prompts: Sequence[list[int]], drawn_by: Any) -> list[Drawn]:
        width, padding, device = max(map(len, prompts)), self.tokenizer.pad_token_id, self.model.device
        ids = torch.tensor([[padding] * (width - len(each)) + each for each in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts], device=device)
        ends = _Ends(width, self._endings(device))
        with torch.no_grad():
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._config(),
                logits_processor=LogitsProcessorList(self._processors(drawn_by, device)),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        said = whole[:, width:].tolist()
        lengths = ends.lengths.tolist()
        return [
            self._drawn(row[: length or len(row)], cut_off=not length)
            for row, length in zip(said, lengths, strict=True)
        ]

    def _drawn(self, ids: list[int], *, cut_off: bool) -> Drawn:
        return Drawn(ids, self.tokenizer.decode(ids, skip_special_tokens=True), cut_off)

    def _config(self) -> GenerationConfig:
        # The token is chosen by a processor. What a model's own config asks for beside is not what is trained.
        return GenerationConfig(
            max_new_tokens=self.sampling.max_tokens,
            do_sample=False,
            repetition_penalty=1.0,
            use_cache=True,
            eos_token_id=self._ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    @property
    def _ends(self) -> list[int]:
        return ends_of(self.model, self.tokenizer)

    def _endings(self, device: Any) -> list[StoppingCriteria]:
        found = [EosTokenCriteria(torch.tensor(self._ends, device=device))] if self._ends else []
        if self.sampling.stop:
            found.append(StopStringCriteria(self.tokenizer, list(self.sampling.stop)))
        return found

    def _processors(self, drawn_by: Any, device: Any) -> list[LogitsProcessor]:
        if drawn_by is None:
            return []
        asked, found = self.sampling, []
        if asked.temperature != 1:
            found.append(TemperatureLogitsWarper(asked.temperature))
        if asked.top_k:
            found.append(TopKLogitsWarper(asked.top_k))
        if asked.top_p < 1:
            found.append(TopPLogitsWarper(asked.top_p))
        if asked.min_p:
            found.append(MinPLogitsWarper(asked.min_p))
        return [*found, _Pick(torch.as_tensor(drawn_by, device=device))]


class _Pick(LogitsProcessor):  # type: ignore[misc]
    """Leaves the token that the next number of each line stands for."""

    def __init__(self, drawn_by: Any) -> None:
        self._numbers = iter(drawn_by.T)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        del input_ids
        # In fp64: a vocabulary is large, and a number must not fall to the neighbour.
        added = scores.softmax(-1).double().cumsum(-1)
        wanted = next(self._numbers)[:, None] * added[:, -1:]
        chosen = torch.searchsorted(added, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Whether each answer is done, and in how many tokens it was: 0 of one that is not."""

    def __init__(self, begin: int, endings: list[StoppingCriteria]) -> None:
        self._begin = begin
        self._endings = endings
        self.lengths: Any = None

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        if self.lengths is None:
            self.lengths = torch.zeros(len(input_ids), dtype=torch.long, device=input_ids.device)
        # Alone: a stop text that the prompt begins and the answer ends is none, as to servers.
        said = input_ids[:, self._begin :]
        for ending in self._endings:
            done = ending(said, scores, **options) & (self.lengths == 0)
            self.lengths[done] = said.shape[1]
        return self.lengths > 0
