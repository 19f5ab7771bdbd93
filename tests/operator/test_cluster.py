"""The client over real HTTP: what it sends, what it makes of answers, and that it asks for nothing it may not."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from anneal_operator.cluster import PERMISSIONS, Cluster, load_configuration, make_session
from anneal_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    NotFoundError,
    NotPermittedError,
)
from anneal_operator.kinds import CLAIM, EVENT, FINE_TUNE_JOB, JOB, PYTORCH_JOB, WATCHED, Obj
from simulated.builders import make_job, make_node


@dataclass
class Server:
    """Answers every request with `answer`, and remembers them."""

    url: str = ""
    status: int = 200
    answer: Any = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        headers = dict(request.headers)
        self.seen.append(
            (request.method, request.path, dict(request.query), headers, json.loads(body) if body else None)
        )
        text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return web.Response(status=self.status, text=text, content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on a free port."""
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    """A client of it."""
    async with make_session(Configuration(host=server.url)) as session:
        yield Cluster(session, server.url)


def job_child() -> Obj:
    """A small Job."""
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "prep", "namespace": "team", "uid": "u"}}


async def test_children_are_created_under_our_field_manager(server: Server, cluster: Cluster) -> None:
    """A plain POST: it fails where the name is taken."""
    await cluster.create(job_child())
    method, path, query, headers, body = server.seen[0]
    assert (method, path) == ("POST", "/apis/batch/v1/namespaces/team/jobs")
    assert query == {"fieldManager": "anneal"}
    assert headers["Content-Type"] == "application/json"
    assert body == job_child()


async def test_applying_is_guarded_by_the_uid(server: Server, cluster: Cluster) -> None:
    """Server-side apply onto one object only, never onto its successor of the same name."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "team"},
    }
    await cluster.apply(policy, uid="seen")
    method, path, query, headers, body = server.seen[0]
    assert (method, path) == ("PATCH", "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies/p")
    assert query == {"fieldManager": "anneal", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert body["metadata"]["uid"] == "seen"


async def test_the_status_is_replaced_as_a_whole_at_the_version_that_was_read(server: Server, cluster: Cluster) -> None:
    """The server compares the resource version in it."""
    await cluster.replace_status(FINE_TUNE_JOB, make_job(status={"phase": "Running"}))
    method, path, _query, _headers, body = server.seen[0]
    assert (method, path) == ("PUT", "/apis/anneal.dev/v1alpha1/namespaces/team/finetunejobs/bot/status")
    assert body["metadata"]["resourceVersion"] == "1"


async def test_deleting_is_guarded_by_the_uid_and_takes_pods_along(server: Server, cluster: Cluster) -> None:
    """In the background; whoever has the name by then is safe."""
    await cluster.delete(JOB, job_child())
    method, path, _query, _headers, body = server.seen[0]
    assert (method, path) == ("DELETE", "/apis/batch/v1/namespaces/team/jobs/prep")
    assert (body["propagationPolicy"], body["preconditions"]) == ("Background", {"uid": "u"})


async def test_lists_and_reads(server: Server, cluster: Cluster) -> None:
    """Core types have another path; field selectors are passed on."""
    server.answer = {"items": [{"note": "x"}]}
    assert await cluster.list_all(EVENT, "team", fields="type=Warning") == [{"note": "x"}]
    await cluster.get(CLAIM, "team", "runs")
    assert server.seen[0][2] == {"fieldSelector": "type=Warning"}
    assert server.seen[1][1] == "/api/v1/namespaces/team/persistentvolumeclaims/runs"


STATUS = {"kind": "Status", "message": "so it is"}
ERRORS: list[tuple[int, Any, type[ApiError]]] = [
    (404, {**STATUS, "reason": "NotFound"}, NotFoundError),
    (409, {**STATUS, "reason": "AlreadyExists"}, AlreadyExistsError),
    (409, {**STATUS, "reason": "Conflict"}, ConflictError),
    (422, {**STATUS, "reason": "Invalid"}, ApiError),
    (500, "so it is", ApiError),
]


@pytest.mark.parametrize(("status", "answer", "error"), ERRORS, ids=lambda each: getattr(each, "__name__", None))
async def test_errors_keep_the_servers_words(
    server: Server, cluster: Cluster, status: int, answer: Any, error: type[ApiError]
) -> None:
    """Also where the answer is no Status."""
    server.status, server.answer = status, answer
    with pytest.raises(error, match="so it is") as caught:
        await cluster.create(job_child())
    assert type(caught.value) is error


async def test_an_unknown_type_is_told_from_a_missing_object(server: Server, cluster: Cluster) -> None:
    """The server answers plain text for a type without a CRD."""
    server.status, server.answer = 404, "404 page not found\n"
    with pytest.raises(NotFoundError) as caught:
        await cluster.create({**job_child(), "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"})
    assert caught.value.unknown_type
    server.answer = {**STATUS, "reason": "NotFound"}
    with pytest.raises(NotFoundError) as caught:
        await cluster.get(PYTORCH_JOB, "team", "x")
    assert not caught.value.unknown_type


async def test_what_is_not_in_the_table_is_never_sent(server: Server, cluster: Cluster) -> None:
    """The chart grants exactly the table, so anything else would be refused in a real cluster only."""
    with pytest.raises(NotPermittedError, match="delete persistentvolumeclaims"):
        await cluster.delete(CLAIM, job_child())
    assert server.seen == []


def test_the_table_holds_what_kopf_needs_and_no_secret() -> None:
    """List and watch of every watched kind and of CRDs; never a Secret, never a pod's creation or execution."""
    for kind in WATCHED:
        assert {(kind.group, kind.plural, "list"), (kind.group, kind.plural, "watch")} <= PERMISSIONS
    assert ("apiextensions.k8s.io", "customresourcedefinitions", "watch") in PERMISSIONS
    assert not [each for each in PERMISSIONS if each[1] == "secrets" or "*" in each]
    assert {verb for _group, resource, verb in PERMISSIONS if resource.startswith("pods")} == {"list", "watch"}


async def test_the_token_is_read_again_as_it_rotates(server: Server) -> None:
    """A projected service account token lives an hour; the process lives longer."""
    configuration = Configuration(host=server.url)
    tokens = iter(["bearer first", "bearer second"])

    def refresh(target: Configuration) -> None:
        target.api_key["BearerToken"] = next(tokens)

    configuration.refresh_api_key_hook = refresh
    async with make_session(configuration) as session:
        for _ in range(2):
            await Cluster(session, server.url).get(CLAIM, "team", "runs")
    assert [seen[3]["Authorization"] for seen in server.seen] == ["bearer first", "bearer second"]


async def test_a_kubeconfig_is_used_only_if_it_is_named(tmp_path: Path) -> None:
    """A person's own configuration is never found by accident."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://named:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    found = await load_configuration({"KUBECONFIG": str(path)})
    assert found.host == "http://named:1"
    with pytest.raises(Exception, match=r"Service host/port is not set"):
        await load_configuration({})


async def test_an_unreachable_server_is_a_network_error() -> None:
    """Which the queue retries."""
    async with make_session(Configuration(host="http://127.0.0.1:1")) as session:
        with pytest.raises(aiohttp.ClientError):
            await Cluster(session, "http://127.0.0.1:1").get(CLAIM, "team", "runs")


async def test_nodes_come_from_the_servers_memory_and_without_what_is_heavy(server: Server, cluster: Cluster) -> None:
    """Thousands of them are read now and then: of each only what tells its GPUs is kept."""
    node = make_node()
    heavy = {"images": [{"names": ["a"]}], "nodeInfo": {"kernelVersion": "6"}}
    metadata = {**node["metadata"], "managedFields": [{"manager": "kubelet"}], "annotations": {"a": "b"}}
    server.answer = {"items": [{**node, "metadata": metadata, "status": {**node["status"], **heavy}}]}
    assert await cluster.list_nodes() == [node]
    method, path, query, _headers, _body = server.seen[0]
    assert (method, path, query) == ("GET", "/api/v1/nodes", {"resourceVersion": "0"})
