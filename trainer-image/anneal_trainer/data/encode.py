"""Examples to token ids and labels: the only place that tokenizes, in batches, for every type.

Labels follow what Axolotl users know: a token is trained if any of its characters is; the tokenizer's start tokens
come once, in front; EOS is appended unless it is there already. Not here: reading rows and cutting them to length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anneal_trainer.data.pieces import IGNORED, Example, Piece, RowError, Text, Tokens


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with what is asked of it once: its start tokens, its EOS, and the model's vocabulary."""

    tokenizer: Any
    start: tuple[int, ...]
    eos: int | None
    vocabulary: int

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int) -> "Encoder":
        """Ask `tokenizer` what it puts in front of a text."""
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        place = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return cls(tokenizer, tuple(full[:place]), tokenizer.eos_token_id, vocabulary)

    def encode(self, examples: Sequence[Example]) -> list[Tokens]:
        """Tokens of each example, in order."""
        texts = [piece.text for example in examples if isinstance(example, Text) for piece in example.pieces]
        encoded = iter(self._tokenized(texts))
        return [self._assembled(example, encoded) if isinstance(example, Text) else example for example in examples]

    def check(self, tokens: Tokens) -> None:
        """RowError if an id or a label is not in the model's vocabulary."""
        ids, labels = tokens.input_ids, tokens.labels
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary):
            wrong = next(i for i in ids if not 0 <= i < self.vocabulary)
            raise RowError(f"the token id {wrong} is not in the model's vocabulary (0 to {self.vocabulary - 1})")
        bad = next((label for label in labels if label != IGNORED and not 0 <= label < self.vocabulary), None)
        if bad is not None:
            raise RowError(
                f"the label {bad} is neither {IGNORED} nor in the model's vocabulary (0 to {self.vocabulary - 1})"
            )

    def _tokenized(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if not texts:
            return []
        found = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
        )
        return list(zip(found["input_ids"], found["offset_mapping"], strict=True))

    def _assembled(self, example: Text, encoded: Any) -> Tokens:
        ids = list(self.start) if example.starts else []
        # A text that is trained as a whole is trained from its first token on, as its ids are.
        labels = list(ids) if example.starts and example.pieces[0].whole else [IGNORED] * len(ids)
        for piece in example.pieces:
            piece_ids, offsets = next(encoded)
            ids += piece_ids
            labels += _labels(piece, piece_ids, offsets)
        if example.ends and self.eos is not None and ids[-1] != self.eos:
            ids.append(self.eos)
            labels.append(self.eos)
        return Tokens(ids, labels)


def _labels(piece: Piece, ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
    if piece.whole:
        return list(ids)
    if not piece.trained:
        return [IGNORED] * len(ids)
    return [
        token if any(start < last and end > first for first, last in piece.trained) else IGNORED
        for token, (start, end) in zip(ids, offsets, strict=True)
    ]
