"""Admit: whether the job may have its GPUs now. Owns `Admitted` and `status.queue`.

A job without a queue is admitted at once. One with a queue has one Workload of Kueue's, which asks for all of its pods
together and lives across attempts; pods are made while it is admitted, and at no other time. When Kueue takes the quota
back, the attempt is stopped, and only when no pod is left the quota is given back and the job waits again.
Not here: stopping and making pods (`train`), Kueue's own terms (`kueue`), what a wait is told as (`queue_words`).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.status import QueueReport
from anneal_api.words import counted
from anneal_operator import kueue
from anneal_operator.attempts import Again, Evidence
from anneal_operator.draft import Draft
from anneal_operator.kinds import WORKLOAD, Obj, format_time, is_deleting, name_of, parse_time
from anneal_operator.kueue import WorkloadView
from anneal_operator.manifests import workload as manifest
from anneal_operator.steps import queue_words
from anneal_operator.steps.common import RETRY, holds, trains, upcoming
from anneal_operator.steps.unplaced import made_again_at
from anneal_operator.world import Amendment, Doomed

ADMITTED = ConditionType.ADMITTED
# A wait that is longer than this holds no quota.
LONG_WAIT = timedelta(seconds=60)
# Kueue writes nothing onto a Workload that asks for what it has just refused to another one: nobody tells of its place.
KUEUE_MAY_BE_SILENT = timedelta(seconds=5)
# With Kueue's types go its objects, one after the other.
KUEUE_MAY_BE_LEAVING = timedelta(seconds=15)
MISSING = (
    "this cluster has no Kueue (kueue.x-k8s.io/v1beta2): install it, or leave spec.queue out; "
    "the job goes on by itself then"
)


def admit(draft: Draft) -> bool:
    """Take in what the queue says; True, as an attempt that is under way is followed in any case."""
    draft.pause = _long_pause(draft)
    if draft.plan.spec.queue is None:
        _leave_queue(draft)
        draft.set(ADMITTED, "True", Reason.NOT_QUEUED, "the job names no queue")
        return True
    if draft.world.queue is None or not draft.world.queue.served:
        _without_kueue(draft)
        return True
    workload = own_workload(draft)
    draft.own(workload=draft.plan.base)
    if workload is None or workload.deleting:
        _without_workload(draft, workload)
    elif draft.plan.spec.run_policy.suspend and not holds(draft):
        _take_back(draft, workload)
    elif not workload.active or _is_to_go(draft, workload):
        _evicted(draft, workload)
    elif _is_outdated(draft, workload) and holds(draft):
        _hold(draft, Reason.WAITING_FOR_QUOTA, "queues again for what it asks for now when its servers have ended")
    elif _is_outdated(draft, workload) or (draft.pause is not None and not holds(draft)):
        _take_back(draft, workload)
    elif workload.admitted:
        _admitted(draft, workload)
    else:
        _waits(draft, workload)
    return True


def _is_to_go(draft: Draft, workload: WorkloadView) -> bool:
    """Whether pods or quota are still to be given back. Kueue calls it evicted until it is admitted again."""
    return (workload.evicted is not None and workload.reserved) or (not workload.admitted and holds(draft))


def withdraw(draft: Draft) -> None:
    """Something else has to be mended first: a job that holds no pod takes no place in a queue, and no quota."""
    if not holds(draft):
        _leave_queue(draft)
        draft.set(ADMITTED, "False", Reason.NOT_STARTED)


def _long_pause(draft: Draft) -> datetime | None:
    """When the next pods are due, if that is so far away that the job should hold no quota until then."""
    again, attempt = upcoming(draft), draft.attempts[-1] if draft.attempts else None
    due = again.after if isinstance(again, Again) else None
    if attempt is not None and attempt.end_time is None:
        due = parse_time(attempt.retry_time)
    due = max(filter(None, (due, made_again_at(draft))), default=None)
    return due if due is not None and due - draft.world.now > LONG_WAIT else None


def own_workload(draft: Draft) -> WorkloadView | None:
    """The job's Workload, if it is there."""
    found = draft.world.children.workloads
    return next((kueue.view(obj) for obj in found if name_of(obj) == draft.plan.base), None)


def _leave_queue(draft: Draft) -> None:
    """Nothing is asked of a queue. One that the spec names stays in the status: it may be another one from now on."""
    # Of a spec of any validity.
    named = (draft.world.job.get("spec") or {}).get("queue")
    draft.fields["queue"] = QueueReport(name=named) if named else None
    draft.own(workload=None)
    draft.delete += [Doomed(WORKLOAD, obj) for obj in draft.world.children.workloads if not is_deleting(obj)]


def _hold(draft: Draft, reason: Reason, message: str) -> None:
    """No pod may be made now."""
    draft.may_start = False
    draft.set(ADMITTED, "False", reason, message)


def _without_kueue(draft: Draft) -> None:
    """Nobody can admit or evict: what runs goes on, what does not waits."""
    draft.wake_at(draft.world.now + RETRY)
    if trains(draft):
        words = "Kueue is gone since the job was admitted: the attempt goes on"
        draft.set(ADMITTED, "Unknown", Reason.WAITING_FOR_KUEUE, words)
        return
    draft.fields["queue"] = QueueReport(name=str(draft.plan.spec.queue))
    _hold(draft, Reason.WAITING_FOR_KUEUE, MISSING)


def _without_workload(draft: Draft, leaving: WorkloadView | None) -> None:
    """None was made yet, or somebody deleted it, and its quota with it."""
    draft.fields["queue"] = QueueReport(name=str(draft.plan.spec.queue))
    if holds(draft):
        _lost(draft)
    elif draft.pause is not None:
        _pauses(draft, draft.pause)
    elif draft.plan.spec.run_policy.suspend:
        _hold(draft, Reason.SUSPENDED, "a suspended job does not queue")
    elif leaving is not None:
        _hold(draft, Reason.WAITING_FOR_QUOTA, "its former Workload is being removed")
    else:
        _enqueue(draft)


def _lost(draft: Draft) -> None:
    """Its Workload was deleted: by a person, or since Kueue is being removed, which is known only a little later."""
    words = f"Workload {draft.plan.base} was deleted, and its quota with it"
    _hold(draft, Reason.EVICTED, f"{words}; the job queues again when its pods have ended")
    since = parse_time(draft.conditions[ADMITTED].last_transition_time)
    assert since is not None, "set just now"
    if draft.world.now < since + KUEUE_MAY_BE_LEAVING:
        draft.wake_at(since + KUEUE_MAY_BE_LEAVING)
    else:
        draft.eviction = Evidence(Outcome.EVICTED, "WorkloadDeleted", words)


def _enqueue(draft: Draft) -> None:
    made = _wanted(draft)
    if refusal := draft.world.refusals.get(name_of(made)):
        _hold(draft, refusal.reason, refusal.message)
        draft.wake_at(draft.world.now + RETRY)
        return
    draft.apply.append(made)
    draft.wake_at(draft.world.now + KUEUE_MAY_BE_SILENT)
    _hold(draft, Reason.WAITING_FOR_QUOTA, f"enters queue {draft.plan.spec.queue}")


def _wanted(draft: Draft) -> Obj:
    """The Workload that asks for what the job asks for now."""
    classes, named = draft.world.priority_classes or {}, draft.plan.spec.priority_class
    return manifest.build(draft.plan, priority=classes.get(named) if named else None)


def _pauses(draft: Draft, until: datetime) -> None:
    _hold(draft, Reason.BACKING_OFF, f"holds no quota until its pods are due again, at {format_time(until)}")
    draft.wake_at(until)


def _is_outdated(draft: Draft, workload: WorkloadView) -> bool:
    """Whether another one must take its place: the spec was edited, or Kueue will never queue this one again."""
    if trains(draft):
        return False
    differs = manifest.asks_for(workload.obj) != manifest.asks_for(_wanted(draft))
    return workload.finished or workload.stranded or differs


def _take_back(draft: Draft, workload: WorkloadView) -> None:
    """Its quota goes with it; what is asked for next is another one."""
    draft.delete.append(Doomed(WORKLOAD, workload.obj))
    draft.wake_at(draft.world.now)
    _without_workload(draft, workload)


def _evicted(draft: Draft, workload: WorkloadView) -> None:
    """Kueue wants the quota back: first the pods go, then it is given back, then the job waits again."""
    reason, message = workload.evicted or ("Evicted", "its Workload is not admitted any more")
    draft.fields["queue"] = queue_words.report(workload)
    why = f"{kueue.plain(message) or reason}{queue_words.preemptor(draft, message)}"
    if not workload.active:
        why = queue_words.deactivated(workload, reason, message)
        _hold(draft, Reason.DEACTIVATED, why)
    else:
        _hold(draft, Reason.EVICTED, f"evicted from queue {workload.queue} ({reason}): {why}")
    if holds(draft):
        draft.eviction = Evidence(Outcome.EVICTED, reason, f"evicted from queue {workload.queue}: {why}")
    elif workload.evicted and workload.reserved:
        # Of one that was only deactivated Kueue says so first: its reason tells when the job may queue again.
        draft.amend.append(Amendment(kueue.given_back(workload, now=draft.now), status=True))
        # Of its own writes nobody tells the operator: what they change is looked at again.
        draft.wake_at(draft.world.now)


def _admitted(draft: Draft, workload: WorkloadView) -> None:
    queue = draft.world.queue
    assert queue is not None, "checked by admit"
    if missing := kueue.missing_flavors(workload, queue.flavors):
        words = f"admitted in flavor {', '.join(missing)}, which does not exist any more: make the ResourceFlavor again"
        _hold(draft, Reason.WAITING_FOR_CHECKS, words)
        draft.wake_at(draft.world.now + RETRY)
        return
    _place(draft, workload, queue.flavors)
    draft.fields["queue"] = queue_words.report(workload)
    nodes, wanted = draft.placement.nodes or draft.plan.nodes, draft.plan.nodes
    fewer = f", {nodes} of {counted(wanted, 'node')}" if nodes < wanted else ""
    elsewhere = _moves_later(draft, workload)
    message = f"admitted by ClusterQueue {workload.cluster_queue}{queue_words.where(draft)}{fewer}{elsewhere}"
    if draft.reason(ADMITTED) != Reason.QUOTA_ADMITTED:
        draft.tell("Admitted", message)
    draft.set(ADMITTED, "True", Reason.QUOTA_ADMITTED, message)
    if told := kueue.told(workload, ready=_all_run(draft), nodes=nodes, now=draft.now):
        draft.amend.append(Amendment(told, status=True))


def _place(draft: Draft, workload: WorkloadView, flavors: Mapping[str, Obj]) -> None:
    """Each pod set where its own flavors are."""
    draft.placement = kueue.placement(workload, flavors, sizes=draft.plan.node_counts)
    if servers := draft.plan.rollout:
        podset, sizes = kueue.ROLLOUT_PODSET, (servers.servers,)
        draft.rollout_placement = kueue.placement(workload, flavors, sizes=sizes, podset=podset)


def _all_run(draft: Draft) -> bool:
    """Both sides, as of the pass before."""
    sides = [ConditionType.RUNNING, *([ConditionType.ROLLOUT_READY] if draft.plan.rollout else [])]
    return all(map(draft.is_true, sides))


def _moves_later(draft: Draft, workload: WorkloadView) -> str:
    """The schema refuses such a change once status knows of the quota; it may have come just before."""
    if workload.queue == draft.plan.spec.queue:
        return ""
    return f"; it moves to queue {draft.plan.spec.queue} when it gives this quota back"


def _waits(draft: Draft, workload: WorkloadView) -> None:
    report = queue_words.report(workload)
    draft.wake_at(draft.world.now + RETRY)
    if workload.queue != draft.plan.spec.queue and not workload.reserved:
        draft.amend.append(Amendment(manifest.moved(draft.plan), uid=workload.obj["metadata"]["uid"]))
        _hold(draft, Reason.WAITING_FOR_QUOTA, f"moves from queue {workload.queue} to queue {draft.plan.spec.queue}")
    elif workload.reserved:
        checks = "; ".join(workload.checks) or "Kueue's last word"
        _hold(draft, Reason.WAITING_FOR_CHECKS, f"quota is reserved; waits for {checks}{_moves_later(draft, workload)}")
    else:
        report = report.model_copy(update=queue_words.places(draft, workload))
        if report.position is None and draft.world.queue and draft.world.queue.pending is not None:
            # It was asked before Kueue had listed it.
            draft.wake_at(draft.world.now + KUEUE_MAY_BE_SILENT)
        _hold(draft, Reason.WAITING_FOR_QUOTA, queue_words.waiting(draft, workload, report))
    draft.fields["queue"] = report
