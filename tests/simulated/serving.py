"""vLLM servers on the simulated cluster: the Deployment controller, and a kubelet that starts them and restarts them.

Not here: Services, whose only meaning is an address, and ReplicaSets, which nobody here looks at.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from anneal_api.meta import ROLE_LABEL, ROLE_ROLLOUT
from anneal_operator.kinds import (
    DEPLOYMENT,
    POD,
    Obj,
    format_time,
    labels_of,
    meta,
    name_of,
    parse_time,
    true_condition,
    uid_of,
)
from simulated.api_server import ApiServer

BACK_OFF = 3


@dataclass(frozen=True)
class Load:
    """How a server fares: it loads for `seconds`, and then serves, or ends with `code` and says `words`."""

    seconds: float = 4
    code: int | None = None
    words: str = ""
    reason: str = "Error"


SERVES = Load()


@dataclass
class Servers:
    """Acts on Deployments and their pods, a step a tick."""

    api: ApiServer
    # By the order in which pods are made; the last entry serves all others.
    loads: list[Load] = field(default_factory=lambda: [SERVES])
    # How many the nodes have room for; None: any number.
    places: int | None = None
    # Why a node ends each of them, if it does.
    rejects: str = ""
    # Kinds of servers that one job had at one time: more than one would hold twice the GPUs.
    most_kinds: int = 0
    _made: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        """One step of everything."""
        for deployment in self.api.of(DEPLOYMENT):
            self._control(deployment)
        for pod in self.pods():
            self._keep(pod)
        kinds: dict[str, set[str]] = {}
        for pod in self.pods():
            kinds.setdefault(labels_of(pod)["anneal.dev/owner-uid"], set()).add(labels_of(pod)["anneal.dev/servers"])
        self.most_kinds = max([self.most_kinds, *map(len, kinds.values())])

    def pods(self) -> list[Obj]:
        """Every server that there is."""
        return [pod for pod in self.api.of(POD) if labels_of(pod)[ROLE_LABEL] == ROLE_ROLLOUT]

    def ready(self) -> list[Obj]:
        """Those that serve."""
        return [pod for pod in self.pods() if true_condition(pod, "Ready") and not meta(pod).get("deletionTimestamp")]

    def _control(self, deployment: Obj) -> None:
        owner = {"uid": uid_of(deployment), "kind": "Deployment", "name": name_of(deployment)}
        mine = [pod for pod in self.pods() if meta(pod)["ownerReferences"] == [owner]]
        alive = [pod for pod in mine if not meta(pod).get("deletionTimestamp") and pod["status"]["phase"] != "Failed"]
        for _ in range(deployment["spec"]["replicas"] - len(alive)):
            template, number = deployment["spec"]["template"], len(self._made)
            metadata = {
                "name": f"{name_of(deployment)}-{number}",
                "namespace": meta(deployment)["namespace"],
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner],
            }
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}
            self._made[uid_of(self.api.insert(pod))] = number

    def _keep(self, pod: Obj) -> None:
        status, load = pod["status"], self.loads[min(self._made[uid_of(pod)], len(self.loads) - 1)]
        if meta(pod).get("deletionTimestamp"):
            self.api.vanish(POD, pod)
        elif status["phase"] == "Failed":
            pass
        elif status["phase"] == "Pending":
            self._place(pod)
        elif since := parse_time((status["containerStatuses"][0]["state"].get("running") or {}).get("startedAt")):
            if not true_condition(pod, "Ready") and self.api.clock() >= since + timedelta(seconds=load.seconds):
                self._loaded(pod, load)
        elif self.api.clock() >= _ended(pod) + timedelta(seconds=BACK_OFF):
            self._run(pod, status["containerStatuses"][0]["restartCount"] + 1)

    def _place(self, pod: Obj) -> None:
        placed = [each for each in self.pods() if each["status"]["phase"] == "Running"]
        if self.rejects:
            status = {"phase": "Failed", "reason": "Evicted", "message": self.rejects}
            self.api.update({**pod, "spec": {"nodeName": "node-2"}, "status": status})
        elif self.places is None or len(placed) < self.places:
            self._run({**pod, "spec": {"nodeName": "node-2"}}, 0)
        elif not pod["status"].get("conditions"):
            words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
            self.api.update({**pod, "status": {**pod["status"], "conditions": [condition]}})

    def _run(self, pod: Obj, restarts: int) -> None:
        now = format_time(self.api.clock())
        last = (pod["status"].get("containerStatuses") or [{}])[0].get("lastState") or {}
        container = {
            "name": "vllm", "restartCount": restarts, "state": {"running": {"startedAt": now}}, "lastState": last,
        }  # fmt: skip
        self._tell(pod, container, ready=False)

    def _loaded(self, pod: Obj, load: Load) -> None:
        if load.code is None:
            self._tell(pod, pod["status"]["containerStatuses"][0], ready=True)
        else:
            self.end(pod, load.code, load.words, reason=load.reason)

    def end(self, pod: Obj, code: int, words: str, *, reason: str = "Error") -> None:
        """Its container ends."""
        before = pod["status"]["containerStatuses"][0]
        terminated = {
            "exitCode": code, "reason": reason, "message": words,
            "startedAt": before["state"]["running"]["startedAt"], "finishedAt": format_time(self.api.clock()),
        }  # fmt: skip
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        self._tell(pod, {**before, "state": waiting, "lastState": {"terminated": terminated}}, ready=False)

    def _tell(self, pod: Obj, container: Obj, *, ready: bool) -> None:
        now = format_time(self.api.clock())
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": now},
        ]
        status = {"phase": "Running", "podIP": "10.0.0.8", "conditions": conditions, "containerStatuses": [container]}
        self.api.update({**pod, "status": status})


def _ended(pod: Obj) -> datetime:
    ended = parse_time(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"])
    assert ended is not None
    return ended
