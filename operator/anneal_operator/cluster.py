"""The only Kubernetes client: every request that the operator makes, and the table of what it may ask for.

It speaks REST over the session of `kubernetes.aio`'s configuration (kubeconfig or service account, with token refresh).
Children are made by *create*: an existing object of the same name answers 409 and is looked at before anything else, so
that a stranger's object is never adopted or overwritten. What may change later (a NetworkPolicy) is then server-side
applied to the UID that was seen. The status is replaced as a whole, guarded by the resource version that the pass read.

Not here: deciding what to ask for, and watching (kopf does that, over a session made here).
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config

from anneal_api.meta import FIELD_MANAGER
from anneal_operator import metrics
from anneal_operator.errors import NotPermittedError, api_error
from anneal_operator.kinds import (
    CLAIM,
    CLUSTER_QUEUE,
    CONFIG_MAP,
    CUSTOM_RESOURCE,
    DEPLOYMENT,
    EVENT,
    JOB,
    JOB_KINDS,
    LOCAL_QUEUE,
    NETWORK_POLICY,
    NODE,
    PENDING_WORKLOADS,
    POD,
    PRIORITY_CLASS,
    PYTORCH_JOB,
    RESOURCE_FLAVOR,
    SERVICE,
    STORAGE_CLASS,
    WORKLOAD,
    WORKLOAD_PRIORITY_CLASS,
    Kind,
    Obj,
    kind_of,
    meta,
    name_of,
    uid_of,
)

STATUS: Final = "status"
_VERBS: Final[Mapping[tuple[Kind, str], tuple[str, ...]]] = {
    **{(kind, ""): ("list", "watch") for kind in JOB_KINDS},
    **{(kind, STATUS): ("update",) for kind in JOB_KINDS},
    (JOB, ""): ("list", "watch", "get", "create", "delete"),
    (PYTORCH_JOB, ""): ("list", "watch", "get", "create", "delete"),
    (DEPLOYMENT, ""): ("list", "watch", "get", "create", "delete"),
    (SERVICE, ""): ("get", "create", "delete"),
    (POD, ""): ("list", "watch"),
    (WORKLOAD, ""): ("list", "watch", "get", "create", "patch", "delete"),
    (WORKLOAD, STATUS): ("update",),
    (LOCAL_QUEUE, ""): ("get", "list"),
    (CLUSTER_QUEUE, ""): ("get",),
    (RESOURCE_FLAVOR, ""): ("get",),
    (WORKLOAD_PRIORITY_CLASS, ""): ("list",),
    (PENDING_WORKLOADS, PENDING_WORKLOADS.subresource): ("get",),
    (PRIORITY_CLASS, ""): ("list",),
    (CONFIG_MAP, ""): ("get", "create", "delete"),
    (NETWORK_POLICY, ""): ("get", "create", "patch", "delete"),
    (CLAIM, ""): ("get", "create"),
    (STORAGE_CLASS, ""): ("list",),
    (NODE, ""): ("list",),
    (EVENT, ""): ("list", "create"),
    # kopf: to notice when a watched type appears or goes.
    (CUSTOM_RESOURCE, ""): ("list", "watch"),
}
# (API group, resource or resource/subresource, verb): exactly what the chart's ClusterRole grants.
PERMISSIONS: Final = frozenset(
    (kind.group, f"{kind.plural}/{sub}" if sub else kind.plural, verb)
    for (kind, sub), verbs in _VERBS.items()
    for verb in verbs
)
REQUEST_TIMEOUT: Final = 15.0


async def load_configuration(environment: Mapping[str, str]) -> Configuration:
    """KUBECONFIG if it is set (development), else the pod's service account."""
    configuration = Configuration()
    if path := environment.get("KUBECONFIG"):
        await load_kube_config(path, client_configuration=configuration)
    else:
        load_incluster_config(configuration)
    return configuration


Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
Middleware = Callable[[aiohttp.ClientRequest, Handler], Awaitable[aiohttp.ClientResponse]]


def make_session(configuration: Configuration, *more: Middleware) -> aiohttp.ClientSession:
    """A session to the API server; the token is read again for every request, as it rotates."""

    async def authenticate(request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            request.headers["Authorization"] = token
        return await handler(request)

    tls = RESTClientObject(configuration).ssl_context
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    return aiohttp.ClientSession(connector=connector, middlewares=(authenticate, *more))


@dataclass(frozen=True)
class Cluster:
    """Requests, each checked against `PERMISSIONS` and counted."""

    session: aiohttp.ClientSession
    server: str

    async def create(self, obj: Obj) -> Obj:
        """Make an object; AlreadyExistsError if there is one of this name."""
        kind = kind_of(obj)
        path = kind.path(str(meta(obj).get("namespace", "")))
        return await self._request("create", kind, path, body=obj, query={"fieldManager": FIELD_MANAGER})

    async def apply(self, obj: Obj, *, uid: str) -> Obj:
        """Server-side apply onto the object with this UID, and no other."""
        kind = kind_of(obj)
        guarded = {**obj, "metadata": {**meta(obj), "uid": uid}}
        path = kind.path(meta(obj)["namespace"], name_of(obj))
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("patch", kind, path, body=guarded, query=query)

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        """Read an object; NotFoundError if there is none."""
        return await self._request("get", kind, kind.path(namespace, name), subresource=kind.subresource)

    async def list_all(self, kind: Kind, namespace: str = "", *, fields: str = "") -> list[Obj]:
        """Read a collection."""
        query = {"fieldSelector": fields} if fields else {}
        answer = await self._request("list", kind, kind.path(namespace), query=query)
        items: list[Obj] = answer.get("items") or []
        return items

    async def list_nodes(self) -> list[Obj]:
        """The nodes as the API server last knew them, without what makes them heavy: its answer comes from memory."""
        answer = await self._request("list", NODE, NODE.path(), query={"resourceVersion": "0"}, without=_HEAVY_IN_NODES)
        items: list[Obj] = answer.get("items") or []
        return items

    async def delete(self, kind: Kind, obj: Obj) -> Obj:
        """Delete exactly this object and, in the background, what it owns."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid_of(obj)},
        }
        return await self._request("delete", kind, kind.path(meta(obj)["namespace"], name_of(obj)), body=body)

    async def replace_status(self, kind: Kind, obj: Obj) -> Obj:
        """Write the status; ConflictError if the object changed since `obj` was read."""
        path = kind.path(meta(obj)["namespace"], name_of(obj), STATUS)
        return await self._request("update", kind, path, body=obj, subresource=STATUS)

    async def _request(
        self, verb: str, kind: Kind, path: str, *,
        body: Obj | None = None, query: Mapping[str, str] | None = None, subresource: str = "",
        without: frozenset[str] = frozenset(),
    ) -> Obj:  # fmt: skip
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        if (kind.group, resource, verb) not in PERMISSIONS:
            raise NotPermittedError(f"{verb} {resource} is not in cluster.PERMISSIONS")
        began = time.perf_counter()
        code = "error"
        try:
            async with self.session.request(
                _METHODS[verb],
                f"{self.server}{path}",
                params=query,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": _CONTENT_TYPES.get(verb, "application/json"), "Accept": "application/json"},
                timeout=_TIMEOUT,
            ) as response:
                code = str(response.status)
                return _answer(response.status, await response.read(), without)
        finally:
            metrics.api_call(verb, resource, code, time.perf_counter() - began)


_METHODS = {"create": "POST", "patch": "PATCH", "get": "GET", "list": "GET", "delete": "DELETE", "update": "PUT"}
_CONTENT_TYPES = {"patch": "application/apply-patch+yaml"}
_TIMEOUT = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)


# Thousands of nodes are parsed at once: what nobody reads is dropped object by object, before it adds up.
_HEAVY_IN_NODES = frozenset({"managedFields", "annotations", "images", "nodeInfo", "volumesInUse", "volumesAttached"})


def _answer(status: int, content: bytes, without: frozenset[str] = frozenset()) -> Obj:
    """The object in a response, without the keys that are not wanted anywhere in it; in an error the server's words."""

    def thin(obj: Obj) -> Obj:
        return {key: value for key, value in obj.items() if key not in without}

    try:
        document: Any = json.loads(content, object_hook=thin if without else None)
    except ValueError:
        document = {}
    if status < HTTPStatus.BAD_REQUEST:
        found: Obj = document
        return found
    message = document.get("message") or content.decode(errors="replace").strip()[:500]
    raise api_error(status, document.get("reason", ""), message)
