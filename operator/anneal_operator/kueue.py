"""A Kueue Workload as the steps see it, and the changes of its status that its owner owes Kueue. Pure.

Kueue decides about a Workload and says so in its conditions; whoever owns the pods must stop them when it is evicted,
only then give its quota back, and tell when pods are ready and when all is over (Kueue v0.19,
pkg/controller/jobframework/reconciler.go). Not here: what follows for the job (`steps.admit`), and any request.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from anneal_operator.kinds import Obj, is_deleting, meta, name_of, parse_time, true_condition
from anneal_operator.placement import Placement

PODSET, ROLLOUT_PODSET = "trainer", "rollout"
# Kueue queues a Workload again by itself after these; after others it waits for what its own controllers say.
_QUEUES_AGAIN = frozenset({"Preempted", "NodeFailures"})
# The reason of an eviction by which Kueue itself deactivates: a rejected admission check, too many tries.
BY_KUEUE = "DeactivatedDueTo"
MESSAGE_LIMIT = 32 * 1024


@dataclass(frozen=True)
class Pending:
    """A Workload that waits, as Kueue's visibility API lists it; places count from 0."""

    name: str
    place: int
    place_in_cluster_queue: int


@dataclass(frozen=True)
class QueueFacts:
    """What was read about a job's queue. `served` is False where the cluster has no Kueue."""

    served: bool = True
    local_queue: Obj | None = None
    # The other LocalQueues of the namespace, for a message.
    others: tuple[str, ...] = ()
    cluster_queue: Obj | None = None
    flavors: Mapping[str, Obj] = field(default_factory=dict)
    # Those that wait in the LocalQueue; None where the visibility API cannot say.
    pending: tuple[Pending, ...] | None = None


@dataclass(frozen=True)
class WorkloadView:
    """One Workload."""

    obj: Obj
    queue: str
    cluster_queue: str | None
    deleting: bool
    active: bool
    reserved: bool
    admitted: bool
    finished: bool
    # Reason and message, from when Kueue wants the pods gone until it reserves quota again.
    evicted: tuple[str, str] | None
    # Why it waits, in Kueue's words.
    waits: str
    # Somebody made it active again after Kueue itself had deactivated it, after which Kueue never queues it.
    stranded: bool
    since: datetime | None
    checks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return name_of(self.obj)


def view(obj: Obj) -> WorkloadView:
    """Read a Workload."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    admission = status.get("admission") or {}
    evicted, reserved = true_condition(obj, "Evicted"), true_condition(obj, "QuotaReserved")
    admitted = true_condition(obj, "Admitted")
    waiting = _condition(obj, "QuotaReserved")
    return WorkloadView(
        obj=obj,
        queue=str(spec.get("queueName", "")),
        cluster_queue=admission.get("clusterQueue"),
        deleting=is_deleting(obj),
        active=spec.get("active", True) is not False,
        reserved=reserved is not None,
        admitted=admitted is not None,
        finished=true_condition(obj, "Finished") is not None,
        evicted=_why_evicted(evicted) if evicted else None,
        waits=plain(str(waiting.get("message", ""))) if not reserved else "",
        stranded=not reserved and _is_stranded(obj),
        since=_since(obj, admitted or reserved),
        checks=tuple(_checks(status.get("admissionChecks") or [])),
    )


def _condition(obj: Obj, kind: str) -> Obj:
    conditions = (obj.get("status") or {}).get("conditions") or []
    found: Obj = next((each for each in conditions if each.get("type") == kind), {})
    return found


def _is_stranded(obj: Obj) -> bool:
    again = _condition(obj, "Requeued")
    return again.get("status") == "False" and str(again.get("reason", "")).startswith(BY_KUEUE)


def plain(message: str) -> str:
    """Kueue's words without what only programs need.

    >>> plain("to accommodate a workload (UID: 1, JobUID: 2) in the queue; preemptor path: /a; preemptee path: /a")
    'to accommodate a workload in the queue'
    """
    return re.sub(r" \(UID: [^)]*\)|; preempt(?:or|ee) path: [^;]*", "", message)


def _why_evicted(evicted: Obj) -> tuple[str, str]:
    return str(evicted.get("reason", "Evicted")), str(evicted.get("message", ""))


def _since(obj: Obj, holds: Obj | None) -> datetime | None:
    """Since when it is admitted; or since when it waits: from its creation, or from when it was queued again."""
    if holds:
        return parse_time(holds.get("lastTransitionTime"))
    again = true_condition(obj, "Requeued") or (_condition(obj, "QuotaReserved") if _condition(obj, "Evicted") else {})
    return parse_time(again.get("lastTransitionTime") or meta(obj).get("creationTimestamp"))


def _checks(checks: Iterable[Obj]) -> Iterable[str]:
    for check in checks:
        if check.get("state") != "Ready":
            words = f" ({check['message']})" if check.get("message") else ""
            yield f"{check.get('name')} is {check.get('state', 'Pending')}{words}"


def missing_flavors(workload: WorkloadView, flavors: Mapping[str, Obj]) -> list[str]:
    """Flavors of its admission that could not be read."""
    return [name for name in flavors_of(workload.obj) if name not in flavors]


def flavors_of(obj: Obj) -> tuple[str, ...]:
    """The names of the flavors that a Workload was admitted in."""
    both = (assigned_flavors(obj, podset) for podset in (PODSET, ROLLOUT_PODSET))
    return tuple(dict.fromkeys(name for each in both for name in each.values()))


def assigned_flavors(obj: Obj, podset: str = PODSET) -> dict[str, str]:
    """By resource, the flavor that a pod set was admitted in."""
    return dict(_assignment(obj, podset).get("flavors", {}))


def placement(
    workload: WorkloadView, flavors: Mapping[str, Obj], *, sizes: Sequence[int], podset: str = PODSET
) -> Placement:
    """Where the pods of an admitted Workload's pod set go. `sizes`: the numbers of pods that there may be.

    Of the trainer those are what the global batch can be shared by: quota for a number that is not among them is taken
    for the next lower one; the rest is given back.
    """
    names = assigned_flavors(workload.obj, podset)
    specs = [(flavors[name].get("spec") or {}) for name in dict.fromkeys(names.values()) if name in flavors]
    updates = list(_updates(workload.obj, podset))
    count = int(_assignment(workload.obj, podset).get("count") or max(sizes))
    return Placement(
        nodes=max(size for size in sizes if size <= count),
        node_selector=_merged(
            [*(spec.get("nodeLabels") for spec in specs), *(up.get("nodeSelector") for up in updates)]
        ),
        tolerations=tuple(toleration for part in (*specs, *updates) for toleration in part.get("tolerations") or []),
        labels=_merged(up.get("labels") for up in updates),
        annotations=_merged(up.get("annotations") for up in updates),
        flavors=names,
    )


def _assignment(obj: Obj, podset: str) -> dict[str, Any]:
    admission = (obj.get("status") or {}).get("admission") or {}
    assignments = admission.get("podSetAssignments") or []
    found: dict[str, Any] = next((each for each in assignments if each.get("name") == podset), {})
    return found


def _updates(obj: Obj, podset: str) -> Iterable[Obj]:
    """What admission checks change about the pods of a pod set."""
    for check in (obj.get("status") or {}).get("admissionChecks") or []:
        yield from (each for each in check.get("podSetUpdates") or [] if each.get("name") == podset)


def _merged(parts: Iterable[Mapping[str, str] | None]) -> dict[str, str]:
    return {key: value for part in parts for key, value in (part or {}).items()}


def given_back(workload: WorkloadView, *, now: str) -> Obj:
    """An evicted Workload after its pods are gone: without quota, and queued again where Kueue's own jobs would be."""
    assert workload.evicted, "Kueue asks for it"
    reason, message = workload.evicted
    status = {
        key: value
        for key, value in (workload.obj.get("status") or {}).items()
        # Pods that were not needed with fewer nodes are needed again.
        if key not in ("admission", "reclaimablePods")
    }
    again = "True" if reason in _QUEUES_AGAIN else "False"
    made = {**workload.obj, "status": status}
    made = _with_condition(made, "QuotaReserved", "False", "Pending", message, now=now)
    made = _with_condition(made, "Admitted", "False", "NoReservation", "The workload has no reservation", now=now)
    made = _with_condition(made, "PodsReady", "False", "WaitForStart", "the job's pods are gone", now=now)
    return _with_condition(made, "Requeued", again, reason, message, now=now)


def finished(workload: WorkloadView, *, succeeded: bool, message: str, now: str) -> Obj:
    """The Workload of a job that is over: its quota is free."""
    return _with_condition(
        workload.obj, "Finished", "True", "Succeeded" if succeeded else "Failed", message or "the job is over", now=now
    )


def told(workload: WorkloadView, *, ready: bool, nodes: int, now: str) -> Obj | None:
    """The Workload with what Kueue should know while it is admitted; None where it knows.

    Whether all pods run, and how many of those it reserved quota for are not needed.
    """
    before, made = workload.obj, workload.obj
    known = _condition(made, "PodsReady")
    if ready and known.get("status") != "True":
        recovered = known.get("reason") in {"WaitForRecovery", "Recovered"}
        reason = "Recovered" if recovered else "Started"
        made = _with_condition(made, "PodsReady", "True", reason, "all pods run", now=now)
    elif not ready and known.get("status") != "False":
        reason = "WaitForRecovery" if known.get("status") == "True" else "WaitForStart"
        made = _with_condition(made, "PodsReady", "False", reason, "not all pods run", now=now)
    made = _with_surplus(made, nodes)
    return made if made != before else None


def _with_surplus(obj: Obj, nodes: int) -> Obj:
    """Pods that quota was reserved for beyond those that the batch can be shared by."""
    wanted = next(each["count"] for each in obj["spec"]["podSets"] if each["name"] == PODSET)
    reserved = int(_assignment(obj, PODSET).get("count") or wanted)
    if reserved <= nodes:
        return obj
    return {**obj, "status": {**obj["status"], "reclaimablePods": [{"name": PODSET, "count": wanted - nodes}]}}


def _with_condition(obj: Obj, kind: str, status: str, reason: str, message: str, *, now: str) -> Obj:
    old = _condition(obj, kind)
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:MESSAGE_LIMIT],
        "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == status else now,
        "observedGeneration": meta(obj).get("generation", 0),
    }
    conditions = [each for each in (obj.get("status") or {}).get("conditions") or [] if each.get("type") != kind]
    return {**obj, "status": {**(obj.get("status") or {}), "conditions": [*conditions, new]}}
