"""What prepare and train share: making what pods need around them, and saying why something does not start."""

from datetime import timedelta

from anneal_api.conditions import ConditionType, Reason
from anneal_operator.draft import Draft
from anneal_operator.kinds import Obj
from anneal_operator.manifests import claim, configmap, networkpolicy
from anneal_operator.waiting import Waiting

# How soon a refused child is tried again, and how often Events are read while something does not start.
RETRY = timedelta(seconds=15)


def surroundings(draft: Draft, workload: Obj) -> None:
    """Have a workload made, and before it what its pods mount; nothing, if something was refused just now."""
    plan = draft.plan
    if not draft.world.refusals:
        own_claim = [claim.build(plan)] if plan.owns_claim else []
        draft.apply += [*own_claim, configmap.build(plan), networkpolicy.build(plan), workload]
    draft.own(config_map=plan.config_name, network_policy=plan.base, claim=plan.claim)


def explain(draft: Draft, kind: ConditionType, waits: Waiting, *about: Obj) -> None:
    """Say why something does not start, and look again in a while: not everything that may change is watched."""
    draft.set(kind, "False", waits.reason, waits.message)
    if waits.puzzling:
        draft.puzzling += about
    if waits.reason is Reason.WAITING_FOR_CONFIG_MAP and draft.plan.config_name in waits.message:
        # Ours, and somebody removed it.
        draft.apply.append(configmap.build(draft.plan))
        draft.verify.add(draft.plan.config_name)
    draft.wake_at(draft.world.now + RETRY)
