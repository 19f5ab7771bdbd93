"""The only kopf code: its watches feed the store and put keys on the queue. Nothing is decided here.

kopf lists and watches, resumes and backs off. The *index* handlers fill the store and hold every event handler back
until all kinds have been listed once, so that no pass ever runs on half a picture. No create/update/delete handlers,
timers or daemons: those add finalizers and annotations. Errors never reach kopf, which would log and drop them. All are
coroutines, as kopf would run plain functions in threads.

kopf does not tell what vanished while a watch was broken for long: it lists again and stays silent about the rest.
`Freshness.middleware` sees those lists and lets the store compare.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
import kopf

from anneal_api.meta import MANAGED_BY, MANAGED_BY_LABEL
from anneal_operator import metrics
from anneal_operator.cluster import Handler
from anneal_operator.controller import Controller
from anneal_operator.kinds import JOB_KINDS, WATCHED, WATCHED_CHILDREN, Kind, Obj, meta, name_of
from anneal_operator.neighbours import neighbour
from anneal_operator.store import Key, owner_uid, version_of

log = logging.getLogger(__name__)

SERVER_TIMEOUT = 300
# A watch is renewed every SERVER_TIMEOUT seconds at the latest; one that was not is stale.
STALE_AFTER = SERVER_TIMEOUT + 120.0

MakeSession = Callable[..., aiohttp.ClientSession]


@dataclass
class Freshness:
    """When each watch was last known to be alive."""

    controller: Controller
    seen: dict[str, float] = field(default_factory=dict)
    _listed: set[Kind] = field(default_factory=set)
    _began: float = field(default_factory=time.monotonic)

    def ages(self) -> dict[str, float]:
        """Seconds since each watch was alive; those for jobs count from the start."""
        begun = {kind.plural: self._began for kind in JOB_KINDS}
        now = time.monotonic()
        return {plural: now - at for plural, at in {**begun, **self.seen}.items()}

    def stale(self) -> list[str]:
        """Resources whose watch has been silent for too long."""
        return sorted(plural for plural, age in self.ages().items() if age > STALE_AFTER)

    def alive(self, kind: Kind) -> None:
        """A sign of life."""
        self.seen[kind.plural] = time.monotonic()

    async def middleware(self, request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        """Notice kopf's watches and lists."""
        response = await handler(request)
        kind = next((kind for kind in WATCHED if request.url.path == kind.path()), None)
        if kind is not None and response.status == HTTPStatus.NOT_FOUND:
            # The type was removed (Kueue's, say): its silence is no fault of the watch.
            self.seen.pop(kind.plural, None)
        if kind is None or response.status != HTTPStatus.OK:
            return response
        self.alive(kind)
        if "watch" not in request.url.query:
            await self._listed_again(kind, response)
        return response

    async def _listed_again(self, kind: Kind, response: aiohttp.ClientResponse) -> None:
        if kind not in self._listed:
            self._listed.add(kind)
            return
        document = json.loads(await response.read())
        missing = self.controller.store.relisted(kind, document.get("items") or [], version_of(document))
        for obj in missing:
            notify(self.controller, kind, obj)


def notify(controller: Controller, kind: Kind, obj: Obj) -> None:
    """Have the job looked at that an event concerns, and those that wait for its result."""
    if kind in JOB_KINDS:
        job = Key(kind, str(meta(obj).get("namespace", "")), name_of(obj))
        controller.queue.add(job)
        controller.announce(job)
        return
    key = controller.store.key_of(owner_uid(obj))
    if key is not None:
        controller.queue.add(key)


def registry_for(
    controller: Controller, freshness: Freshness, session: Callable[[], Any], ending: Callable[[], None] = lambda: None
) -> Any:
    """A kopf registry with all handlers bound to one controller. `ending` is called when kopf begins to end."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.login(registry=registry)
    async def _login(**_: Any) -> Any:
        return session()

    @kopf.on.cleanup(registry=registry)
    async def _ending(**_: Any) -> None:
        ending()

    for kind in WATCHED:
        _register(registry, kind, controller, freshness)
    return registry


def _register(registry: Any, kind: Kind, controller: Controller, freshness: Freshness) -> None:
    selector = (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)
    changed: set[str] = set()

    @kopf.index(*selector, registry=registry, id=f"store-{kind.plural}")
    async def _feed(body: Any, **_: Any) -> None:
        if controller.store.put(kind, dict(body)):
            changed.add(body["metadata"]["uid"])

    @kopf.on.event(*selector, registry=registry, id=f"notify-{kind.plural}")
    async def _notify(event: Any, **_: Any) -> None:
        freshness.alive(kind)
        metrics.WATCH_EVENTS.labels(kind.plural).inc()
        obj = event["object"]
        uid = obj["metadata"]["uid"]
        if event["type"] == "DELETED":
            changed.discard(uid)
            controller.store.removed(kind, obj)
            if kind in JOB_KINDS:
                controller.stir(meta(obj)["namespace"], neighbour(obj))
        elif uid in changed:
            changed.discard(uid)
        else:
            return
        notify(controller, kind, obj)


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf as a watcher and nothing else."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = SERVER_TIMEOUT + 30
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    for kind in WATCHED_CHILDREN:
        settings.watching.label_selectors[_is(kind)] = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


def _is(kind: Kind) -> Callable[[Any], bool]:
    return lambda resource: (resource.group, resource.plural) == (kind.group, kind.plural)
