"""`completion` and `pretrain`: a text, all of it trained.

A text longer than a sequence becomes several, nothing of it lost: `completion` cuts behind every sequence and ends the
last with EOS; `pretrain` makes windows that overlap, each with its own start tokens and EOS.

Where this differs from Axolotl, on purpose: no text is cut at 64 sequences, and a last chunk of one token, which
trains nothing, is left out.
"""

from anneal_trainer.data.formats.values import Columns, Row
from anneal_trainer.data.pieces import Text, trained


def completion(row: Row, columns: Columns) -> Text:
    """One row of `completion`."""
    return Text((trained(columns.text(row, "text")),), starts=True, ends=True, division="chunks")


def pretrain(row: Row, columns: Columns) -> Text:
    """One row of `pretrain`. Each window gets its EOS where it is cut."""
    return Text((trained(columns.text(row, "text")),), starts=True, division="windows")
