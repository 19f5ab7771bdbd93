"""The Kubernetes kinds that the operator deals with, and small readers of raw objects.

Objects stay the dictionaries that the API server sends: typed models cost seconds of imports and tens of megabytes.
Not here: any request (`cluster`), any meaning (`pods`, `engine`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from anneal_api import finetunejob, rlhfjob
from anneal_api.meta import GROUP, VERSION

Obj = dict[str, Any]


@dataclass(frozen=True, order=True)
class Kind:
    """A resource type; `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    name: str
    # Of a type that can only be read as a part of another one.
    subresource: str = ""

    @property
    def api_version(self) -> str:
        """As a manifest writes it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object or a subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = ("namespaces", namespace) if namespace else ()
        parts = [root, *place, self.plural, name, subresource or self.subresource]
        return "/".join(part for part in parts if part)


FINE_TUNE_JOB: Final = Kind(GROUP, VERSION, finetunejob.PLURAL, finetunejob.KIND)
RLHF_JOB: Final = Kind(GROUP, VERSION, rlhfjob.PLURAL, rlhfjob.KIND)
JOB: Final = Kind("batch", "v1", "jobs", "Job")
PYTORCH_JOB: Final = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
POD: Final = Kind("", "v1", "pods", "Pod")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
SERVICE: Final = Kind("", "v1", "services", "Service")
CLAIM: Final = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
WORKLOAD: Final = Kind("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")
LOCAL_QUEUE: Final = Kind("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue")
CLUSTER_QUEUE: Final = Kind("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue")
RESOURCE_FLAVOR: Final = Kind("kueue.x-k8s.io", "v1beta2", "resourceflavors", "ResourceFlavor")
WORKLOAD_PRIORITY_CLASS: Final = Kind("kueue.x-k8s.io", "v1beta2", "workloadpriorityclasses", "WorkloadPriorityClass")
# Who waits in a LocalQueue: read as a subresource of that queue.
PENDING_WORKLOADS: Final = Kind(
    "visibility.kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue", subresource="pendingworkloads"
)
PRIORITY_CLASS: Final = Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
STORAGE_CLASS: Final = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass")
NODE: Final = Kind("", "v1", "nodes", "Node")
EVENT: Final = Kind("events.k8s.io", "v1", "events", "Event")
CUSTOM_RESOURCE: Final = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")

# What kopf lists and watches: the jobs, and children that change by themselves. ConfigMaps, policies and claims
# do not; reading all of a cluster's ConfigMaps would also be more than the operator needs.
WATCHED_CHILDREN: Final = (JOB, PYTORCH_JOB, DEPLOYMENT, POD, WORKLOAD)
JOB_KINDS: Final = (FINE_TUNE_JOB, RLHF_JOB)
WATCHED: Final = (*JOB_KINDS, *WATCHED_CHILDREN)
_READ: Final = (
    STORAGE_CLASS, NODE, EVENT, CUSTOM_RESOURCE, PRIORITY_CLASS, LOCAL_QUEUE, CLUSTER_QUEUE, RESOURCE_FLAVOR,
    WORKLOAD_PRIORITY_CLASS,
)  # fmt: skip
_UNWATCHED: Final = (CLAIM, CONFIG_MAP, NETWORK_POLICY, SERVICE)
KINDS: Final = {(kind.api_version, kind.name): kind for kind in (*WATCHED, *_UNWATCHED, *_READ)}


def kind_of(obj: Obj) -> Kind:
    """The kind of an object that carries apiVersion and kind."""
    return KINDS[obj["apiVersion"], obj["kind"]]


def meta(obj: Obj) -> Obj:
    """An object's metadata, empty if it has none."""
    found: Obj = obj.get("metadata") or {}
    return found


def name_of(obj: Obj) -> str:
    """An object's name."""
    return str(meta(obj).get("name", ""))


def uid_of(obj: Obj) -> str:
    """An object's UID."""
    return str(meta(obj).get("uid", ""))


def labels_of(obj: Obj) -> dict[str, str]:
    """An object's labels."""
    return meta(obj).get("labels") or {}


def is_deleting(obj: Obj) -> bool:
    """Whether somebody asked for its deletion."""
    return bool(meta(obj).get("deletionTimestamp"))


def true_condition(obj: Obj, *types: str) -> Obj | None:
    """The first of the conditions `types` that is True."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    by_type = {each.get("type"): each for each in conditions if each.get("status") == "True"}
    return next((by_type[each] for each in types if each in by_type), None)


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 as the API server and the operator write it."""
    return datetime.fromisoformat(text) if text else None


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time.

    >>> format_time(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
