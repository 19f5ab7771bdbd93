"""Accept: whether the job can be carried out on this cluster at all. Owns `Accepted`.

What the API server lets through is parsed again with the same models (an older CRD may be installed), then checked
against what only the operator knows: pools, storage, and the other jobs. An attempt that already runs is left alone.
"""

from collections.abc import Iterator
from datetime import timedelta

from anneal_api.conditions import ConditionType, Reason
from anneal_api.problems import ManifestError
from anneal_operator.draft import Draft
from anneal_operator.kinds import meta, parse_time, true_condition
from anneal_operator.neighbours import Neighbour
from anneal_operator.plan import Plan, plan_of
from anneal_operator.steps import origin, pool_checks, queue_checks
from anneal_operator.steps.common import Objection, holds
from anneal_operator.world import StorageFacts, World

LOOK_AGAIN = timedelta(seconds=30)
_FINE, _WAITS = "the job can be carried out", ", and waits for nodes: "
_SHARED = frozenset({"ReadWriteMany"})


def accept(draft: Draft) -> bool:
    """Parse and check; False where nothing can go on."""
    world = draft.world
    try:
        draft.plan = plan_of(world.job, world.settings, world.node_groups, on_one_node=world.on_one_node)
    except ManifestError as error:
        problems = "; ".join(map(str, error.problems))
        draft.set(ConditionType.ACCEPTED, "False", Reason.INVALID_SPEC, problems)
        return False
    plan = draft.plan
    draft.fields |= {"pool": plan.pool_name, "gpus": _gpus(draft), "suspended_seconds": _suspended_seconds(draft)}
    # One that holds nothing and whose pool is not known any more must not get pods anywhere else.
    known = plan.choice.known and plan.rollout_choice.known
    if _attempt_is_under_way(draft) and (known or holds(draft)):
        return True
    if objections := list(_objections(plan, world)):
        reason = objections[0][0]
        draft.set(ConditionType.ACCEPTED, "False", reason, "; ".join(words for _, words in objections))
        # Claims, storage classes and nodes are not watched.
        draft.wake_at(draft.world.now + LOOK_AGAIN)
        return False
    _accepted(draft)
    draft.own(claim=plan.claim)
    return True


def _accepted(draft: Draft) -> None:
    """The job may wait for nodes that are not there: it is told once, and the sentence stays as long as it is so."""
    warnings = pool_checks.warnings(draft.plan)
    hint = _on_one_node(draft.plan, draft.world.storage)
    message = f"{_FINE}{_WAITS}{'; '.join(warnings)}" if warnings else _FINE
    warned = draft.is_true(ConditionType.ACCEPTED) and _WAITS in draft.message(ConditionType.ACCEPTED)
    if warnings and not warned:
        draft.tell("WaitsForNodes", message, warning=True)
    if warnings:
        draft.wake_at(draft.world.now + LOOK_AGAIN)
    draft.set(ConditionType.ACCEPTED, "True", Reason.VALID, "; ".join(filter(None, (message, hint))))


def _attempt_is_under_way(draft: Draft) -> bool:
    return bool(draft.attempts) and draft.attempts[-1].end_time is None


def _gpus(draft: Draft) -> int:
    """Those of the attempt that is under way, which may have fewer nodes than the job asks for."""
    nodes = draft.attempts[-1].nodes if _attempt_is_under_way(draft) else None
    return nodes * draft.plan.spec.compute.gpus_per_node if nodes else draft.plan.gpus


def _objections(plan: Plan, world: World) -> Iterator[Objection]:
    yield from pool_checks.objections(plan)
    yield from _storage_objections(plan, world.storage)
    yield from _output_objections(plan, world)
    yield from queue_checks.objections(plan, world.queue, world.priority_classes)
    yield from origin.objections(plan, world.neighbours)


def _storage_objections(plan: Plan, storage: StorageFacts) -> Iterator[Objection]:
    if not storage.known:
        return
    if plan.owns_claim and storage.claim is None and not storage.class_exists:
        wanted = plan.settings.storage.default_class
        classes = f"; its classes are: {', '.join(storage.classes)}" if storage.classes else ""
        missing = f"has no StorageClass {wanted!r}" if wanted else "has no default StorageClass"
        words = (
            f"spec.storage: the job names no claim and this cluster {missing}{classes}: write "
            "storage: {volume: {claimName: NAME}}, or set storage.defaultClass in the chart's values"
        )
        yield Reason.NO_STORAGE, words
    modes = _access_modes(plan, storage)
    if modes and not _SHARED & set(modes) and (words := _must_share(plan, modes)):
        yield Reason.STORAGE_NOT_SHARED, words


def _must_share(plan: Plan, modes: list[str]) -> str:
    """Why a claim that one node can use is not enough; empty where all pods may be on one."""
    has = f"spec.storage: claim {plan.claim} has access mode {', '.join(modes)}, but"
    remedy = "must share it: use a claim with ReadWriteMany"
    if plan.nodes > 1:
        return f"{has} {plan.nodes} nodes {remedy}, or nodes: 1"
    if plan.rollout is None:
        return ""
    if modes == ["ReadWriteOncePod"]:
        return f"{has} the trainer and its servers {remedy}, or ReadWriteOnce"
    if _are_apart(plan):
        return f"{has} the trainer and its servers, which cannot be on one node, {remedy}"
    return ""


def _are_apart(plan: Plan) -> bool:
    """Whether no node has room for the trainer and all its servers, as far as pools tell."""
    own, servers = plan.choice, plan.rollout_choice
    labels, others = own.pool.node_selector, servers.pool.node_selector
    if any(labels[key] != others[key] for key in labels.keys() & others.keys()):
        return True
    most = own.pool.gpus_per_node
    return own.name == servers.name and most is not None and plan.gpus + plan.rollout_gpus > most


def _on_one_node(plan: Plan, storage: StorageFacts) -> str:
    """What a claim that only one node can use asks of a job with servers."""
    modes = _access_modes(plan, storage) if storage.known and plan.rollout else []
    if not modes or _SHARED & set(modes):
        return ""
    return (
        f"claim {plan.claim} has access mode {', '.join(modes)}: the trainer and its servers must find room on one "
        "node, or use a claim with ReadWriteMany"
    )


def _access_modes(plan: Plan, storage: StorageFacts) -> list[str]:
    """Those of the claim, or of the one that would be made; empty while a named claim does not exist yet."""
    if storage.claim is not None:
        return list((storage.claim.get("spec") or {}).get("accessModes") or [])
    return list(plan.settings.storage.access_modes) if plan.owns_claim else []


def _output_objections(plan: Plan, world: World) -> Iterator[Objection]:
    created = meta(world.job).get("creationTimestamp", "")
    accepted = true_condition(world.job, ConditionType.ACCEPTED) is not None
    for other in world.neighbours:
        if other.comes_before(accepted=accepted, created=created, uid=plan.uid) and _overlap(plan, other):
            words = (
                f"spec.output.path: {plan.output} on claim {plan.claim} is written by job {other.name}: "
                "choose another directory, or delete that job"
            )
            yield Reason.OUTPUT_IN_USE, words


def _overlap(plan: Plan, other: Neighbour) -> bool:
    if other.claim != plan.claim:
        return False
    mine, theirs = f"{plan.output}/", f"{other.output}/"
    return mine.startswith(theirs) or theirs.startswith(mine)


def _suspended_seconds(draft: Draft) -> int | None:
    """Time between suspended attempts and the ones that resumed them."""
    total, resumed = 0.0, False
    for before, after in zip(draft.attempts, draft.attempts[1:], strict=False):
        ended, began = parse_time(before.end_time), parse_time(after.start_time)
        if before.outcome == "Suspended" and ended and began:
            total, resumed = total + (began - ended).total_seconds(), True
    return int(total) if resumed else None
