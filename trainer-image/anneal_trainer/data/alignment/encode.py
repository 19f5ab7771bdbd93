"""Examples of alignment to token ids, as TRL's trainers tokenize the same texts.

Prompt and answer are tokenized as one text, since that is what the model reads; the answer begins where the prompt
alone and the whole differ. EOS is appended to an answer unless it is there. Not here: cutting to length (`fit`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anneal_trainer.data.alignment.examples import (
    Aligned,
    AlignedTokens,
    Asked,
    AskedTokens,
    Compared,
    ComparedTokens,
    Judged,
    JudgedTokens,
    Pair,
    PairTokens,
    Prompt,
    Steps,
    StepTokens,
)
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import IGNORED, RowError


@dataclass(frozen=True)
class AlignmentEncoder:
    """The tokenizer of `encoder`, for the examples of alignment."""

    encoder: Encoder

    def encode(self, examples: Sequence[Aligned]) -> list[AlignedTokens]:
        """Tokens of each example, in order."""
        found = iter(self.encoder.ids([text for example in examples for text in _texts(example)]))
        return [self._assembled(example, found) for example in examples]

    def _assembled(self, example: Aligned, found: Iterator[list[int]]) -> AlignedTokens:
        match example:
            case Pair():
                return self._pair(example, next(found), next(found), next(found))
            case Judged():
                prompt, (completion,), lost = self._answers(example.prompt, next(found), [next(found)])
                return JudgedTokens(prompt, completion, example.label, lost)
            case Compared():
                return ComparedTokens(next(found), next(found))
            case Steps():
                return self._steps(example, next(found), next(found), [next(found) for _ in example.steps])
            case Asked():
                return AskedTokens(self._started(example.prompt, next(found)), example.row, example.asked)

    def _pair(self, pair: Pair, prompt: list[int], chosen: list[int], rejected: list[int]) -> PairTokens:
        asked, (better, worse), lost = self._answers(pair.prompt, prompt, [chosen, rejected])
        return PairTokens(asked, better, worse, lost)

    def _answers(
        self, asked: Prompt, prompt: list[int], wholes: list[list[int]]
    ) -> tuple[list[int], list[list[int]], int]:
        """The prompt's ids, each answer's, and how many of the prompt's tokens the answers changed."""
        alone = self._started(asked, prompt)
        full = [self._ended(self._started(asked, whole)) for whole in wholes]
        shared = min(common(alone, whole) for whole in full)
        return alone[:shared], [whole[shared:] for whole in full], len(alone) - shared

    def _started(self, prompt: Prompt, ids: list[int]) -> list[int]:
        """With the tokenizer's start tokens, once, whether the text brings them or not."""
        start = list(self.encoder.start)
        return ids if not prompt.starts or (start and ids[: len(start)] == start) else start + ids

    def _ended(self, ids: list[int]) -> list[int]:
        eos = self.encoder.eos
        return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]

    def _steps(self, example: Steps, prompt: list[int], separator: list[int], steps: list[list[int]]) -> StepTokens:
        # Process reward models have always begun with BOS where the tokenizer has one, whether it adds it or not.
        bos = self.encoder.tokenizer.bos_token_id
        ids: list[int] = []
        labels: list[int] = []
        for step, label in zip(steps, example.labels, strict=True):
            ids += step + separator
            labels += [IGNORED] * (len(step) + len(separator))
            if separator and label is not None:
                labels[-1] = int(label)
        asked = ([] if bos is None else [bos]) + prompt
        return StepTokens(asked + ids[: example.longest], [IGNORED] * len(asked) + labels[: example.longest])


def check(tokens: AlignedTokens) -> None:
    """RowError if nothing can be learnt from the tokens."""
    match tokens:
        case PairTokens() | ComparedTokens() if tokens.chosen_ids == tokens.rejected_ids:
            raise RowError("chosen and rejected are the same to the tokenizer: there is nothing to prefer")
        case StepTokens() if all(label == IGNORED for label in tokens.labels):
            raise RowError(
                "no step has a label to train: the separator has no token, or maxCompletionLength cuts the first step"
            )
        case _:
            return


def _texts(example: Aligned) -> list[str]:
    match example:
        case Pair(prompt, chosen, rejected):
            return [prompt.text, prompt.text + chosen, prompt.text + rejected]
        case Judged(prompt, completion):
            return [prompt.text, prompt.text + completion]
        case Compared(chosen, rejected):
            return [chosen, rejected]
        case Steps():
            return [example.prompt, example.separator, *example.steps]
        case Asked():
            return [example.prompt.text]


def common(one: Sequence[Any], two: Sequence[Any]) -> int:
    """The number of leading entries that both share."""
    pairs = zip(one, two, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
