"""`preparation.longRows` for rows of alignment: what becomes of one that is longer than `training.sequenceLength`.

The prompt gives way first, from its left, since its end is what is answered; it keeps its start tokens and at least a
quarter of the sequence. Then the ends of both answers are cut at the same place, so that their lengths tell nothing.
Where TRL cuts an answer's end before the prompt, and Axolotl leaves answers that are equal or without their whole end,
a row is dropped here: never is a whole answer cut away, nor all that tells two answers apart.
Not here: counting what is cut and dropped.
"""

from dataclasses import dataclass, replace

from anneal_trainer.data.alignment.encode import common
from anneal_trainer.data.alignment.examples import (
    AlignedTokens,
    AskedTokens,
    ComparedTokens,
    JudgedTokens,
    PairTokens,
    StepTokens,
)
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.data.shape import CUT_OFF, KEPT, TOO_LONG, Limits

_LEAST_PROMPT = 4


@dataclass(frozen=True)
class Fitted:
    """The row as it is trained on; `reason` says why it is not, in the words of `status.dataset.dropped`."""

    tokens: AlignedTokens
    reason: str = KEPT
    cut: bool = False


def fit(tokens: AlignedTokens, limits: Limits, start: tuple[int, ...]) -> Fitted:
    """One row; `start` are the tokens that the tokenizer begins every text with."""
    if _length(tokens) <= limits.most:
        return Fitted(tokens)
    if limits.long_rows != "truncate":
        return Fitted(tokens, TOO_LONG)
    kept = _cut(tokens, limits.most, start)
    return Fitted(tokens, CUT_OFF) if _says_nothing(kept) else Fitted(kept, cut=True)


def _length(tokens: AlignedTokens) -> int:
    """Of the longest sequence that the model reads of the row."""
    match tokens:
        case PairTokens(prompt, chosen, rejected):
            return len(prompt) + max(len(chosen), len(rejected))
        case JudgedTokens(prompt, completion):
            return len(prompt) + len(completion)
        case ComparedTokens(chosen, rejected):
            return max(len(chosen), len(rejected))
        case StepTokens(ids):
            return len(ids)
        case AskedTokens(prompt):
            return len(prompt)


def _cut(tokens: AlignedTokens, most: int, start: tuple[int, ...]) -> AlignedTokens:
    match tokens:
        case PairTokens(prompt, chosen, rejected):
            prompt, (chosen, rejected) = _shared(prompt, [chosen, rejected], most, start)
            return replace(tokens, prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)
        case JudgedTokens(prompt, completion):
            prompt, (completion,) = _shared(prompt, [completion], most, start)
            return replace(tokens, prompt_ids=prompt, completion_ids=completion)
        case ComparedTokens(chosen, rejected):
            # Two conversations: what both begin with is their prompt.
            both = common(chosen, rejected)
            prompt, (better, worse) = _shared(chosen[:both], [chosen[both:], rejected[both:]], most, start)
            return ComparedTokens(prompt + better, prompt + worse)
        case StepTokens(ids, labels):
            return StepTokens(ids[:most], labels[:most])
        case AskedTokens(prompt):
            return replace(tokens, prompt_ids=_last(prompt, most, start))


def _shared(
    prompt: list[int], answers: list[list[int]], most: int, start: tuple[int, ...]
) -> tuple[list[int], list[list[int]]]:
    """Prompt and answers that together are at most `most` tokens long."""
    room = max(most - max(map(len, answers)), min(len(prompt), most // _LEAST_PROMPT))
    kept = _last(prompt, room, start)
    return kept, [answer[: most - len(kept)] for answer in answers]


def _last(prompt: list[int], room: int, start: tuple[int, ...]) -> list[int]:
    """The end of a prompt behind its start tokens."""
    if len(prompt) <= room:
        return prompt
    head = prompt[: len(start)] if prompt[: len(start)] == list(start) and len(start) < room else []
    return head + prompt[len(prompt) - (room - len(head)) :]


def _says_nothing(tokens: AlignedTokens) -> bool:
    match tokens:
        case PairTokens() | ComparedTokens():
            return tokens.chosen_ids == tokens.rejected_ids
        case StepTokens():
            return all(label == IGNORED for label in tokens.labels)
        case _:
            return False
