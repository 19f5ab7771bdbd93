"""From what is so to what shall be done: the ordered steps, most of which own one condition. Pure and level-based.

It needs no memory of events: any number of them lost or repeated leads to the same decision, and so does a restart.
Not here: carrying anything out (`controller`).
"""

from collections.abc import Callable, Iterable

from anneal_api.conditions import ConditionType, Reason
from anneal_operator import draft as drafts
from anneal_operator import summary
from anneal_operator.draft import Draft
from anneal_operator.kinds import is_deleting
from anneal_operator.steps.accept import accept
from anneal_operator.steps.admit import admit, withdraw
from anneal_operator.steps.common import trains
from anneal_operator.steps.finish import finish
from anneal_operator.steps.fit import fit
from anneal_operator.steps.origin import origin
from anneal_operator.steps.prepare import prepare
from anneal_operator.steps.preview import keep_preview
from anneal_operator.steps.rollout import rollout, take_down
from anneal_operator.steps.train import train
from anneal_operator.world import Decision, World

# Each returns whether the next one has anything to do. Before the last of the first ones is done, nothing queues.
BEFORE_THE_QUEUE = (accept, origin, keep_preview, prepare, fit)
STEPS = (admit, rollout, train, finish)


def reconcile(world: World) -> Decision:
    """Decide what to do about one job."""
    if is_deleting(world.job):
        # Garbage collection removes the children; nothing here holds the object up.
        return Decision()
    draft = drafts.begin(world)
    if is_over(draft):
        finish(draft)
    else:
        _reopen(draft)
        if _all(BEFORE_THE_QUEUE, draft):
            _all(STEPS, draft)
        else:
            if not trains(draft):
                take_down(draft, "something else is to be mended first")
            withdraw(draft)
            if draft.is_true(ConditionType.FAILED):
                # What follows an end is the next pass's.
                draft.wake_at(draft.world.now)
    summary.fill(draft)
    return draft.decision()


def _all(steps: Iterable[Callable[[Draft], bool]], draft: Draft) -> bool:
    """One step after the other, as far as they go."""
    return all(step(draft) for step in steps)


def is_over(draft: Draft) -> bool:
    """Whether the job has ended for good.

    A job that failed before its first attempt may be corrected and starts anew; its spec can still change then.
    """
    if draft.is_true(ConditionType.SUCCEEDED):
        return True
    if not draft.is_true(ConditionType.FAILED):
        return False
    corrected = not draft.attempts and draft.old.observed_generation < draft.generation
    return not corrected


def _reopen(draft: Draft) -> None:
    if draft.is_true(ConditionType.FAILED):
        draft.reopened = True
        draft.set(ConditionType.FAILED, "False", Reason.IN_PROGRESS)
        draft.fields["completion_time"] = None
