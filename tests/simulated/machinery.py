"""What acts in a cluster by itself: garbage collection, the Job controller, the training-operator and the kubelet.

Each does one small step a tick. Pods follow a script: how long they run, and how they end in which attempt.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from anneal_api.conditions import Outcome
from anneal_api.datasetreport import DatasetReport
from anneal_api.meta import ATTEMPT_LABEL, ENV_ROLLOUT_HOST, ROLE_LABEL, ROLE_ROLLOUT
from anneal_api.progress import TerminationMessage
from anneal_api.status import Output
from anneal_operator.kinds import (
    JOB,
    POD,
    PYTORCH_JOB,
    WORKLOAD,
    Obj,
    format_time,
    labels_of,
    meta,
    name_of,
    parse_time,
    uid_of,
)
from simulated.api_server import ApiServer
from simulated.queueing import Kueue, alive_without_quota
from simulated.serving import Servers


@dataclass(frozen=True)
class Run:
    """How a pod fares: it starts, runs for `seconds`, ends with `code` and says `words`."""

    seconds: float = 20
    code: int = 0
    words: TerminationMessage | None = None
    reason: str = ""
    disrupted: str = ""


DATASET = DatasetReport(rows=10, used=9, tokens=900, trained_tokens=300, fingerprint="f" * 16)
PREPARED = Run(5, 0, TerminationMessage(outcome=Outcome.SUCCEEDED, message="9 rows", dataset=DATASET))
TRAINED = Run(
    20,
    0,
    TerminationMessage(
        outcome=Outcome.SUCCEEDED,
        message="loss 2.0 to 1.0",
        step=100,
        total_steps=100,
        loss=1.0,
        device="cpu",
        outputs=[Output(kind="adapter", uri="volume://runs/out", digest="sha256:0")],
    ),
)
STOPPED = Run(0, 75, TerminationMessage(outcome=Outcome.INFRASTRUCTURE, message="stopped", step=40, total_steps=100))


@dataclass
class Machinery:
    """Ticks."""

    api: ApiServer
    # By attempt number (1 is the first), then by pod index; the last entry serves all further attempts.
    training: list[list[Run]] = field(default_factory=lambda: [[TRAINED]])
    preparing: list[Run] = field(default_factory=lambda: [PREPARED])
    # How many training pods the nodes have room for; None: any number.
    places: int | None = None
    kueue: Kueue | None = None
    most_writers: int = 0
    pods_without_quota: set[str] = field(default_factory=set)
    # Trainers that were made before there was a server to draw answers from.
    without_servers: set[str] = field(default_factory=set)
    ticks: int = 0

    def __post_init__(self) -> None:
        self.servers = Servers(self.api)

    @property
    def now(self) -> datetime:
        """The server's time."""
        return self.api.clock()

    def tick(self) -> None:
        """One step of everything."""
        self.ticks += 1
        self._collect_garbage()
        if self.kueue:
            self.kueue.tick()
        self.servers.tick()
        for job in self.api.of(JOB):
            self._job_controller(job)
        if self.ticks % 2:  # slower than the kubelet, so that pods of one attempt end one after the other
            for pytorch_job in self.api.of(PYTORCH_JOB):
                self._training_operator(pytorch_job)
        # The scheduler's queue has no notion of jobs: here the first pod of each comes before the second of any.
        others = [pod for pod in self.api.of(POD) if labels_of(pod)[ROLE_LABEL] != ROLE_ROLLOUT]
        for pod in sorted(others, key=_index):
            self._kubelet(pod)
        self._watch_for_two_writers()
        self.pods_without_quota.update(alive_without_quota(self.api.of(POD), self.api.of(WORKLOAD)))

    def _collect_garbage(self) -> None:
        present = {uid_of(obj) for obj in self.api.objects.values()}
        for place, obj in list(self.api.objects.items()):
            owners = meta(obj).get("ownerReferences") or []
            if owners and not any(owner["uid"] in present for owner in owners):
                self.api.remove(place[0], obj)

    def _pods_of(self, owner: Obj) -> list[Obj]:
        mine = [pod for pod in self.api.of(POD) if meta(pod)["ownerReferences"][0]["uid"] == uid_of(owner)]
        return sorted(mine, key=name_of)

    def _make_pod(self, owner: Obj, template: Obj, name: str, index: int) -> None:
        metadata = {
            "name": name,
            "namespace": meta(owner)["namespace"],
            "labels": {**template["metadata"]["labels"], "training.kubeflow.org/replica-index": str(index)},
            "ownerReferences": [{"uid": uid_of(owner), "kind": owner["kind"], "name": name_of(owner)}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}
        self.api.insert(pod)
        draws = any(each["name"] == ENV_ROLLOUT_HOST for each in template["spec"]["containers"][0].get("env", []))
        if draws and not self.servers.ready():
            self.without_servers.add(name)

    def _job_controller(self, job: Obj) -> None:
        if (job.get("status") or {}).get("conditions"):
            return
        pods = self._pods_of(job)
        done = [pod for pod in pods if pod["status"]["phase"] == "Succeeded"]
        failed = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
        if done:
            self._conclude(job, "Complete")
        elif any(_code(pod) == 65 for pod in failed):
            self._conclude(job, "Failed", reason="PodFailurePolicy")
        elif len(failed) > 3:
            self._conclude(job, "Failed", reason="BackoffLimitExceeded")
        elif len(failed) == len(pods):
            self._make_pod(job, job["spec"]["template"], f"{name_of(job)}-{len(pods)}", 0)

    def _training_operator(self, job: Obj) -> None:
        if (job.get("status") or {}).get("conditions"):
            return
        ((kind, replicas),) = job["spec"]["pytorchReplicaSpecs"].items()
        pods = {name_of(pod): pod for pod in self._pods_of(job)}
        names = [f"{name_of(job)}-{kind.lower()}-{index}" for index in range(replicas["replicas"])]
        for index, name in enumerate(names):
            if name not in pods:
                self._make_pod(job, replicas["template"], name, index)
        phases = [pod["status"]["phase"] for pod in pods.values()]
        if "Failed" in phases or any(meta(pod).get("deletionTimestamp") for pod in pods.values()):
            self._conclude(job, "Failed", reason="PyTorchJobFailed")
            for pod in pods.values():
                if pod["status"]["phase"] in {"Pending", "Running"}:
                    self.api.remove(POD, pod)
        elif phases.count("Succeeded") == replicas["replicas"]:
            self._conclude(job, "Succeeded")

    def _conclude(self, obj: Obj, condition: str, *, reason: str = "") -> None:
        conditions = [
            {"type": condition, "status": "True", "reason": reason, "lastTransitionTime": format_time(self.now)}
        ]
        self.api.update({**obj, "status": {"conditions": conditions}})

    def _script(self, pod: Obj) -> Run:
        labels = labels_of(pod)
        if labels[ROLE_LABEL] == "prepare":
            nth = int(name_of(pod).rsplit("-", 1)[1])
            return self.preparing[min(nth, len(self.preparing) - 1)]
        runs = self.training[min(int(labels[ATTEMPT_LABEL]), len(self.training)) - 1]
        return runs[min(int(labels["training.kubeflow.org/replica-index"]), len(runs) - 1)]

    def _kubelet(self, pod: Obj) -> None:
        phase, run = pod["status"]["phase"], self._script(pod)
        started = parse_time(pod["status"].get("startedAt"))
        if meta(pod).get("deletionTimestamp"):
            if not _has_ended(pod):
                self._terminate(pod, STOPPED if started else Run(0, 137))
            else:
                self.api.vanish(POD, pod)
        elif phase == "Running" and _has_ended(pod):
            self.api.update({**pod, "status": {**pod["status"], "phase": "Failed" if _code(pod) else "Succeeded"}})
        elif phase == "Pending" and not self._has_room(pod):
            self._leave_waiting(pod)
        elif phase == "Pending":
            self._start(pod)
        elif not self._is_complete(pod):
            pass  # it waits for the others, as torchrun does
        elif phase == "Running" and started and self.now >= started + timedelta(seconds=run.seconds):
            self._disrupt(pod, run) if run.disrupted else self._terminate(pod, run)

    def _has_room(self, pod: Obj) -> bool:
        if self.places is None or labels_of(pod)[ROLE_LABEL] != "trainer":
            return True
        holding = [
            each for each in self.api.of(POD)
            if labels_of(each)[ROLE_LABEL] == "trainer" and each["status"]["phase"] == "Running"
        ]  # fmt: skip
        return len(holding) < self.places

    def _leave_waiting(self, pod: Obj) -> None:
        words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        if not pod["status"].get("conditions"):
            self.api.update({**pod, "status": {**pod["status"], "conditions": [condition]}})

    def _is_complete(self, pod: Obj) -> bool:
        """Whether every pod of its attempt has a place."""
        if self.places is None or labels_of(pod)[ROLE_LABEL] != "trainer":
            return True
        owner = meta(pod)["ownerReferences"][0]["uid"]
        (job,) = [each for each in self.api.of(PYTORCH_JOB) if uid_of(each) == owner] or [None]
        if job is None:
            return False
        ((_kind, replicas),) = job["spec"]["pytorchReplicaSpecs"].items()
        return len([each for each in self._pods_of(job) if each["spec"].get("nodeName")]) == replicas["replicas"]

    def _start(self, pod: Obj) -> None:
        now = format_time(self.now)
        container = {"name": "pytorch", "state": {"running": {"startedAt": now}}}
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
        status = {
            "phase": "Running", "podIP": "10.0.0.9", "startedAt": now, "containerStatuses": [container],
            "conditions": [scheduled],
        }  # fmt: skip
        self.api.update({**pod, "spec": {"nodeName": "node-1"}, "status": status})

    def _disrupt(self, pod: Obj, run: Run) -> None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": run.disrupted, "message": "so it is"}
        self.api.update({**pod, "status": {**pod["status"], "conditions": [condition]}})
        self.api.remove(POD, self.api.objects[POD, meta(pod)["namespace"], name_of(pod)])

    def _terminate(self, pod: Obj, run: Run) -> None:
        terminated = {
            "exitCode": run.code,
            "reason": run.reason or ("Completed" if run.code == 0 else "Error"),
            "startedAt": pod["status"].get("startedAt"),
            "finishedAt": format_time(self.now),
            "message": run.words.encode() if run.words else "",
        }
        # The container ends first; the pod's phase follows at the next tick.
        ended = [{"name": "pytorch", "state": {"terminated": terminated}}]
        self.api.update({**pod, "status": {**pod["status"], "containerStatuses": ended}})

    def _watch_for_two_writers(self) -> None:
        """Attempts of one job that hold pods at the same time: more than one would spoil its checkpoints."""
        attempts: dict[str, set[str]] = {}
        for pod in self.api.of(POD):
            labels = labels_of(pod)
            if labels[ROLE_LABEL] == "trainer" and pod["status"]["phase"] in {"Pending", "Running"}:
                # By object, since one attempt may be made again: then all of its first pods must have gone.
                made_by = f"{labels[ATTEMPT_LABEL]} {meta(pod)['ownerReferences'][0]['uid']}"
                attempts.setdefault(labels["anneal.dev/owner-uid"], set()).add(made_by)
        self.most_writers = max([self.most_writers, *map(len, attempts.values())])


def _index(pod: Obj) -> int:
    return int(labels_of(pod)["training.kubeflow.org/replica-index"])


def _has_ended(pod: Obj) -> bool:
    containers = pod["status"].get("containerStatuses") or [{}]
    return "terminated" in containers[0].get("state", {})


def _code(pod: Obj) -> int:
    (container,) = pod["status"]["containerStatuses"]
    return int(container["state"]["terminated"]["exitCode"])
