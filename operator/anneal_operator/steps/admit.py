"""Admit: whether the job may have its GPUs now. Owns `Admitted`.

A job without a queue is admitted at once: then only the scheduler decides when its pods find a place.
"""

from anneal_api.conditions import ConditionType, Reason
from anneal_operator.draft import Draft

ADMITTED = ConditionType.ADMITTED


def admit(draft: Draft) -> bool:
    """Take in what the queue says; True, as an attempt that is under way is followed in any case."""
    draft.set(ADMITTED, "True", Reason.NOT_QUEUED, "the job names no queue")
    return True
