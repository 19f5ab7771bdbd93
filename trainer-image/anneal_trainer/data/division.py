"""A row that becomes several sequences: a long text in chunks behind one another, or in windows that overlap.

Pure functions of token ids. Not here: which types are divided (`formats`), and what happens to sequences that are too
long and must stay in one piece.
"""

from collections.abc import Sequence
from itertools import pairwise

from anneal_trainer.data.pieces import Tokens

# What two neighbouring windows share, at most.
MOST_OVERLAP = 256


def chunks(tokens: Tokens, length: int) -> list[Tokens]:
    """Cut every `length` tokens. If one alone would be left, the cut before it comes a token earlier.

    Nothing comes before a lone token to predict it from, and it is the EOS that ends the text.
    """
    ids, labels = tokens.input_ids, tokens.labels
    cuts = [*range(0, len(ids), length), len(ids)]
    if len(ids) > length and len(ids) % length == 1:
        cuts[-2] -= 1
    return [Tokens(ids[start:end], labels[start:end]) for start, end in pairwise(cuts)]


def windows(ids: Sequence[int], length: int, *, start: Sequence[int], eos: int | None) -> list[Tokens]:
    """Windows of at most `length` tokens over the body `ids`, each with the start tokens and an EOS of its own.

    Neighbours share min(256, (length - 1) // 2) tokens, so that what a cut tears apart is whole in one of the two.
    """
    room = length - len(start) - (eos is not None)
    overlap = min(MOST_OVERLAP, (length - 1) // 2)
    if room <= overlap:
        raise ValueError(f"windows of {length} tokens leave no room for text: {len(start)} start tokens and EOS")
    last = list(ids[:0]) if eos is None else [eos]
    found = []
    for first in range(0, len(ids), room - overlap):
        window = [*start, *ids[first : first + room], *last]
        found.append(Tokens(window, list(window)))
        if first + room >= len(ids):
            break
    return found
