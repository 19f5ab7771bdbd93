"""What a pass must know about the queue of a job, read on demand: rare, and less privilege than watching it all.

Not here: what it means for the job (`steps.queue_checks`, `steps.admit`).
"""

from anneal_operator.errors import NotFoundError
from anneal_operator.kinds import (
    CLUSTER_QUEUE,
    LOCAL_QUEUE,
    PENDING_WORKLOADS,
    PRIORITY_CLASS,
    RESOURCE_FLAVOR,
    WORKLOAD_PRIORITY_CLASS,
    Obj,
    name_of,
    true_condition,
)
from anneal_operator.kueue import Pending, QueueFacts, flavors_of
from anneal_operator.lookups import Lookups


async def queue_facts(namespace: str, queue: str, workload: Obj | None, lookups: Lookups) -> QueueFacts:
    """What there is of a queue, and of what the job's Workload names."""
    try:
        local = await lookups.get(LOCAL_QUEUE, namespace, queue)
        if local is None:
            others = tuple(sorted(map(name_of, await lookups.list_all(LOCAL_QUEUE, namespace))))
            return QueueFacts(others=others, flavors=await _flavors(workload, lookups))
        behind = str((local.get("spec") or {}).get("clusterQueue", ""))
        cluster_queue = await lookups.get(CLUSTER_QUEUE, "", behind) if behind else None
        flavors = await _flavors(workload, lookups)
    except NotFoundError:
        return QueueFacts(served=False)
    waits = workload is not None and true_condition(workload, "QuotaReserved", "Finished") is None
    pending = await _pending(namespace, queue, lookups) if waits else None
    return QueueFacts(local_queue=local, cluster_queue=cluster_queue, flavors=flavors, pending=pending)


async def _flavors(workload: Obj | None, lookups: Lookups) -> dict[str, Obj]:
    found = {name: await lookups.get(RESOURCE_FLAVOR, "", name) for name in (flavors_of(workload) if workload else ())}
    return {name: flavor for name, flavor in found.items() if flavor is not None}


async def _pending(namespace: str, queue: str, lookups: Lookups) -> tuple[Pending, ...] | None:
    """Kueue's own list of those that wait; it may be switched off, or not be there yet."""
    summary = await lookups.get_if_answered(PENDING_WORKLOADS, namespace, queue)
    if summary is None:
        return None
    return tuple(
        Pending(name_of(each), int(each.get("positionInLocalQueue", 0)), int(each.get("positionInClusterQueue", 0)))
        for each in summary.get("items") or []
    )


async def priority_classes(lookups: Lookups, *, queued: bool) -> dict[str, int] | None:
    """The values of the priority classes that a job may name; None where that type is unknown."""
    try:
        classes = await lookups.list_all(WORKLOAD_PRIORITY_CLASS if queued else PRIORITY_CLASS)
    except NotFoundError:
        return None
    return {name_of(each): int(each.get("value", 0)) for each in classes}
