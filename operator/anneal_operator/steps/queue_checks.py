"""What stands between a job and its queue that no waiting mends: part of what `accept` objects to. Pure.

A queue without enough quota is not here: quota comes and goes, and the Workload's own words tell what is short.
"""

from collections.abc import Iterator, Mapping

from anneal_api.conditions import Reason
from anneal_operator.kinds import name_of
from anneal_operator.kueue import QueueFacts
from anneal_operator.plan import Plan
from anneal_operator.steps.common import Objection


def objections(plan: Plan, queue: QueueFacts | None, classes: Mapping[str, int] | None) -> Iterator[Objection]:
    """Objections against the queue and the priority class of a spec."""
    yield from _priority_class(plan, classes)
    if queue is None or not queue.served:
        return
    if queue.local_queue is None:
        known = ", ".join(queue.others) or "none: make a LocalQueue, or leave spec.queue out"
        words = f"spec.queue: namespace {plan.namespace} has no LocalQueue {plan.spec.queue!r}; its queues are: {known}"
        yield Reason.UNKNOWN_QUEUE, words
    elif queue.cluster_queue is None:
        behind = (queue.local_queue.get("spec") or {}).get("clusterQueue", "")
        words = (
            f"spec.queue: LocalQueue {plan.spec.queue!r} leads to ClusterQueue {behind!r}, which does not exist: "
            "make it, or name another queue"
        )
        yield Reason.UNKNOWN_QUEUE, words
    else:
        yield from _resources(plan, queue)


def _resources(plan: Plan, queue: QueueFacts) -> Iterator[Objection]:
    """Only the GPUs: CPU and memory may be left out of quotas by Kueue's own configuration."""
    assert queue.cluster_queue is not None, "checked by the caller"
    groups = (queue.cluster_queue.get("spec") or {}).get("resourceGroups") or []
    covered = {resource for group in groups for resource in group.get("coveredResources") or []}
    wanted = {"the job": plan.pool.resource_name if plan.gpus else ""}
    if plan.rollout_gpus and plan.rollout_pool.resource_name not in wanted.values():
        wanted["its rollout"] = plan.rollout_pool.resource_name
    has = ", ".join(sorted(covered)) or "nothing"
    for who, resource in wanted.items():
        if resource and resource not in covered:
            words = (
                f"spec.queue: {who} asks for {resource}, and ClusterQueue {name_of(queue.cluster_queue)} behind queue "
                f"{plan.spec.queue!r} has quota for {has}: name another queue, or have {resource} added to it"
            )
            yield Reason.QUEUE_LACKS_RESOURCE, words


def _priority_class(plan: Plan, classes: Mapping[str, int] | None) -> Iterator[Objection]:
    wanted = plan.spec.priority_class
    if wanted is None or classes is None or wanted in classes:
        return
    kind = "WorkloadPriorityClass" if plan.spec.queue else "PriorityClass"
    known = ", ".join(sorted(classes)) or "none"
    words = f"spec.priorityClass: this cluster has no {kind} {wanted!r}; it has: {known}"
    yield Reason.UNKNOWN_PRIORITY_CLASS, words
