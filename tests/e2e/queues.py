"""Kueue's objects in a line each, as manifests for `Kube.apply`: flavors, queues with quotas and cohorts, priorities.

They belong to the cluster and not to a namespace, except LocalQueues: names must be a test's own.
A bare Workload has no pods behind it: it takes and waits for quota as another team's job would, at no cost.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from e2e.harness import Kube, condition, small_job

API_VERSION = "kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"
# A queue takes what it lent back, and its more important jobs take the place of less important ones.
PREEMPT = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}
# Jobs ask for these too, and Kueue admits nothing that its queue has no quota for.
AMPLE = {"cpu": "1000", "memory": "1000Gi"}
WORKLOADS = "workloads.kueue.x-k8s.io"


def flavor(
    name: str, labels: Mapping[str, str] | None = None, *, tolerations: tuple[Mapping[str, str], ...] = ()
) -> dict[str, Any]:
    """Nodes with these labels; admitted pods are given the labels as a selector, and the tolerations."""
    spec = {"nodeLabels": dict(labels or {}), "tolerations": [dict(each) for each in tolerations]}
    return _object("ResourceFlavor", name, {key: value for key, value in spec.items() if value})


def cluster_queue(
    name: str,
    quotas: Mapping[str, int],
    *,
    cohort: str = "",
    borrow: int | None = None,
    lend: int | None = None,
    preemption: Mapping[str, Any] | None = None,
    resource: str = GPU,
) -> dict[str, Any]:
    """GPUs by flavor, tried in this order; `borrow` and `lend` limit each flavor of a queue in a cohort.

    Of CPU and memory there is always enough.
    """
    limits = {"borrowingLimit": borrow, "lendingLimit": lend}
    given = {key: str(value) for key, value in limits.items() if value is not None}
    ample = [{"name": name, "nominalQuota": quota} for name, quota in AMPLE.items() if name != resource]
    flavors = [
        {"name": each, "resources": [{"name": resource, "nominalQuota": str(count), **given}, *ample]}
        for each, count in quotas.items()
    ]
    covered = [each["name"] for each in flavors[0]["resources"]]
    spec: dict[str, Any] = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": covered, "flavors": flavors}],
    }
    optional = {"cohortName": cohort, "preemption": dict(preemption or {})}
    return _object("ClusterQueue", name, spec | {key: value for key, value in optional.items() if value})


def local_queue(name: str, cluster_queue: str) -> dict[str, Any]:
    """What jobs name, in the namespace that it is applied in."""
    return _object("LocalQueue", name, {"clusterQueue": cluster_queue})


def priority_class(name: str, value: int) -> dict[str, Any]:
    """A WorkloadPriorityClass, which has no spec: its value lies beside the metadata."""
    return {"apiVersion": API_VERSION, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}


@contextmanager
def applied(kube: Kube, *manifests: dict[str, Any]) -> Iterator[None]:
    """These objects in the block. Delete jobs first: a ClusterQueue stays while it has admitted Workloads."""
    kube.apply(*manifests)
    try:
        yield
    finally:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        kube.run("delete", "--wait=false", "--ignore-not-found", "-f", "-", stdin=json.dumps(items))


@contextmanager
def team_queue(kube: Kube, name: str, gpus: int) -> Iterator[None]:
    """A queue `name` for the namespace, with a quota of its own."""
    behind = f"{kube.namespace}-{name}"
    made = (flavor(behind), cluster_queue(behind, {behind: gpus}, preemption=PREEMPT), local_queue(name, behind))
    with applied(kube, *made):
        yield


@contextmanager
def taken(kube: Kube, name: str, *, queue: str, gpus: int, priority: int = 0) -> Iterator[None]:
    """A bare Workload holds quota of a queue in the block."""
    kube.apply(workload(name, queue=queue, gpus={"trainer": gpus}, priority=priority))
    try:
        kube.until(f"Workload {name} is admitted", lambda: is_true(kube, name, "Admitted"), seconds=60)
        yield
    finally:
        kube.run("delete", WORKLOADS, name, "--ignore-not-found")


def queued_job(name: str, queue: str | None = None, **spec: Any) -> dict[str, Any]:
    """A small job for one GPU of the pool `gpus`: it computes on the CPU, as a pod that finds no CUDA does."""
    compute = {"pool": "gpus", "gpusPerNode": 1} | spec.pop("compute", {})
    named = {"queue": queue} if queue else {}
    return small_job(name, compute=compute, **named, **spec)


def workload(name: str, *, queue: str, gpus: Mapping[str, int], priority: int = 0) -> dict[str, Any]:
    """A bare Workload that asks for this many GPUs in each of its pod sets."""
    sets = []
    for podset, count in gpus.items():
        resources = {"requests": {GPU: str(count)}, "limits": {GPU: str(count)}}
        pod = {"restartPolicy": "Never", "containers": [{"name": podset, "image": "none", "resources": resources}]}
        sets.append({"name": podset, "count": 1, "template": {"spec": pod}})
    return _object("Workload", name, {"queueName": queue, "podSets": sets, "priority": priority})


def workload_of(kube: Kube, job: str) -> dict[str, Any]:
    """The one Workload of a job; empty where there is none."""
    found = kube.children(WORKLOADS, kube.job(job))
    assert len(found) < 2, f"{job} has {len(found)} Workloads"
    return found[0] if found else {}


def is_true(kube: Kube, workload: str, kind: str) -> bool:
    """Whether a condition of a Workload holds."""
    return condition(kube.get(WORKLOADS, workload) or {}, kind).get("status") == "True"


def assignments(kube: Kube, workload: str) -> list[dict[str, Any]]:
    """What Kueue has given to each pod set of a Workload."""
    admission = ((kube.get(WORKLOADS, workload) or {}).get("status") or {}).get("admission") or {}
    found: list[dict[str, Any]] = admission.get("podSetAssignments", [])
    return found


def pending(kube: Kube, cluster_queue: str) -> list[dict[str, Any]]:
    """The queue's waiting Workloads in their order, as Kueue's visibility API shows them."""
    path = f"/apis/visibility.kueue.x-k8s.io/v1beta2/clusterqueues/{cluster_queue}/pendingworkloads"
    found: list[dict[str, Any]] = json.loads(kube.run("get", "--raw", path).stdout)["items"]
    return found


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
