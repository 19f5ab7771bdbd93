"""The Workload that queues for a job: what each training pod asks for, and each server that draws; admitted whole.

Two pod sets, so that a job never has its trainer's GPUs without its servers' ones. It lives across attempts. Not here:
its status (`kueue`).
"""

from collections.abc import Iterator

from anneal_api.meta import ROLE_LABEL, ROLE_TRAINER
from anneal_api.resolve import digest
from anneal_operator.kinds import WORKLOAD, Obj, meta
from anneal_operator.kueue import PODSET, ROLLOUT_PODSET
from anneal_operator.manifests import pytorchjob, rollout
from anneal_operator.manifests.common import child
from anneal_operator.plan import Plan

# What the Workload asks for, so that an edit is noticed whatever Kueue's defaults add to the object.
DIGEST_ANNOTATION = "anneal.dev/request"
_GROUP = "kueue.x-k8s.io"
# Kueue names the job that it preempted another one for by this.
JOB_UID_LABEL = f"{_GROUP}/job-uid"


def build(plan: Plan, *, priority: int | None) -> Obj:
    """The Workload; `priority` is the value of the job's WorkloadPriorityClass."""
    spec: Obj = {"active": True, "queueName": plan.spec.queue, "podSets": list(_podsets(plan))}
    if plan.spec.priority_class:
        reference = {"group": _GROUP, "kind": "WorkloadPriorityClass", "name": plan.spec.priority_class}
        spec |= {"priorityClassRef": reference, "priority": priority or 0}
    made = child(WORKLOAD, plan, plan.base, {ROLE_LABEL: ROLE_TRAINER}, spec=spec)
    made["metadata"]["annotations"][DIGEST_ANNOTATION] = _digest(spec)
    made["metadata"]["labels"][JOB_UID_LABEL] = plan.uid
    return made


def _podsets(plan: Plan) -> Iterator[Obj]:
    """Kueue lets one of them have fewer pods: the trainer. Servers are as many as the job asks for."""
    trainer: Obj = {"name": PODSET, "count": plan.nodes, "template": pytorchjob.request(plan)}
    least = plan.spec.compute.min_nodes
    if least is not None and least < plan.nodes:
        trainer["minCount"] = least
    yield trainer
    if plan.rollout:
        yield {"name": ROLLOUT_PODSET, "count": plan.rollout.servers, "template": rollout.request(plan)}


def _digest(spec: Obj) -> str:
    return digest({key: value for key, value in spec.items() if key not in ("queueName", "active", "priority")})


def asks_for(obj: Obj) -> str:
    """The digest of what an existing Workload asks for."""
    return str((meta(obj).get("annotations") or {}).get(DIGEST_ANNOTATION, ""))


def moved(plan: Plan) -> Obj:
    """What is applied to a Workload that is to wait in another queue; its place in time stays."""
    metadata = {"name": plan.base, "namespace": plan.namespace}
    return {
        "apiVersion": WORKLOAD.api_version,
        "kind": WORKLOAD.name,
        "metadata": metadata,
        "spec": {"queueName": plan.spec.queue},
    }
