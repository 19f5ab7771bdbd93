"""Give an attempt's places back and take them again later, all of them, under the same number.

`retryTime` in the attempt's record means that nothing of it may exist: it is written before anything is deleted, and
taken out before anything is made again, so that a crash between any two effects is only a pause. How the pods end that
are given back says nothing about the attempt. Servers have their places before the trainer's pods are made, and give
them back with these. Not here: when to give back (`gang`), and taking servers down (`rollout`).
"""

from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.status import Attempt
from anneal_operator import engine, gang
from anneal_operator.attempts import Evidence
from anneal_operator.draft import Draft
from anneal_operator.gang import Standing
from anneal_operator.kinds import format_time, meta, parse_time
from anneal_operator.servers import servers
from anneal_operator.steps.scene import Scene
from anneal_operator.world import Doomed

RUNNING = ConditionType.RUNNING
# What a pod shows that is stopped from outside.
_BY_STOPPING = frozenset({Outcome.INFRASTRUCTURE, Outcome.PREEMPTED, Outcome.NODE_LOST})


def reconsidered(draft: Draft, attempt: Attempt, now: Scene) -> Attempt:
    """An attempt that was to give its places back and has found all of them before anything was deleted goes on."""
    untouched = now.engine.exists and not now.engine.deleting
    if attempt.retry_time is None or not (untouched and standing(draft, now).whole):
        return attempt
    return attempt.model_copy(update={"retry_time": None, "unplaced": (attempt.unplaced or 0) - 1 or None})


def standing(draft: Draft, now: Scene) -> Standing:
    """What the attempt's pods and the job's servers have found, since both are wanted."""
    rollout = draft.plan.rollout
    if rollout is None:
        return gang.standing(now.pods, now.nodes)
    begun = parse_time(meta(now.obj).get("creationTimestamp")) if now.obj else None
    beside = [each.pod for each in servers(draft.world.children.pods) if not each.pod.deleting]
    return gang.standing([*now.pods, *beside], now.nodes + rollout.servers, begun=begun)


def telling(attempt: Attempt, evidence: Evidence | None) -> Evidence | None:
    """Evidence that is not just the pods' being given back."""
    if attempt.retry_time and evidence and evidence.outcome in _BY_STOPPING:
        return None
    return evidence


def give_back_in_time(draft: Draft, attempt: Attempt, now: Scene) -> bool:
    """Record that the attempt gives its places back, if it has held a part of them for too long."""
    if attempt.running_time is not None:
        return False
    found, timeout = standing(draft, now), draft.plan.spec.run_policy.scheduling_timeout_seconds
    due = gang.due(found, timeout)
    if due is None or draft.world.now < due:
        return False
    times = (attempt.unplaced or 0) + 1
    again = draft.world.now + gang.retry_after(draft.plan.uid, times)
    draft.attempts[-1] = attempt.model_copy(update={"unplaced": times, "retry_time": format_time(again)})
    message = gang.given_back(found, timeout, again)
    draft.set(RUNNING, "False", Reason.SCHEDULING_TIMEOUT, message)
    draft.tell(Reason.SCHEDULING_TIMEOUT, message, warning=True)
    # The object is deleted by the next pass, when the record is safe.
    draft.wake_at(draft.world.now)
    return True


def warn(draft: Draft, attempt: Attempt, now: Scene) -> None:
    """Say when the places would be given back, after why the others are waited for, and look again then."""
    found = standing(draft, now)
    due = gang.due(found, draft.plan.spec.run_policy.scheduling_timeout_seconds)
    if attempt.running_time is not None or due is None:
        return
    message = f"{draft.message(RUNNING)}; {gang.warning(found, due)}"
    draft.set(RUNNING, "False", Reason(draft.reason(RUNNING)), message)
    draft.wake_at(due)


def regroup(draft: Draft, attempt: Attempt, now: Scene) -> None:
    """See to it that nothing is left of what was given back, and begin again when its time has come."""
    if now.obj is not None and not now.engine.deleting:
        draft.delete.append(Doomed(engine.KIND, now.obj))
        draft.wake_at(draft.world.now)
    again = parse_time(attempt.retry_time)
    assert again is not None
    # Ended pods too: their names are taken, and how they ended must not be told of the new ones.
    beside = [each.pod for each in servers(draft.world.children.pods)]
    left = [pod.name for pod in (*now.pods, *beside) if not pod.gone]
    if draft.world.now < again:
        draft.wake_at(again)
        _explain(
            draft, f"the pods were given back, as not all found a place; they are made again at {format_time(again)}"
        )
    elif now.engine.exists or left:
        what = ", ".join(left) or "their PyTorchJob"
        _explain(
            draft, f"the pods were given back, as not all found a place; they are made again when {what} has ended"
        )
    else:
        draft.attempts[-1] = attempt.model_copy(update={"retry_time": None})
        draft.set(RUNNING, "False", Reason.STARTING, f"attempt {attempt.number} is being started again")
        draft.wake_at(draft.world.now)


def _explain(draft: Draft, otherwise: str) -> None:
    """The sentence that was written when they were given back says more, as long as it is there."""
    known = draft.reason(RUNNING) == Reason.SCHEDULING_TIMEOUT
    message = draft.message(RUNNING) if known else otherwise
    draft.set(RUNNING, "False", Reason.SCHEDULING_TIMEOUT, message)
