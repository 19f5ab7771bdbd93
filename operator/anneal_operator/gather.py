"""Everything a pass looks at, put together: mostly from the store, a little read on demand.

On demand are read: storage claims where their access modes matter, storage classes where a claim must be made, the
newest warning Events of what does not start, and a finished job's unwatched children when their time has come. Each is
rare, so that reading it costs less than watching it, and less privilege. Nodes change every few seconds and matter to
jobs with GPUs alone: they are listed once for all jobs, now and then.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from anneal_api.online import ONLINE
from anneal_api.problems import ManifestError
from anneal_operator.cluster import Cluster
from anneal_operator.errors import NotFoundError
from anneal_operator.kinds import (
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    JOB,
    NETWORK_POLICY,
    POD,
    PYTORCH_JOB,
    SERVICE,
    STORAGE_CLASS,
    WORKLOAD,
    Kind,
    Obj,
    meta,
    name_of,
    true_condition,
    uid_of,
)
from anneal_operator.kueue import QueueFacts
from anneal_operator.lookups import Lookups
from anneal_operator.nodes import NodeCache
from anneal_operator.plan import Plan, plan_of
from anneal_operator.queue_facts import priority_classes, queue_facts
from anneal_operator.settings import Settings
from anneal_operator.store import Store, owner_uid
from anneal_operator.world import Children, Report, StorageFacts, World

# Where status.children has their names.
_UNWATCHED = {CONFIG_MAP: ("configMap", "preview"), NETWORK_POLICY: ("networkPolicy",), SERVICE: ("rollout",)}
# Access modes of a claim that pods on several nodes can mount.
_MANY_NODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


async def gather(
    job: Obj,
    *,
    store: Store,
    lookups: Lookups,
    nodes: NodeCache,
    settings: Settings,
    now: datetime,
    report: Report | None,
) -> World:
    """The world around one job."""
    cluster, neighbours = lookups.cluster, store.neighbours(meta(job)["namespace"])
    queue, classes = await _queue(job, store, lookups)
    return World(
        job=job,
        settings=settings,
        now=now,
        children=await _children(job, store, cluster),
        neighbours=neighbours,
        storage=await _storage(job, cluster, settings),
        on_one_node=await _on_one_node(job, lookups, settings),
        node_groups=await nodes.groups(now) if _wants_gpus(job) else (),
        queue=queue,
        priority_classes=classes,
        workload_names={each.base: each.name for each in neighbours} if queue else {},
        report=report,
    )


async def _queue(job: Obj, store: Store, lookups: Lookups) -> tuple[QueueFacts | None, Mapping[str, int] | None]:
    """What the spec names of queues and priorities, while that matters."""
    spec = job.get("spec") or {}
    name, priority = spec.get("queue"), spec.get("priorityClass")
    if _is_over(job):
        return None, None
    classes = await priority_classes(lookups, queued=bool(name)) if priority else None
    if not name:
        return None, classes
    workload = next(iter(store.children(uid_of(job), WORKLOAD)), None)
    return await queue_facts(meta(job)["namespace"], name, workload, lookups), classes


def _is_corrected(job: Obj) -> bool:
    """A job that failed may start anew with another manifest."""
    observed = int((job.get("status") or {}).get("observedGeneration", 0))
    return observed < int(meta(job).get("generation", 0))


async def _children(job: Obj, store: Store, cluster: Cluster) -> Children:
    uid = uid_of(job)
    ended = true_condition(job, "Succeeded", "Failed") is not None
    unwatched = list(_UNWATCHED) if ended and _has_ttl(job) else []
    found = {kind: [each async for each in _recorded(job, kind, cluster)] for kind in unwatched}
    return Children(
        prepare_jobs=tuple(store.children(uid, JOB)),
        pytorch_jobs=tuple(store.children(uid, PYTORCH_JOB)),
        pods=tuple(store.children(uid, POD)),
        workloads=tuple(store.children(uid, WORKLOAD)),
        deployments=tuple(store.children(uid, DEPLOYMENT)),
        departed_pods=tuple(store.departed_pods(uid)),
        config_maps=tuple(found.get(CONFIG_MAP, ())),
        network_policies=tuple(found.get(NETWORK_POLICY, ())),
        services=tuple(found.get(SERVICE, ())),
    )


def _wants_gpus(job: Obj) -> bool:
    """Whether nodes with GPUs matter to it; they are not asked for by a job that has ended, or computes on CPUs."""
    spec = job.get("spec") or {}
    trains, draws = (spec.get("compute") or {}).get("gpusPerNode") != 0, bool((spec.get("rollout") or {}).get("gpus"))
    return (trains or draws) and not _is_over(job)


def _is_over(job: Obj) -> bool:
    return true_condition(job, "Succeeded", "Failed") is not None and not _is_corrected(job)


def _has_ttl(job: Obj) -> bool:
    return ((job.get("spec") or {}).get("runPolicy") or {}).get("ttlSecondsAfterFinished") is not None


async def _recorded(job: Obj, kind: Kind, cluster: Cluster) -> AsyncIterator[Obj]:
    """Unwatched children by the names that status records, if they are this job's."""
    names = (job.get("status") or {}).get("children") or {}
    recorded = [names.get(key) for key in _UNWATCHED[kind]]
    for name in filter(None, recorded):
        with suppress(NotFoundError):
            obj = await cluster.get(kind, meta(job)["namespace"], name)
            if owner_uid(obj) == uid_of(job):
                yield obj


async def _storage(job: Obj, cluster: Cluster, settings: Settings) -> StorageFacts:
    """What must be known about the claim before the job is accepted; nothing once an attempt is recorded."""
    if (job.get("status") or {}).get("attempts") or true_condition(job, "Succeeded", "Failed"):
        return StorageFacts()
    try:
        plan = plan_of(job, settings)
    except ManifestError:
        return StorageFacts()
    if not plan.owns_claim and plan.nodes == 1 and plan.rollout is None:
        return StorageFacts()
    claim = await _claim(plan, cluster)
    if claim is not None or not plan.owns_claim:
        return StorageFacts(known=True, claim=claim)
    classes = await cluster.list_all(STORAGE_CLASS)
    names = tuple(sorted(map(name_of, classes)))
    wanted = settings.storage.default_class
    return StorageFacts(known=True, class_exists=wanted in names if wanted else _any_default(classes), classes=names)


async def _claim(plan: Plan, cluster: Cluster) -> Obj | None:
    try:
        return await cluster.get(CLAIM, plan.namespace, plan.claim)
    except NotFoundError:
        return None


async def _on_one_node(job: Obj, lookups: Lookups, settings: Settings) -> bool:
    """Whether a claim that the trainer and its servers mount can be used on one node at a time."""
    if _is_over(job) or (job.get("spec") or {}).get("method") not in ONLINE:
        return False
    try:
        plan = plan_of(job, settings)
    except ManifestError:
        return False
    if plan.rollout is None:
        return False
    claims = [await lookups.get(CLAIM, plan.namespace, each) for each in (plan.claim, *plan.source_claims)]
    modes = [((each or {}).get("spec") or {}).get("accessModes") for each in claims]
    if plan.owns_claim and claims[0] is None:
        modes[0] = settings.storage.access_modes
    return any(each and not _MANY_NODES & set(each) for each in modes)


def _any_default(classes: Iterable[Obj]) -> bool:
    return any((meta(each).get("annotations") or {}).get(_DEFAULT_CLASS) == "true" for each in classes)


async def newest_warning(obj: Obj, cluster: Cluster) -> str:
    """The newest warning Event about an object, empty if there is none."""
    events = await cluster.list_all(EVENT, meta(obj)["namespace"], fields=f"regarding.uid={uid_of(obj)},type=Warning")
    newest = max(events, key=_event_time, default=None)
    return str(newest.get("note", "")) if newest else ""


def _event_time(event: Obj) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")
