"""A stand-in API server: real HTTP on a real port, answering from a table of paths, and a kubeconfig that names it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

JOBS_PATH = "/apis/anneal.dev/v1alpha1/namespaces/team/finetunejobs"


@dataclass
class ApiServer:
    """What is stored, by path: an object, text (a log), or a status code with a message (a refusal)."""

    kubeconfig: Path
    objects: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def put_job(self, job: dict[str, Any]) -> None:
        """Store a job so that it is found by name and in the list."""
        self.objects[f"{JOBS_PATH}/{job['metadata']['name']}"] = job
        self.objects.setdefault(JOBS_PATH, {"items": []})["items"].append(job)

    def put_pod(self, pod: dict[str, Any], log: str) -> None:
        """Store a pod and what it has printed."""
        path = "/api/v1/namespaces/team/pods"
        self.objects.setdefault(path, {"items": []})["items"].append(pod)
        self.objects[f"{path}/{pod['metadata']['name']}/log"] = log


def _answer(server: ApiServer, target: str) -> tuple[int, bytes]:
    url = urlsplit(target)
    found = server.objects.get(url.path)
    if isinstance(found, tuple):
        status, message = found
        return status, json.dumps({"kind": "Status", "message": message}).encode()
    if isinstance(found, str):
        return 200, found.encode()
    if found is None:
        return 404, b'{"kind": "Status", "message": "not found"}'
    selector = parse_qs(url.query).get("labelSelector", [""])[0]
    if "items" in found and selector:
        wanted = dict(pair.split("=") for pair in selector.split(","))
        found = {"items": [item for item in found["items"] if wanted.items() <= item["metadata"]["labels"].items()]}
    return 200, json.dumps(found).encode()


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[ApiServer]:
    """A running stand-in; its kubeconfig's context is in namespace `team`."""
    server = ApiServer(tmp_path / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            status, body = _answer(server, self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.kubeconfig.write_text(_kubeconfig(http.server_port))
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


def _kubeconfig(port: int) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}],
        }
    )
