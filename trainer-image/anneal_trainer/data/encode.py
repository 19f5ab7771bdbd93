"""Examples to token ids and labels: the only place that tokenizes, in batches, for every type.

Labels follow what Axolotl users know: a token is trained if any of its characters is; the tokenizer's start tokens
come once, in front; EOS is appended unless it is there already. A tokenizer that would put an EOS of its own behind
every text does not get to: it would stand between a prompt and its answer.
Not here: which tokens a span of characters is (`labels`), reading rows, and cutting them to length.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anneal_trainer.data import division
from anneal_trainer.data.formats.chat.template import Renderer
from anneal_trainer.data.labels import labels as labels_of
from anneal_trainer.data.pieces import IGNORED, Example, RowError, Text, Tokens


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
        # Files of tokenizers may say to cut and to pad every text; sequences are cut where it is counted.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        place = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return cls(tokenizer, tuple(full[:place]), tokenizer.eos_token_id, vocabulary)

    @cached_property
    def special(self) -> re.Pattern[str]:
        """The names of special tokens, which become these wherever a text holds them."""
        names = sorted(Renderer.of(self.tokenizer, own=None).special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def encode(self, examples: Sequence[Example]) -> list[Tokens]:
        """Tokens of each example, in order."""
        texts = [piece.text for example in examples if isinstance(example, Text) for piece in example.pieces]
        encoded = iter(self._tokenized(texts))
        return [self._assembled(example, encoded) if isinstance(example, Text) else example for example in examples]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without start tokens and EOS."""
        return [encoding.ids for encoding in self._tokenized(texts)]

    def divided(self, example: Example, tokens: Tokens, length: int) -> list[Tokens]:
        """The sequences that the tokens of `example` are: one, whatever its length, unless its type divides rows."""
        if isinstance(example, Tokens) or not example.division:
            return [tokens]
        if example.division == "chunks":
            return division.chunks(tokens, length)
        return division.windows(tokens.input_ids[len(self.start) :], length, start=self.start, eos=self.eos)

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

    def _tokenized(self, texts: list[str]) -> list[Any]:
        """One encoding a text. Asked of the library itself: the layer above copies every offset into Python."""
        backend = self.tokenizer.backend_tokenizer
        return list(backend.encode_batch(texts, add_special_tokens=False)) if texts else []

    def _assembled(self, example: Text, encoded: Iterator[Any]) -> Tokens:
        ids: list[int] = []
        labels: list[int] = []
        last = len(example.pieces) - 1
        for number, piece in enumerate(example.pieces):
            encoding = next(encoded)
            if piece.starts or (number == 0 and example.starts):
                ids += self.start
                # A text that is trained as a whole is trained from its first token on, as its ids are.
                labels += self.start if piece.whole else [IGNORED] * len(self.start)
            own = encoding.ids
            ids += own
            labels += labels_of(piece, own, encoding)
            ends = piece.ends or (number == last and example.ends)
            if ends and own and self.eos is not None and own[-1] != self.eos:
                ids.append(self.eos)
                labels.append(self.eos)
        return Tokens(ids, labels)
