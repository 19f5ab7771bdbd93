"""Give the servers' places back where only some of them find one, before the trainer's pods are made.

As with an attempt's pods (`regroup`), `retryTime` in the servers' record means that none of them may exist; it is
written before any is deleted. Not here: when to give back (`gang`), and taking them down (`rollout`).
"""

from collections.abc import Sequence
from datetime import datetime

from anneal_api.conditions import ConditionType, Reason
from anneal_api.status import RolloutReport
from anneal_operator import gang
from anneal_operator.draft import Draft
from anneal_operator.kinds import format_time, parse_time
from anneal_operator.servers import Server

READY = ConditionType.ROLLOUT_READY


def made_again_at(draft: Draft) -> datetime | None:
    """When servers that were given back are due; None if they are, or none were."""
    report: RolloutReport | None = draft.value("rollout")
    again = parse_time(report.retry_time) if report else None
    return again if again is not None and again > draft.world.now else None


def stay_away(draft: Draft, again: datetime) -> None:
    """They were given back: the sentence that was written then stays, as long as it is there."""
    draft.wake_at(again)
    if draft.reason(READY) != Reason.SCHEDULING_TIMEOUT:
        words = f"the servers were given back, as not all found a place; they are made again at {format_time(again)}"
        draft.set(READY, "False", Reason.SCHEDULING_TIMEOUT, words)


def give_back_in_time(draft: Draft, report: RolloutReport, found: Sequence[Server], wanted: int) -> bool:
    """Record that the servers give their places back, if a part of them has held some for too long; else say when."""
    timeout = draft.plan.spec.run_policy.scheduling_timeout_seconds
    # One that is deleted may be on a node that is off, where it never ends; another one is made for it.
    standing = gang.standing([each.pod for each in found if not each.pod.deleting], wanted)
    due = gang.due(standing, timeout)
    if due is None:
        return False
    if draft.world.now < due:
        words = gang.warning(standing, due, "server")
        draft.set(READY, "False", Reason(draft.reason(READY)), f"{draft.message(READY)}; {words}")
        draft.wake_at(due)
        return False
    times = (report.unplaced or 0) + 1
    again = draft.world.now + gang.retry_after(draft.plan.uid, times)
    draft.fields["rollout"] = report.model_copy(update={"unplaced": times, "retry_time": format_time(again)})
    message = gang.given_back(standing, timeout, again, "server")
    draft.set(READY, "False", Reason.SCHEDULING_TIMEOUT, message)
    draft.tell(Reason.SCHEDULING_TIMEOUT, message, warning=True)
    # They are deleted by the next pass, when the record is safe.
    draft.wake_at(draft.world.now)
    return True
