"""A pod as the steps see it: where it is, whether it runs, how it ended, and what it said last.

Not here: what an end means for the job (`attempts`), or why a pod does not start (`waiting`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from anneal_api.meta import ATTEMPT_LABEL, ROLE_LABEL, ROLE_ROLLOUT
from anneal_api.progress import TerminationMessage
from anneal_operator.kinds import Obj, is_deleting, labels_of, meta, name_of, parse_time, true_condition, uid_of

CONTAINER = "pytorch"
SERVER_CONTAINER = "vllm"
# Sorts before every time that a pod can have.
EPOCH = datetime.fromtimestamp(0, UTC)
REPLICA_INDEX_LABEL = "training.kubeflow.org/replica-index"
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Ended:
    """How the container ended."""

    exit_code: int
    reason: str
    time: datetime | None
    words: TerminationMessage | None
    text: str


@dataclass(frozen=True)
class PodView:
    """One pod."""

    name: str
    uid: str
    role: str
    attempt: int
    index: int
    phase: str
    node: str | None
    ip: str | None
    created: datetime | None
    started: datetime | None
    deleting: bool
    gone: bool
    ended: Ended | None
    disruption: str | None
    disruption_message: str
    reason: str
    raw: Obj

    @property
    def holds_resources(self) -> bool:
        """Whether it may still write to storage or hold a GPU."""
        return not self.gone and self.phase not in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it did its work."""
        return self.phase == "Succeeded" or (self.ended is not None and self.ended.exit_code == 0)

    @property
    def failed(self) -> bool:
        """Whether it ended without doing its work."""
        return self.phase == "Failed" or (self.ended is not None and self.ended.exit_code != 0)

    @property
    def running(self) -> bool:
        """Whether its container runs now."""
        return not self.gone and self.started is not None and self.ended is None and self.phase == "Running"


def view(pod: Obj, *, gone: bool = False) -> PodView:
    """Read a pod."""
    status = pod.get("status") or {}
    container = _container(pod)
    state = container.get("state") or {}
    terminated = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    begun = state.get("running") or terminated or {}
    disruption = true_condition(pod, "DisruptionTarget") or {}
    labels = labels_of(pod)
    return PodView(
        name=name_of(pod),
        uid=uid_of(pod),
        role=labels.get(ROLE_LABEL, ""),
        attempt=_number(labels.get(ATTEMPT_LABEL)),
        index=_number(labels.get(REPLICA_INDEX_LABEL)),
        phase=status.get("phase", "Pending"),
        node=(pod.get("spec") or {}).get("nodeName"),
        ip=status.get("podIP"),
        created=parse_time(meta(pod).get("creationTimestamp")),
        started=parse_time(begun.get("startedAt")),
        deleting=is_deleting(pod),
        gone=gone,
        ended=_ended(terminated) if terminated else None,
        disruption=disruption.get("reason"),
        disruption_message=disruption.get("message", ""),
        reason=status.get("reason", ""),
        raw=pod,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _container(pod: Obj) -> Obj:
    name = SERVER_CONTAINER if labels_of(pod).get(ROLE_LABEL) == ROLE_ROLLOUT else CONTAINER
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Obj = next((each for each in statuses if each.get("name") == name), {})
    return found


def _ended(terminated: Obj) -> Ended:
    text = terminated.get("message", "")
    return Ended(
        exit_code=int(terminated.get("exitCode", 0)),
        reason=terminated.get("reason", ""),
        time=parse_time(terminated.get("finishedAt")),
        words=TerminationMessage.decode(text) if text else None,
        text=text,
    )
