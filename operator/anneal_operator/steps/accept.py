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
from anneal_operator.steps import origin, queue_checks
from anneal_operator.steps.common import Objection
from anneal_operator.world import StorageFacts, World

LOOK_AGAIN = timedelta(seconds=30)
_SHARED = frozenset({"ReadWriteMany"})


def accept(draft: Draft) -> bool:
    """Parse and check; False where nothing can go on."""
    world = draft.world
    try:
        draft.plan = plan_of(world.job, world.settings)
    except ManifestError as error:
        problems = "; ".join(map(str, error.problems))
        draft.set(ConditionType.ACCEPTED, "False", Reason.INVALID_SPEC, problems)
        return False
    plan = draft.plan
    draft.fields |= {"pool": plan.pool_name, "gpus": plan.gpus, "suspended_seconds": _suspended_seconds(draft)}
    if _attempt_is_under_way(draft):
        return True
    objection = next(_objections(plan, world), None)
    if objection:
        draft.set(ConditionType.ACCEPTED, "False", *objection)
        # Claims and storage classes are not watched.
        draft.wake_at(draft.world.now + LOOK_AGAIN)
        return False
    draft.set(ConditionType.ACCEPTED, "True", Reason.VALID, "the job can be carried out")
    draft.own(claim=plan.claim)
    return True


def _attempt_is_under_way(draft: Draft) -> bool:
    return bool(draft.attempts) and draft.attempts[-1].end_time is None


def _objections(plan: Plan, world: World) -> Iterator[Objection]:
    yield from _pool_objections(plan)
    yield from _storage_objections(plan, world.storage)
    yield from _output_objections(plan, world)
    yield from queue_checks.objections(plan, world.queue, world.priority_classes)
    yield from origin.objections(plan, world.neighbours)


def _pool_objections(plan: Plan) -> Iterator[Objection]:
    name, compute, pools = plan.pool_name, plan.spec.compute, plan.settings.pools
    if name is None:
        return
    if name not in pools:
        known = ", ".join(sorted(pools)) or "none: the chart's values name no pools, so leave spec.compute.pool out"
        yield Reason.UNKNOWN_POOL, f"spec.compute.pool: {name!r} is not a pool of this cluster; its pools are: {known}"
        return
    pool, gpus = pools[name], compute.gpus_per_node
    if gpus and not pool.resource_name:
        words = f"spec.compute.gpusPerNode: {gpus}, but pool {name!r} has no GPUs: write 0, or choose another pool"
        yield Reason.INVALID_SPEC, words
    if pool.resource_name and pool.gpus_per_node and gpus > pool.gpus_per_node:
        words = (
            f"spec.compute.gpusPerNode: {gpus}, but a node of pool {name!r} has {pool.gpus_per_node}: "
            "write at most that, and more nodes"
        )
        yield Reason.INVALID_SPEC, words


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
    if plan.nodes > 1 and modes and not _SHARED & set(modes):
        words = (
            f"spec.storage: claim {plan.claim} has access mode {', '.join(modes)}, but {plan.nodes} nodes "
            "must share it: use a claim with ReadWriteMany, or nodes: 1"
        )
        yield Reason.STORAGE_NOT_SHARED, words


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
