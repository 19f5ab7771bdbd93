"""Which pods' output is wanted, and what to say where there is none. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anneal_api import ConditionType
from anneal_api.meta import ATTEMPT_LABEL, ROLE_LABEL, ROLE_PREPARE, ROLE_ROLLOUT, ROLE_TRAINER
from anneal_api.status import JobStatus

_UNSEEN = "the operator has not seen the job yet"
RANK_LABEL = "training.kubeflow.org/replica-index"
# Beside it there is one that hands adapters over.
_SERVER_CONTAINER = "vllm"


@dataclass(frozen=True)
class Wanted:
    """What was asked for; neither: the last attempt, or the prepare pod while there is no attempt."""

    prepare: bool = False
    attempt: int | None = None
    servers: bool = False


@dataclass(frozen=True)
class PodLog:
    """A pod whose output may be read."""

    name: str
    uid: str
    rank: int
    started: bool
    # None: its only one.
    container: str | None = None

    def prefix(self, pods: int) -> str:
        """Which rank a line is from, where there are several."""
        return f"[{self.rank}] " if pods > 1 else ""


def chosen(pods: Iterable[dict[str, Any]], wanted: Wanted) -> list[PodLog]:
    """The wanted ones of a job's pods, by rank."""
    by_role: dict[str, list[dict[str, Any]]] = {}
    for pod in pods:
        by_role.setdefault(_labels(pod).get(ROLE_LABEL, ""), []).append(pod)
    if wanted.servers:
        named = sorted(by_role.get(ROLE_ROLLOUT, []), key=_name)
        return [replace(_pod_log(pod), rank=index, container=_SERVER_CONTAINER) for index, pod in enumerate(named)]
    trainers, prepares = by_role.get(ROLE_TRAINER, []), by_role.get(ROLE_PREPARE, [])
    if wanted.prepare or not (trainers or wanted.attempt):
        # A prepare Job that was retried has several pods; the last one counts.
        return [_pod_log(pod) for pod in sorted(prepares, key=_created)[-1:]]
    attempt = wanted.attempt or max(map(_attempt, trainers))
    of_attempt = [pod for pod in trainers if _attempt(pod) == attempt]
    return sorted(map(_pod_log, of_attempt), key=lambda pod: pod.rank)


def is_over(job: dict[str, Any], wanted: Wanted) -> bool:
    """Whether nothing more of what is wanted will be printed."""
    status = JobStatus.model_validate(job.get("status") or {})
    true = {condition.type for condition in status.conditions if condition.status == "True"}
    if true & {ConditionType.SUCCEEDED, ConditionType.FAILED}:
        return True
    if wanted.prepare:
        return ConditionType.DATA_READY in true
    return any(attempt.number == wanted.attempt and attempt.end_time for attempt in status.attempts)


def nothing_to_show(job: dict[str, Any], wanted: Wanted, pods: Sequence[PodLog]) -> str:
    """Why there is no output, and where to look instead."""
    status = JobStatus.model_validate(job.get("status") or {})
    if pods:
        return f"no pod has started yet: {status.message or _UNSEEN}"
    if wanted.prepare:
        by = status.dataset and status.dataset.prepared_by
        return (
            f"the data was prepared by the job {by}: `anneal logs {by} --prepare`" if by else "no prepare pod is left"
        )
    if wanted.servers:
        said = [each.message for each in status.conditions if each.type == ConditionType.ROLLOUT_READY]
        return f"no server is there: {said[0]}" if said else "the job has no servers of its own"
    number = wanted.attempt or (status.attempts[-1].number if status.attempts else None)
    attempt = next((a for a in status.attempts if a.number == number), None)
    if attempt is None:
        begun = f"the last one is {status.attempts[-1].number}" if status.attempts else "none has begun"
        return f"no attempt {number}; {begun}" if number else f"no pod yet: {status.message or _UNSEEN}"
    if attempt.log is None:
        return f"the pods of attempt {number} are gone, and it left no log on the storage"
    return f"the pods of attempt {number} are gone; its log is kept at {attempt.log}"


def _pod_log(pod: dict[str, Any]) -> PodLog:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    started = any("running" in c.get("state", {}) or "terminated" in c.get("state", {}) for c in statuses)
    rank = int(_labels(pod).get(RANK_LABEL, 0))
    return PodLog(pod["metadata"]["name"], pod["metadata"].get("uid", ""), rank, started)


def _labels(pod: dict[str, Any]) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _attempt(pod: dict[str, Any]) -> int:
    return int(_labels(pod).get(ATTEMPT_LABEL, 0))


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _created(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))
