"""The number of tokens of an answer: 1 between two bounds, and in a straight line to 0 outside them.

0 is reached at no token below the bounds, and at twice `most` above them.
"""

import math

from anneal_api.online import LengthReward
from anneal_trainer.rewards.scoring import Scorer


def scorer(reward: LengthReward) -> Scorer:
    """Of these bounds."""
    least, most = reward.least or 0, reward.most or math.inf
    return lambda batch: [trapezoid(length, least, most) for length in batch.lengths]


def trapezoid(length: int, least: float, most: float) -> float:
    """The score of one length.

    >>> [trapezoid(length, 10, 20) for length in (0, 5, 10, 20, 25, 40, 99)]
    [0.0, 0.5, 1.0, 1.0, 0.75, 0.0, 0.0]
    """
    if length < least:
        return length / least
    return max(0.0, 1 - max(0, length - most) / most)
