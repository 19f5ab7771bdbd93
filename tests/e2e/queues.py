"""Kueue's objects in a line each, as manifests for `Kube.apply`: flavors, queues with quotas and cohorts, priorities.

They belong to the cluster and not to a namespace, except LocalQueues: names must be a test's own.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from e2e.harness import Kube

API_VERSION = "kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"
# A queue takes what it lent back, and its more important jobs take the place of less important ones.
PREEMPT = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}


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
    """GPUs by flavor, tried in this order; `borrow` and `lend` limit each flavor of a queue in a cohort."""
    limits = {"borrowingLimit": borrow, "lendingLimit": lend}
    given = {key: str(value) for key, value in limits.items() if value is not None}
    flavors = [
        {"name": each, "resources": [{"name": resource, "nominalQuota": str(count), **given}]}
        for each, count in quotas.items()
    ]
    spec: dict[str, Any] = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": [resource], "flavors": flavors}],
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


def pending(kube: Kube, cluster_queue: str) -> list[dict[str, Any]]:
    """The queue's waiting Workloads in their order, as Kueue's visibility API shows them."""
    path = f"/apis/visibility.kueue.x-k8s.io/v1beta2/clusterqueues/{cluster_queue}/pendingworkloads"
    found: list[dict[str, Any]] = json.loads(kube.run("get", "--raw", path).stdout)["items"]
    return found


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
