"""KTO's baseline: every answer gets, as a second sequence, its prompt with the answer of another row behind it.

How likely such answers are, against the reference, is the point from which gains and losses are counted (z0 of
arXiv 2402.01306, section 4.1). The other row is drawn once, over the whole split and by the seed: then the baseline
does not depend on batches or processes. Pure, over numbers. Not here: writing them (`store`).
"""

from typing import Any

from anneal_trainer.data.pieces import IGNORED


def partners(rows: Any, seed: int) -> Any:
    """For each row another one: the next on a circle through all of them in random order."""
    import numpy as np

    # RandomState: its stream is frozen, so that the same seed draws the same partners under any numpy.
    circle = np.random.RandomState(seed).permutation(len(rows))
    found = np.empty_like(rows)
    found[circle] = rows[np.roll(circle, -1)]
    return found


def spliced(ids: Any, labels: Any, lengths: Any, most: int) -> tuple[Any, Any, Any]:
    """Of sequences in twos, a row and its partner: the row, and its prompt with the partner's answer, cut to `most`."""
    import numpy as np

    ends = np.cumsum(lengths)
    rows = [(ids[end - size : end], labels[end - size : end]) for end, size in zip(ends, lengths, strict=True)]
    parts = []
    for (own, judged), (other, answer) in zip(rows[::2], rows[1::2], strict=True):
        prompt, begins = int(np.argmax(judged != IGNORED)), int(np.argmax(answer != IGNORED))
        made = np.concatenate([own[:prompt], other[begins:]])[:most]
        marked = np.concatenate([np.full(prompt, IGNORED, dtype=labels.dtype), other[begins:]])[:most]
        parts += [(own, judged), (made, marked)]
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.array([len(part[0]) for part in parts], dtype=lengths.dtype),
    )
