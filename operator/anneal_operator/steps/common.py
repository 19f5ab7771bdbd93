"""What prepare and train share: making what pods need around them, and saying why something does not start."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from anneal_api.conditions import ConditionType, Reason
from anneal_api.meta import ROLE_TRAINER
from anneal_api.names import attempt_name
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


def surroundings(draft: Draft, workload: Obj) -> None:
    """Have a workload made, and before it what its pods mount; nothing, if something was refused just now."""
    plan = draft.plan
    if not draft.world.refusals:
        own_claim = [claim.build(plan)] if plan.owns_claim else []
        draft.apply += [*own_claim, configmap.build(plan), networkpolicy.build(plan), workload]
    draft.own(config_map=plan.config_name, network_policy=plan.base, claim=plan.claim)


def holds(draft: Draft) -> bool:
    """Whether pods of the trainer hold GPUs, or an object exists that would make some. Also of a spec that is wrong."""
    attempt, job = draft.attempts[-1] if draft.attempts else None, draft.world.job
    if attempt is not None and attempt.end_time is None:
        name = attempt_name(name_of(job), uid_of(job), attempt.number)
        if any(name_of(obj) == name for obj in draft.world.children.pytorch_jobs):
            return True
    pods = (view(pod) for pod in draft.world.children.pods)
    return any(pod.role == ROLE_TRAINER and pod.holds_resources for pod in pods)


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
