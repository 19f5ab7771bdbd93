"""A reward model: the score that a sequence classifier with one label gives prompt and answer.

Where a prompt is turns, the classifier's own chat template makes the text; a prompt that is text is read with the
answer right behind it. Texts are judged in batches of similar length. Imported late: it needs torch.
Not here: fetching or merging the model, and an adapter that is not merged.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from anneal_api.model import ModelSource
from anneal_trainer import quiet_libraries
from anneal_trainer.errors import ConfigError, InputError
from anneal_trainer.rewards.architecture import check_scores
from anneal_trainer.rewards.scoring import Batch, Fault, Prompt, Score, checked

# Of a batch, padding included.
_TOKENS = 16384


def _unused_positions(model: Any) -> int:
    """RoBERTa and its kin count positions from behind that of padding: their table ends before it seems to."""
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    paddings = (getattr(table, "padding_idx", None) for table in tables)
    return max((padding + 1 for padding in paddings if padding is not None), default=0)


class Classifier:
    """The model at `path`, on a device, in bf16 where that has it and else in fp32."""

    def __init__(self, path: Path, named: ModelSource, *, device: str, bf16: bool) -> None:
        self._named = named
        check_scores(path, named)
        quiet_libraries.hide_bars()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=torch.bfloat16 if bf16 else torch.float32, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise InputError(f"{named}: the model does not load: {error}") from error
        self._model = model.to(device).eval().requires_grad_(requires_grad=False)
        config = model.config.get_text_config()
        self._padding: int | None = config.pad_token_id
        most: int | None = getattr(config, "max_position_embeddings", None)
        self._longest = None if most is None else most - _unused_positions(model)

    def score(self, batch: Batch) -> list[Score]:
        """The score of each answer; a fault where the text is longer than the model can read."""
        asked = zip(batch.prompts, batch.completions, strict=True)
        ids = [self._ids(prompt, completion) for prompt, completion in asked]
        scores: list[Score] = [self._too_long(each) for each in ids]
        readable = [i for i, each in enumerate(ids) if self._longest is None or len(each) <= self._longest]
        for group in self._groups(readable, ids):
            for index, score in zip(group, self._scores([ids[i] for i in group]), strict=True):
                scores[index] = score
        return scores

    def _too_long(self, ids: Sequence[int]) -> Fault:
        return Fault(f"the text has {len(ids)} tokens, and the model reads {self._longest}")

    def _ids(self, prompt: Prompt, completion: str) -> list[int]:
        if isinstance(prompt, str):
            found: list[int] = self._tokenizer(prompt + completion)["input_ids"]
            return found
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"{self._named}: its tokenizer has no chat template, and the prompts are turns: "
                "write prompts as text, or take a model with a template"
            )
        turns = [*prompt, {"role": "assistant", "content": completion}]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        # The template brings its own start tokens.
        rendered: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return rendered

    def _groups(self, chosen: Sequence[int], ids: Sequence[list[int]]) -> Iterator[list[int]]:
        """Of similar length, each within the budget; one at a time where the model knows no padding."""
        group: list[int] = []
        for index in sorted(chosen, key=lambda i: len(ids[i])):
            full = (len(group) + 1) * max(1, len(ids[index])) > _TOKENS
            if group and (full or self._padding is None):
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _scores(self, rows: Sequence[list[int]]) -> list[Score]:
        device, width = self._model.device, max(len(row) for row in rows)
        padding = self._padding or 0
        ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.no_grad():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        found: list[float] = logits.float().squeeze(-1).tolist()
        return checked(found, len(rows))
