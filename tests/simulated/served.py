"""The simulated API server over HTTP, so that the operator's real process can be run against it.

It lists, watches, and does what `cluster.Cluster` asks for; selectors are ignored, as nothing else is in it.
Not here: authentication, schemas, more than one version of a type.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from anneal_operator.errors import ApiError, NotFoundError
from anneal_operator.kinds import KINDS, Kind, Obj, meta
from simulated.api_server import ApiServer

_VERBS = ["list", "watch", "get", "create", "patch", "update", "delete"]
# How soon a watch notices that nobody reads it any more.
_LOOK_AGAIN = 1.0
# Kopf does not begin before it has seen the type.
_NAMESPACE = Kind("", "v1", "namespaces", "Namespace")


class _Events(list[tuple[str, Kind, Obj]]):
    """The server's events; `news` is set when another one comes, and is another object from then on."""

    news = asyncio.Event()

    def append(self, event: tuple[str, Kind, Obj]) -> None:
        super().append(event)
        news, self.news = self.news, asyncio.Event()
        news.set()


@dataclass
class Served:
    """Start it, give its `url` to an operator, stop it."""

    api: ApiServer
    # What is no object.
    pages: dict[str, Callable[[], Obj]] = field(default_factory=dict)
    # Told of every event just before it goes out.
    sending: Callable[[Kind, Obj], None] = lambda _kind, _obj: None
    url: str = ""

    async def start(self) -> None:
        """Serve on a free port of loopback."""
        self._events = self.api.watch = _Events(self.api.watch)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every connection."""
        await self._runner.cleanup()

    @property
    def kinds(self) -> list[Kind]:
        """Every type that is served."""
        return [*KINDS.values(), _NAMESPACE]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (page := self._page(request.path)) is not None:
            return web.json_response(page)
        kind, namespace, name, subresource = self._place(request.path)
        try:
            if "watch" in request.query:
                return await self._watch(request, kind)
            made = await self._object(request, kind, namespace=namespace, name=name, subresource=subresource)
        except ApiError as error:
            return web.json_response({"reason": error.reason, "message": error.message}, status=error.status)
        return web.json_response(made)

    def _page(self, path: str) -> Obj | None:
        if path in self.pages:
            return self.pages[path]()
        groups: dict[str, list[Kind]] = defaultdict(list)
        for kind in self.kinds:
            groups[f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"].append(kind)
        if path in groups:
            return {"resources": [_described(kind) for kind in groups[path]]}
        versions = [{"name": kind.group, "version": kind.version} for kind in self.kinds if kind.group]
        return {
            "/version": {"major": "1", "minor": "34"},
            "/api": {"versions": ["v1"]},
            "/apis": {
                "groups": [
                    {"name": each["name"], "versions": [each], "preferredVersion": each}
                    for each in {each["name"]: each for each in versions}.values()
                ]
            },
        }.get(path)

    def _place(self, path: str) -> tuple[Kind, str, str, str]:
        for kind in self.kinds:
            root = f"/apis/{kind.group}/{kind.version}/" if kind.group else f"/api/{kind.version}/"
            if not path.startswith(root):
                continue
            parts = path.removeprefix(root).split("/")
            namespace, parts = (parts[1], parts[2:]) if parts[0] == "namespaces" else ("", parts)
            if parts and parts[0] == kind.plural:
                name, subresource = [*parts[1:], "", ""][:2]
                return kind, namespace, name, subresource
        raise web.HTTPNotFound(text=json.dumps({"message": f"no {path}"}))

    async def _object(
        self, request: web.Request, kind: Kind, *, namespace: str, name: str, subresource: str
    ) -> dict[str, Any]:
        body = await request.json() if request.can_read_body else {}
        match request.method, bool(name), subresource:
            case "GET", True, "":
                return await self.api.get(kind, namespace, name)
            case "GET", False, "":
                return {
                    "apiVersion": kind.api_version,
                    "kind": f"{kind.name}List",
                    "metadata": {"resourceVersion": str(next(self.api._numbers))},
                    "items": await self.api.list_all(kind, namespace),
                }
            case "POST", False, "":
                return await self.api.create(body)
            case "PUT", True, "status":
                return await self.api.replace_status(kind, body)
            case "PATCH", True, "":
                return await self.api.apply(body, uid=meta(body)["uid"])
            case "DELETE", True, "":
                uid = body["preconditions"]["uid"]
                return await self.api.delete(kind, {"metadata": {"namespace": namespace, "name": name, "uid": uid}})
        raise NotFoundError(404, "NotFound", f"{request.method} {request.path}")

    async def _watch(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        after, place = int(request.query.get("resourceVersion") or 0), 0
        # A bookmark takes the headers with it, which would else wait for the first event.
        known = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"resourceVersion": str(after)}}
        await response.write(json.dumps({"type": "BOOKMARK", "object": known}).encode() + b"\n")
        while not self._stopped(request):
            news, end = self._events.news, len(self._events)
            for event, of, obj in self._events[place:end]:
                if of == kind and int(meta(obj)["resourceVersion"]) > after:
                    line = json.dumps({"type": event, "object": obj}).encode() + b"\n"
                    self.sending(kind, obj)
                    await response.write(line)
            place = end
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _LOOK_AGAIN)
        return response

    @staticmethod
    def _stopped(request: web.Request) -> bool:
        return request.transport is None or request.transport.is_closing()


def _described(kind: Kind) -> Obj:
    return {
        "name": kind.plural,
        "kind": kind.name,
        "singularName": kind.name.lower(),
        "namespaced": True,
        "verbs": _VERBS,
    }
