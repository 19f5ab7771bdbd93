"""Kueue on the simulated cluster: one ClusterQueue with quota for so many pods, priorities, preemption and partial admission.

It keeps the rules that a Workload's owner depends on: it admits whole or not at all, and takes no quota from an evicted
Workload before its owner gives that back. Not here: flavors' resources, cohorts, checks (the real Kueue tests them).
"""

from dataclasses import dataclass

from anneal_operator.kinds import (
    CLUSTER_QUEUE,
    LOCAL_QUEUE,
    RESOURCE_FLAVOR,
    WORKLOAD,
    WORKLOAD_PRIORITY_CLASS,
    Kind,
    Obj,
    format_time,
    labels_of,
    meta,
    name_of,
    true_condition,
    uid_of,
)
from simulated.api_server import ApiServer

FLAVOR = "h100"


@dataclass
class Kueue:
    """Acts on Workloads, a step a tick."""

    api: ApiServer
    nodes: int = 1
    # Writes nothing onto what it cannot admit: so the real one does if another one that asks for the same was refused.
    silent: bool = False
    # The most nodes that were ever reserved at one time.
    most_reserved: int = 0

    def install(self, *queues: str, priorities: dict[str, int] | None = None) -> None:
        """The queues of the namespace `team`, all behind one ClusterQueue, and priority classes."""
        for queue in queues:
            self._insert(LOCAL_QUEUE, queue, namespace="team", spec={"clusterQueue": "all"})
        covered = ["cpu", "memory", "nvidia.com/gpu"]
        self._insert(CLUSTER_QUEUE, "all", spec={"resourceGroups": [{"coveredResources": covered}]})
        self._insert(RESOURCE_FLAVOR, FLAVOR, spec={"nodeLabels": {"gpu": FLAVOR}, "tolerations": [{"key": "gpu"}]})
        for name, value in (priorities or {}).items():
            self._insert(WORKLOAD_PRIORITY_CLASS, name, value=value)

    def _insert(self, kind: Kind, name: str, *, namespace: str = "", **body: object) -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        self.api.insert({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **body})

    def tick(self) -> None:
        """Deactivate, admit the next one that fits, or evict for it."""
        for each in self.api.of(WORKLOAD):
            if each["spec"].get("active") is False and reserved(each) and not true_condition(each, "Evicted"):
                self._set(each, "Evicted", "True", "Deactivated", "it was deactivated")
        for each in self.api.of(WORKLOAD):
            self._reactivate(each)
        waiting = [each for each in self.api.of(WORKLOAD) if self._may_be_admitted(each)]
        waiting.sort(key=lambda each: (-_priority(each), meta(each)["creationTimestamp"], name_of(each)))
        for each in waiting:
            if self._admit(each):
                break
            self._preempt_for(each)
        self.most_reserved = max(self.most_reserved, self._used())

    def _may_be_admitted(self, workload: Obj) -> bool:
        if reserved(workload) or true_condition(workload, "Finished") or workload["spec"].get("active") is False:
            return False
        if _condition(workload, "Requeued").get("status") == "False":
            return False
        queues = [name_of(each) for each in self.api.of(LOCAL_QUEUE)]
        return workload["spec"]["queueName"] in queues

    def _reactivate(self, workload: Obj) -> None:
        requeued = _condition(workload, "Requeued")
        deactivated = (requeued.get("status"), requeued.get("reason")) == ("False", "Deactivated")
        if deactivated and workload["spec"].get("active") is not False:
            self._set(workload, "Requeued", "True", "Reactivated", "it was reactivated")

    def _used(self) -> int:
        return sum(self._size(each) for each in self.api.of(WORKLOAD) if reserved(each))

    def _size(self, workload: Obj) -> int:
        if true_condition(workload, "Finished"):
            return 0
        assigned = sum(int(each["count"]) for each in workload["status"]["admission"]["podSetAssignments"])
        spare = sum(each["count"] for each in workload["status"].get("reclaimablePods") or [])
        return min(assigned, sum(int(each["count"]) for each in workload["spec"]["podSets"]) - spare)

    def _admit(self, workload: Obj) -> bool:
        podsets, free = workload["spec"]["podSets"], self.nodes - self._used()
        least = sum(each.get("minCount", each["count"]) for each in podsets)
        wanted = sum(each["count"] for each in podsets)
        if least > free:
            words = f"insufficient unused quota, {wanted - free} more needed"
            if not self.silent and not _says(workload, words):
                self._set(workload, "QuotaReserved", "False", "Pending", words)
            return False
        lacking = max(0, wanted - free)
        assignments = [
            {
                "name": each["name"],
                "count": each["count"] - (lacking if "minCount" in each else 0),
                "flavors": {"cpu": FLAVOR, "memory": FLAVOR},
            }
            for each in podsets
        ]
        admission = {"clusterQueue": "all", "podSetAssignments": assignments}
        admitted = {**workload, "status": {**(workload.get("status") or {}), "admission": admission}}
        admitted = self._with(admitted, "QuotaReserved", "True", "QuotaReserved", "Quota reserved")
        admitted = self._with(admitted, "Evicted", "False", "QuotaReserved", "Previously evicted")
        self.api.update(self._with(admitted, "Admitted", "True", "Admitted", "The workload is admitted"))
        return True

    def _preempt_for(self, workload: Obj) -> None:
        for other in self.api.of(WORKLOAD):
            lower = reserved(other) and _priority(other) < _priority(workload)
            if lower and not true_condition(other, "Finished", "Evicted"):
                words = f"to accommodate a workload (JobUID: {labels_of(workload)['kueue.x-k8s.io/job-uid']})"
                self._set(other, "Evicted", "True", "Preempted", words)
                return

    def _set(self, workload: Obj, kind: str, status: str, reason: str, message: str) -> None:
        self.api.update(self._with(workload, kind, status, reason, message))

    def _with(self, workload: Obj, kind: str, status: str, reason: str, message: str) -> Obj:
        new = {"type": kind, "status": status, "reason": reason, "message": message}
        new["lastTransitionTime"] = format_time(self.api.clock())
        old = [each for each in (workload.get("status") or {}).get("conditions") or [] if each["type"] != kind]
        return {**workload, "status": {**(workload.get("status") or {}), "conditions": [*old, new]}}


def reserved(workload: Obj) -> bool:
    """Whether it holds quota."""
    return true_condition(workload, "QuotaReserved") is not None


def workload_of(api: ApiServer, job: Obj) -> Obj:
    """The one Workload of a job."""
    (found,) = [each for each in api.of(WORKLOAD) if meta(each)["labels"]["anneal.dev/owner-uid"] == uid_of(job)]
    return found


def _condition(workload: Obj, kind: str) -> Obj:
    conditions = (workload.get("status") or {}).get("conditions") or []
    found: Obj = next((each for each in conditions if each["type"] == kind), {})
    return found


def _says(workload: Obj, words: str) -> bool:
    conditions = (workload.get("status") or {}).get("conditions") or []
    return any(each["message"] == words for each in conditions)


def _priority(workload: Obj) -> int:
    return int(workload["spec"].get("priority", 0))


def alive_without_quota(pods: list[Obj], workloads: list[Obj]) -> list[str]:
    """Training pods and servers that are there although their Workload has given its quota back."""
    empty = {labels_of(each)["anneal.dev/owner-uid"] for each in workloads if not reserved(each)}
    holding = [pod for pod in pods if labels_of(pod)["anneal.dev/role"] in {"trainer", "rollout"}]
    alive = [pod for pod in holding if pod["status"]["phase"] in {"Pending", "Running"}]
    return [name_of(pod) for pod in alive if labels_of(pod)["anneal.dev/owner-uid"] in empty]
