"""Batches of packs: what a model needs to see several rows in one sequence without mixing them, and nothing more.

Positions begin again with each row, and there is no attention mask: from that, and only with the cache off, models
build masks that end at a row's borders. FlashAttention reads positions of one flat sequence alone, so there a batch is
laid end to end; elsewhere that would cost the square of the whole, so packs stay apart and are padded.
Imported late: it needs torch. Not here: which rows share a pack (`data.packing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from anneal_trainer.data.pieces import IGNORED

Pack = dict[str, list[int]]


@dataclass(frozen=True)
class PackCollator:
    """Packs, rows of `input_ids`, `labels` and `seq_lengths`, to one batch."""

    flat: bool
    padding: int

    def __call__(self, packs: Sequence[Pack]) -> dict[str, Any]:
        """The batch."""
        columns = {
            "input_ids": ([torch.tensor(pack["input_ids"]) for pack in packs], self.padding),
            "labels": ([torch.tensor(pack["labels"]) for pack in packs], IGNORED),
            # Padding at position 0 is, token for token, a row of its own: no row sees it, and it sees none.
            "position_ids": ([positions(pack["seq_lengths"]) for pack in packs], 0),
        }
        return {name: self._joined(values, filler) for name, (values, filler) in columns.items()}

    def _joined(self, values: list[Any], filler: int) -> Any:
        if self.flat:
            return torch.cat(values)[None]
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filler)


def positions(lengths: list[int]) -> Any:
    """0, 1, 2, ... for each row of a pack."""
    return torch.cat([torch.arange(length) for length in lengths])


def collator_for(model: Any, tokenizer: Any) -> PackCollator:
    """The collator that suits the model's attention."""
    return PackCollator(flat="flash" in model.config._attn_implementation, padding=tokenizer.pad_token_id)  # noqa: SLF001 - the only place where the library says which it took
