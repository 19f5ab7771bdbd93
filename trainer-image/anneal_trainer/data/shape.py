"""From token ids to what is kept of them, a batch at a time and without a loop over tokens: cut, judged, counted.

Labels are judged as training will see them: the first token of a sequence is nobody's prediction, so a label there
trains nothing. A cut never leaves a row without its whole answer: such a row is dropped, with a reason of its own.
Not here: tokenizing (`encode`) and decisions that need more than one row (`decide`).
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

from anneal_trainer.data.pieces import IGNORED, Tokens

# Why a row is not trained on: the words of `status.dataset.dropped`.
BAD, MASKED, CUT_OFF, TOO_LONG = "bad", "masked", "answerCutOff", "tooLong"
KEPT = ""
_REASONS = (KEPT, MASKED, CUT_OFF, TOO_LONG)


@dataclass(frozen=True)
class Limits:
    """The longest sequence, and what becomes of a longer row.

    `untrained`: rows are kept without a token to train on. `field`: what the bound is called in messages.
    """

    most: int
    long_rows: str
    untrained: bool = False
    field: str = "training.sequenceLength"


@dataclass(frozen=True)
class Flat:
    """Sequences one after another: `starts` has one entry more than there are; `row` says whose each one is."""

    ids: Any
    labels: Any
    starts: Any
    row: Any

    @classmethod
    def of(cls, rows: list[list[Tokens]]) -> "Flat":
        """The sequences of each row. OverflowError if a number fits no machine integer."""
        import numpy as np

        parts = [part for sequences in rows for part in sequences]
        lengths = np.fromiter((len(part.input_ids) for part in parts), dtype=np.int64, count=len(parts))
        total = int(lengths.sum())
        ids, labels = (
            np.fromiter(chain.from_iterable(column), dtype=np.int64, count=total)
            for column in ((part.input_ids for part in parts), (part.labels for part in parts))
        )
        row = np.repeat(np.arange(len(rows)), [len(sequences) for sequences in rows])
        return cls(ids, labels, np.concatenate(([0], np.cumsum(lengths))), row)

    def valid(self, vocabulary: int) -> bool:
        """Whether every id and label is in the vocabulary."""
        ids, labels = self.ids, self.labels
        return bool(
            ((ids >= 0) & (ids < vocabulary)).all()
            and ((labels == IGNORED) | ((labels >= 0) & (labels < vocabulary))).all()
        )


@dataclass(frozen=True)
class Shaped:
    """A batch judged: for each row its reason, and whether it is cut; for each sequence its row and its bounds."""

    reasons: list[str]
    cut: Any
    row: Any
    start: Any
    end: Any
    trained: Any


def shape(flat: Flat, rows: int, limits: Limits) -> Shaped:
    """Cut every sequence to the limits, and find what is left to train on. A row is longer if one of its own is."""
    import numpy as np

    start, whole_end = flat.starts[:-1], flat.starts[1:]
    end = np.minimum(start + limits.most, whole_end)
    counted = np.concatenate(([0], np.cumsum(flat.labels != IGNORED)))
    second = np.minimum(start + 1, whole_end)
    trained = counted[end] - counted[np.minimum(second, end)]

    def of_rows(values: Any) -> Any:
        return np.bincount(flat.row, weights=values, minlength=rows) > 0

    long = of_rows(whole_end > end)
    masked, nothing_left = ~of_rows(counted[whole_end] - counted[second]), ~of_rows(trained)
    too_long = long & (limits.long_rows != "truncate")
    if limits.untrained:
        masked, nothing_left = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    code = np.select([masked, too_long, nothing_left], [1, 3, 2], 0)
    keep = (code[flat.row] == 0) & ((trained > 0) | limits.untrained)
    return Shaped(
        reasons=[_REASONS[number] for number in code.tolist()],
        cut=long & (code == 0),
        row=flat.row[keep],
        start=start[keep],
        end=end[keep],
        trained=trained[keep],
    )
