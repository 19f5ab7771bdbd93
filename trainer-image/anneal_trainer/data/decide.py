"""The second pass: which rows are trained on, which are measured, and how they share sequences. Pure, over numbers.

In this order: equal rows, rows that are alike, the holdout, the mixture, the packs. So no training row repeats an
evaluation row once duplicates are dropped, and sampling with replacement never puts copies on both sides.
Not here: decisions about one row alone (`shape`), and tokens.
"""

from dataclasses import dataclass
from typing import Any

from anneal_api.evaluation import EvaluationBase
from anneal_api.words import counted
from anneal_trainer.errors import DataError

DUPLICATE, NEAR, LEAKED, UNSAMPLED = "duplicate", "nearDuplicate", "inEvaluation", "notSampled"


@dataclass(frozen=True)
class Columns:
    """Facts of all rows: the number of its dataset, the digest of its tokens, its place in the order of preference."""

    entry: Any
    digest: Any
    measured: Any

    @property
    def preferred(self) -> Any:
        """All rows, those that are measured first: of equal rows the first is kept."""
        import numpy as np

        return np.concatenate([np.flatnonzero(self.measured), np.flatnonzero(~self.measured)])


def repeats(columns: Columns) -> tuple[Any, Any]:
    """For each row whether an equal one comes before it, and whether that one is measured while it is trained on."""
    import numpy as np

    rank = np.empty(len(columns.entry), dtype=np.int64)
    rank[columns.preferred] = np.arange(len(rank))
    order = np.lexsort((rank, columns.digest[:, 1], columns.digest[:, 0]))
    same = (columns.digest[order[1:]] == columns.digest[order[:-1]]).all(axis=1)
    leads = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(order)), 0))
    repeated, leaked = np.zeros(len(order), dtype=bool), np.zeros(len(order), dtype=bool)
    later = np.flatnonzero(np.concatenate(([False], same)))
    repeated[order[later]] = True
    leaked[order[later]] = columns.measured[order[leads[later]]] & ~columns.measured[order[later]]
    return repeated, leaked


def held_out(rows: Any, evaluation: EvaluationBase | None, seed: int) -> Any:
    """The rows that are held out: the same for the same rows and seed."""
    import random

    import numpy as np

    if evaluation is None or evaluation.holdout is None:
        return np.zeros(0, dtype=np.int64)
    holdout, total = evaluation.holdout, len(rows)
    count = holdout.count if holdout.count is not None else max(1, round(total * (holdout.fraction or 0)))
    if count >= total:
        raise DataError(
            f"evaluation.holdout would keep {count:,} of {counted(total, 'row')} out of training and leave none: "
            "make it smaller"
        )
    chosen = random.Random(seed).sample(range(total), count)  # noqa: S311 - a reproducible choice, not a secret
    return rows[np.sort(np.asarray(chosen, dtype=np.int64))]


def mixed(rows: Any, entry: Any, weights: list[float | None], *, replace: bool, seed: int) -> Any:
    """The rows of each dataset by its weight, in the order in which they were read; all of them without weights."""
    import numpy as np

    if weights[0] is None:
        return rows
    groups = [rows[entry[rows] == number] for number in range(len(weights))]
    empty = [number for number, group in enumerate(groups) if not len(group)]
    if empty:
        raise DataError(f"datasets[{empty[0]}] has a weight, but none of its rows can be trained on")
    shares = np.asarray(weights, dtype=float) / sum(weight or 0 for weight in weights)
    sizes = np.asarray([len(group) for group in groups])
    total = sizes.sum() if replace else np.min(sizes / shares)
    # RandomState: its stream is frozen, so that the same seed draws the same rows under any numpy.
    random = np.random.RandomState(seed)
    counts = [max(1, round(total * share)) for share in shares]
    drawn = [
        random.choice(group, count, replace=True) if replace else random.permutation(group)[:count]
        for group, count in zip(groups, counts, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def trained_too(digest: Any, train: Any, measured: Any) -> Any:
    """The measured rows that are equal to one that is trained on. Half a digest is enough to tell: it is 64 bits."""
    import numpy as np

    return measured[np.isin(digest[measured, 0], digest[train, 0])]


def sequences_of(rows: Any, pieces: Any) -> Any:
    """The sequences of these rows, in order."""
    import numpy as np

    first = np.cumsum(pieces) - pieces
    counts = pieces[rows]
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first[rows], counts) + nth
