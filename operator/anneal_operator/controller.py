"""Passes and their effects: what a decision says is carried out here, in its order, and nothing else is.

    apply -> delete -> amend -> status -> events

Every effect is safe to repeat, and the process may die between any two of them: the next pass, in this process or the
next, sees what exists and goes on. A pass that fails is logged, counted and tried again with back-off.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from anneal_api.conditions import Reason
from anneal_api.origin import address
from anneal_operator import engine, metrics
from anneal_operator.cluster import Cluster
from anneal_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    NotFoundError,
    Refusal,
    RefusedError,
)
from anneal_operator.gather import gather, newest_warning
from anneal_operator.kinds import (
    CLAIM,
    CONFIG_MAP,
    NETWORK_POLICY,
    SERVICE,
    WORKLOAD,
    Kind,
    Obj,
    is_deleting,
    kind_of,
    meta,
    name_of,
    uid_of,
)
from anneal_operator.lookups import Lookups
from anneal_operator.neighbours import Neighbour
from anneal_operator.nodes import NodeCache
from anneal_operator.queue import KeyedQueue
from anneal_operator.reconcile import reconcile
from anneal_operator.recorder import Recorder
from anneal_operator.settings import Settings
from anneal_operator.steps import admit
from anneal_operator.store import Key, Store, key_of, owner_uid
from anneal_operator.world import Amendment, Decision, Doomed, Report, World

log = logging.getLogger(__name__)

WORKERS = 16
# Refused children lead to another decision in the same pass; more than a few would be a loop.
MOST_DECISIONS = 3
# A create that the API server turns down for what it says, not for a passing state of its own.
_REFUSING = frozenset({400, 403, 422})

_INSTALLED_BY_OTHERS = {
    engine.KIND: Refusal(Reason.WAITING_FOR_ENGINE, engine.MISSING),
    WORKLOAD: Refusal(Reason.WAITING_FOR_KUEUE, admit.MISSING),
}


@dataclass
class Controller:
    """Works the queue."""

    store: Store
    cluster: Cluster
    settings: Settings
    queue: KeyedQueue[Key] = field(default_factory=KeyedQueue)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    reports: dict[str, Report] = field(default_factory=dict)
    recorder: Recorder = field(init=False)
    lookups: Lookups = field(init=False)
    nodes: NodeCache = field(init=False)

    def __post_init__(self) -> None:
        self.lookups = Lookups(self.cluster, clock=lambda: self.clock().timestamp())
        self.nodes = NodeCache(self.cluster, self.settings.pools)
        self.recorder = Recorder(self.cluster, self.clock)

    async def work(self, workers: int = WORKERS) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.recorder.work())
            for _ in range(workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self.queue.get()
            began = time.perf_counter()
            extra = {"job": {"namespace": key.namespace, "name": key.name, "kind": key.kind.name}}
            try:
                wake = await self.handle(key)
            except (ConflictError, NotFoundError) as error:
                # Somebody was faster; the watch brings what changed.
                log.debug("the object changed meanwhile: %s", error, extra=extra)
                metrics.reconciled("conflict", began)
                self.queue.failed(key)
            except (aiohttp.ClientError, TimeoutError, ApiError) as error:
                delay = self.queue.failed(key)
                log.warning("the API server refused or was not reached: %s; again in %.1f s", error, delay, extra=extra)
                metrics.reconciled("api_error", began)
            except Exception:
                delay = self.queue.failed(key)
                log.exception("a pass failed; again in %.1f s", delay, extra=extra)
                metrics.reconciled("error", began)
            else:
                metrics.reconciled("ok", began)
                self.queue.done(key)
                if wake is not None:
                    self.queue.add_after(key, (wake - self.clock()).total_seconds())

    async def handle(self, key: Key) -> datetime | None:
        """One pass over one job; returns when to look again."""
        job = self.store.job(key)
        if job is None or is_deleting(job):
            return None
        now = self.clock()
        report = self.reports.get(uid_of(job))
        world = await gather(
            job,
            store=self.store,
            lookups=self.lookups,
            nodes=self.nodes,
            settings=self.settings,
            now=now,
            report=report,
        )
        decision = await self._decide(world)
        self.store.seen_departed(uid_of(job), world.children.departed_pods)
        return decision.wake

    async def _decide(self, world: World) -> Decision:
        """Decide and carry out, again where a child was refused or only Events can tell why nothing starts."""
        for _ in range(MOST_DECISIONS):
            decision = reconcile(world)
            if decision.puzzling and not world.warnings:
                warnings = {uid_of(obj): await newest_warning(obj, self.cluster) for obj in decision.puzzling}
                if any(warnings.values()):
                    world = replace(world, warnings=warnings)
                    continue
            try:
                await self._carry_out(world.job, decision)
            except RefusedError as error:
                if error.refusal.message not in ((world.job.get("status") or {}).get("message") or ""):
                    log.warning("%s", error.refusal.message, extra=_about(world.job))
                world = replace(world, refusals={**world.refusals, error.name: error.refusal})
                continue
            return decision
        return decision

    async def _carry_out(self, job: Obj, decision: Decision) -> None:
        for obj in decision.apply:
            await self._make(obj, job, verify=name_of(obj) in decision.verify)
        for doomed in decision.delete:
            await self._delete(doomed)
        refused = await self._amend_all(decision.amend)
        if decision.status is not None:
            await self._write_status(job, decision.status)
        for note in decision.events:
            log.info("%s: %s", note.reason, note.message, extra=_about(job))
            self.recorder.tell(job, note)
        if refused:
            raise refused

    async def _make(self, obj: Obj, job: Obj, *, verify: bool) -> None:
        """Make a child, unless it is known to exist; one of another owner is never touched."""
        kind, namespace, name = kind_of(obj), meta(obj)["namespace"], name_of(obj)
        known = self.store.get(kind, namespace, name)
        if known is not None and not verify and owner_uid(known) == uid_of(job):
            return
        try:
            made = await self.cluster.create(obj)
        except AlreadyExistsError:
            made = await self._existing(obj, job)
        except NotFoundError as error:
            if kind in _INSTALLED_BY_OTHERS and error.unknown_type:
                raise RefusedError(name, _INSTALLED_BY_OTHERS[kind]) from error
            raise
        except ApiError as error:
            if reason := _turned_down(kind, error):
                words = f"{kind.name} {name} was refused by the API server: {error.message}"
                raise RefusedError(name, Refusal(reason, words)) from error
            raise
        if kind in {CONFIG_MAP, NETWORK_POLICY, CLAIM, SERVICE}:
            made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": made["metadata"]}
        self.store.put(kind, made)

    async def _existing(self, obj: Obj, job: Obj) -> Obj:
        """What already has the name: ours (a pass died after making it), or a stranger's."""
        kind, name = kind_of(obj), name_of(obj)
        found = await self.cluster.get(kind, meta(obj)["namespace"], name)
        owners = {owner.get("uid") for owner in meta(found).get("ownerReferences") or []}
        ours = owner_uid(found) == uid_of(job) and owners <= {uid_of(job)}
        if not ours:
            words = f"{kind.name} {name} exists and is not this job's: remove it, or give the job another name"
            raise RefusedError(name, Refusal(Reason.NAME_TAKEN, words))
        if kind == NETWORK_POLICY:
            return await self.cluster.apply(obj, uid=uid_of(found))
        return found

    async def _delete(self, doomed: Doomed) -> None:
        kind, obj = doomed.kind, doomed.obj
        try:
            left = await self.cluster.delete(kind, obj)
        except (NotFoundError, ConflictError):
            # Gone already, or another object of the same name by now: either way not ours to delete.
            left = {}
        if meta(left).get("deletionTimestamp") and meta(left).get("finalizers"):
            self.store.put(kind, left)
        else:
            self.store.deleted(kind, meta(obj)["namespace"], name_of(obj))

    async def _amend_all(self, amendments: Iterable[Amendment]) -> ApiError | None:
        """Tell others what they should know; a refusal (their webhook is down, say) is returned.

        Our own status goes on being written all the same. It is raised after that, so that they are told again.
        """
        refused = None
        for amendment in amendments:
            try:
                await self._amend(amendment)
            except (ConflictError, NotFoundError):
                raise
            except ApiError as error:
                refused = error
        return refused

    async def _amend(self, amendment: Amendment) -> None:
        obj = amendment.obj
        if amendment.status:
            written = await self.cluster.replace_status(kind_of(obj), obj)
        else:
            written = await self.cluster.apply(obj, uid=amendment.uid)
        self.store.put(kind_of(obj), written)

    async def _write_status(self, job: Obj, status: Obj) -> None:
        before = self.store.neighbour(uid_of(job))
        written = await self.cluster.replace_status(kind_of(job), {**job, "status": status})
        self.store.put(kind_of(job), written)
        after = self.store.neighbour(uid_of(job))
        if before and after and after.frees(before):
            self.stir(meta(job)["namespace"], after)
        if before and after and after.ends(before):
            self.announce(key_of(job))

    def stir(self, namespace: str, changed: Neighbour) -> None:
        """Have jobs looked at that wait for what this one does: its data, or the place of its output."""
        for other in self.store.neighbours(namespace):
            waits = other.prepare_key == changed.prepare_key and not other.data_ready
            key = self.store.key_of(other.uid)
            if key and other.uid != changed.uid and (other.refused_for_output or waits):
                self.queue.add(key)

    def announce(self, key: Key) -> None:
        """Have the jobs looked at that wait to start from what this one makes, or would make if it existed."""
        source = address(key.kind.name, key.name)
        for other in self.store.neighbours(key.namespace):
            waiting = self.store.key_of(other.uid)
            if waiting and source in other.wants:
                self.queue.add(waiting)


def _turned_down(kind: Kind, error: ApiError) -> Reason | None:
    """Why a child could not be made, where that is to be told; a failure that passes by itself is only tried again."""
    if error.status in _REFUSING:
        return Reason.POD_REJECTED
    # Kueue is installed, and its webhook does not answer: that may last.
    return Reason.WAITING_FOR_KUEUE if kind == WORKLOAD and error.status == HTTPStatus.INTERNAL_SERVER_ERROR else None


def _about(job: Obj) -> dict[str, dict[str, str]]:
    """What a log record says about which job it is."""
    namespace = str(meta(job).get("namespace", ""))
    return {"job": {"namespace": namespace, "name": name_of(job), "kind": str(job.get("kind", ""))}}
