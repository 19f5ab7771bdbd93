"""What prepare and train share: making what pods need around them, and saying why something does not start."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from anneal_api.conditions import ConditionType, Reason
from anneal_api.meta import ROLE_ROLLOUT, ROLE_TRAINER
from anneal_api.names import attempt_name
from anneal_api.status import Attempt, RolloutReport
from anneal_operator import attempts as policy
from anneal_operator.draft import Draft
from anneal_operator.kinds import Obj, meta, name_of, parse_time, uid_of
from anneal_operator.manifests import claim, configmap, networkpolicy
from anneal_operator.pods import PodView, view
from anneal_operator.waiting import Waiting

# Why a job cannot be carried out as it is.
Objection = tuple[Reason, str]
# How soon a refused child is tried again, and how often Events are read while something does not start.
RETRY = timedelta(seconds=15)
USUAL_START = timedelta(seconds=10)
# The watch of pods may be behind the one of their controller: how long its word is not taken without theirs.
WATCHES_AGREE = timedelta(seconds=5)


def surroundings(draft: Draft, *workloads: Obj) -> None:
    """Have workloads made, and before them what their pods mount; nothing, if something was refused just now."""
    plan = draft.plan
    if not draft.world.refusals:
        own_claim = [claim.build(plan)] if plan.owns_claim else []
        draft.apply += [*own_claim, configmap.build(plan), networkpolicy.build(plan), *workloads]
    draft.own(config_map=plan.config_name, network_policy=plan.base, claim=plan.claim)


def holds(draft: Draft) -> bool:
    """Whether pods hold GPUs, or an object exists that would make some. Also of a spec that is wrong."""
    return trains(draft) or bool(draft.world.children.deployments) or bool(lingering(draft, ROLE_ROLLOUT))


def trains(draft: Draft) -> bool:
    """The same of the trainer alone."""
    attempt, job = draft.attempts[-1] if draft.attempts else None, draft.world.job
    if attempt is not None and attempt.end_time is None:
        name = attempt_name(name_of(job), uid_of(job), attempt.number)
        if any(name_of(obj) == name for obj in draft.world.children.pytorch_jobs):
            return True
    return bool(lingering(draft, ROLE_TRAINER))


def lingering(draft: Draft, *roles: str) -> list[PodView]:
    """Pods of these roles that may still write, or hold GPUs."""
    pods = (view(pod) for pod in draft.world.children.pods)
    return [pod for pod in pods if pod.role in roles and pod.holds_resources]


def names(pods: Sequence[PodView]) -> str:
    """Pods for a sentence."""
    return "pod " + ", ".join(pod.name for pod in pods)


def off_for_good(pods: Sequence[PodView]) -> str:
    """What to do about one on a node that is off: it stays until a person or the cloud removes the node."""
    lost = next((pod for pod in pods if pod.deleting and pod.disruption in policy.NODE_LOST), None)
    if lost is None:
        return ""
    return f"; if node {lost.node} is off for good, delete the node, or the pod with --force"


def out_of_time(draft: Draft) -> bool:
    """Whether the job has trained for as long as it may."""
    limit = draft.plan.spec.run_policy.active_deadline_seconds
    return limit is not None and policy.running_seconds(draft.attempts, draft.world.now) >= limit


def gpu_hours(draft: Draft, attempts: Sequence[Attempt]) -> float:
    """Of each attempt with the nodes that it had, and of the servers from when they ran."""
    plan, now = draft.plan, draft.world.now
    node_seconds = sum(policy.running_seconds([each], now) * (each.nodes or plan.nodes) for each in attempts)
    trained = plan.spec.compute.gpus_per_node * node_seconds / 3600.0
    return round(trained + server_hours(draft.value("rollout"), now), 4)


def server_hours(report: RolloutReport | None, now: datetime) -> float:
    """GPUs x hours of the servers that were, and of those that are."""
    if report is None:
        return 0.0
    since = parse_time(report.since)
    running = max(0.0, (now - since).total_seconds()) if since else 0.0
    return (report.gpu_hours or 0.0) + (report.gpus or 0) * running / 3600.0


def upcoming(draft: Draft) -> policy.Again | policy.Over | None:
    """What follows the last attempt; None before the first one, and while one is under way."""
    if not draft.attempts or draft.attempts[-1].end_time is None:
        return None
    return policy.next_step(draft.attempts, retries(draft))


def retries(draft: Draft) -> policy.Retries:
    """What the spec says about trying again."""
    spec = draft.plan.spec
    return policy.Retries(
        most=spec.run_policy.max_retries,
        micro_batch_size=spec.training.micro_batch,
        may_checkpoint=spec.compute.memory_fit == "autotune" and not spec.training.gradient_checkpointing,
    )


def pods_may_be_late(draft: Draft, pods: Sequence[PodView], concluded: datetime | None) -> bool:
    """Whether a controller calls its work over before the pods that tell why are known to have ended."""
    if any(pod.holds_resources for pod in pods):
        return True
    if pods or concluded is None or draft.world.now >= concluded + WATCHES_AGREE:
        return False
    draft.wake_at(concluded + WATCHES_AGREE)
    return True


def _is_late(obj: Obj, now: datetime) -> bool:
    """Whether it has had more than the usual time to start."""
    created = parse_time(meta(obj).get("creationTimestamp"))
    return created is not None and now - created >= USUAL_START


def explain(draft: Draft, kind: ConditionType, waits: Waiting, *about: Obj) -> None:
    """Say why something does not start, and look again in a while: not everything that may change is watched."""
    draft.set(kind, "False", waits.reason, waits.message)
    if waits.puzzling:
        draft.puzzling += [obj for obj in about if _is_late(obj, draft.world.now)]
    if waits.reason is Reason.WAITING_FOR_CONFIG_MAP and draft.plan.config_name in waits.message:
        # Ours, and somebody removed it.
        draft.apply.append(configmap.build(draft.plan))
        draft.verify.add(draft.plan.config_name)
    draft.wake_at(draft.world.now + RETRY)
