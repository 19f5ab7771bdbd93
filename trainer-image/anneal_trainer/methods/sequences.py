"""Batches of rows of one or two sequences each: padded, or laid end to end for FlashAttention, with the same results.

A prepared row has its sequences end to end in `input_ids` and `labels`, and their lengths in `seq_lengths`; the first
token of a sequence is never trained. Padded, a batch has a line a sequence, first all first ones, then all second ones;
flat, it is one line, with positions that begin again, in the same order. Not here: what is made of the model's answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from anneal_trainer.data.pieces import IGNORED

Row = dict[str, Any]
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True)
class SequenceCollator:
    """Rows to a batch: what the model reads, `labels`, `seq_lengths`, and the rows' own `columns` as tensors.

    `apart`: second sequences are a batch of their own, `second`, because they are read at another time.
    """

    flat: bool
    padding: int
    columns: tuple[str, ...] = ()
    apart: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The batch."""
        places = [_sequences(row) for row in rows]
        first, *rest = ([place[number] for place in places] for number in range(len(places[0])))
        if self.apart:
            batch = {**self._batch(first), "second": self._batch(rest[0])}
        else:
            batch = self._batch([sequence for part in (first, *rest) for sequence in part])
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in self.columns if name in rows[0]}

    def _batch(self, sequences: list[tuple[Any, Any]]) -> dict[str, Any]:
        ids, labels = [ids for ids, _ in sequences], [labels for _, labels in sequences]
        lengths = [len(each) for each in ids]
        if self.flat:
            positions = torch.cat([torch.arange(length) for length in lengths])[None]
            model = {"input_ids": torch.cat(ids)[None], "position_ids": positions}
            return {**model, "labels": torch.cat(labels)[None], "seq_lengths": lengths}
        mask = [torch.ones(length, dtype=torch.long) for length in lengths]
        model = {"input_ids": self._padded(ids, self.padding), "attention_mask": self._padded(mask, 0)}
        return {**model, "labels": self._padded(labels, IGNORED), "seq_lengths": lengths}

    @staticmethod
    def _padded(values: list[Any], filler: int) -> Any:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filler)


def _sequences(row: Row) -> list[tuple[Any, Any]]:
    """Ids and labels of each sequence of a row."""
    lengths = row.get("seq_lengths") or [len(row["input_ids"])]
    ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
    return list(zip(ids.split(lengths), labels.split(lengths), strict=True))


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What the model reads of a batch."""
    return {name: batch[name] for name in MODEL_INPUTS if name in batch}


def sums(values: Any, batch: dict[str, Any]) -> Any:
    """One sum a sequence of values that stand at each token but the first of a line (`[lines, tokens - 1]`)."""
    if "attention_mask" in batch:
        return values.sum(1)
    # The value before a sequence's first token is nothing: that token is never trained.
    parts = torch.nn.functional.pad(values[0], (1, 0)).split(batch["seq_lengths"])
    return torch.stack([part.sum() for part in parts])


def answer_table(values: Any, batch: dict[str, Any]) -> Any:
    """Values that stand at each token but the first of a line, of the answers alone: `[answers, tokens]`, zeros behind.

    `answer_lengths` says how many tokens at each sequence's end are the answer.
    """
    aligned = torch.nn.functional.pad(values, (1, 0))
    lines = aligned if "attention_mask" in batch else aligned[0].split(batch["seq_lengths"])
    ends = zip(lines, batch["seq_lengths"], batch["answer_lengths"], strict=True)
    return torch.nn.utils.rnn.pad_sequence(
        [line[length - answer : length] for line, length, answer in ends], batch_first=True
    )


def last_of_each(values: Any, batch: dict[str, Any]) -> Any:
    """The value at each sequence's last token, of values that stand at every token (`[lines, tokens, ...]`)."""
    lengths = torch.tensor(batch["seq_lengths"], device=values.device)
    if "attention_mask" in batch:
        return values[torch.arange(len(lengths), device=values.device), lengths - 1]
    return values[0, lengths.cumsum(0) - 1]


def trained_tokens(batch: dict[str, Any]) -> Any:
    """How many tokens each sequence is trained on."""
    return sums((batch["labels"][:, 1:] != IGNORED).float(), batch)
