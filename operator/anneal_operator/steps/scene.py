"""What there is of one attempt: its object and its pods. Not here: what it means."""

from collections.abc import Sequence
from dataclasses import dataclass

from anneal_api.status import Attempt
from anneal_operator import engine
from anneal_operator.draft import Draft
from anneal_operator.engine import EngineView
from anneal_operator.kinds import Obj, meta, uid_of
from anneal_operator.pods import EPOCH, PodView, view


@dataclass(frozen=True)
class Scene:
    """The attempt's object and pods."""

    obj: Obj | None
    engine: EngineView
    pods: Sequence[PodView]
    nodes: int

    @property
    def alive(self) -> list[PodView]:
        """Pods that may still write."""
        return [pod for pod in self.pods if pod.holds_resources]

    @property
    def rank_zero(self) -> PodView | None:
        """The newest pod of index 0: the one that reports."""
        zeros = [pod for pod in self.pods if pod.index == 0]
        return max(zeros, key=lambda pod: (not pod.gone, pod.created or EPOCH)) if zeros else None


def scene(draft: Draft, attempt: Attempt) -> Scene:
    """What there is of an attempt."""
    children = draft.world.children
    obj = engine.find(children.pytorch_jobs, draft.plan.attempt_name(attempt.number))
    pods = [view(pod) for pod in children.pods] + [view(pod, gone=True) for pod in children.departed_pods]
    mine = [pod for pod in pods if pod.role == "trainer" and pod.attempt == attempt.number]
    mine = sorted((pod for pod in mine if not _was_given_back(pod, attempt, obj)), key=in_order)
    return Scene(obj, engine.observe(obj), mine, attempt.nodes or draft.plan.nodes)


def _was_given_back(pod: PodView, attempt: Attempt, obj: Obj | None) -> bool:
    """Whether a vanished pod was of an earlier object of the same attempt; a watch may tell of it late, or twice."""
    if not (attempt.unplaced and pod.gone):
        return False
    if obj is None:
        return attempt.running_time is None
    return all(owner.get("uid") != uid_of(obj) for owner in meta(pod.raw).get("ownerReferences") or [])


def in_order(pod: PodView) -> tuple[int, str]:
    """By rank."""
    return pod.index, pod.name
