"""The loader beside a server: what it takes, fetches, checks and drops, against peers and servers that fail."""

import errno
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from trainer.servers import Web, serving
from trainer.vllms import StandIn, free_port, loader_beside, stand_ins, until

WEIGHTS = b"w" * 100_000


class Beside:
    """A loader, the server that it is beside, and a peer that has an adapter."""

    def __init__(self, directory: Path, port: int, server: type[StandIn], peer: type[Web], peer_port: int) -> None:
        self.directory, self.port, self.server, self.peer, self.peer_port = directory, port, server, peer, peer_port

    def order(self, name: str = "v1-aaaa", **changes: Any) -> dict[str, Any]:
        """What rank 0 asks for."""
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
        self.peer.files.update({f"adapters/{name}/{file}": body for file, body in files.items()})
        described = {file: {"size": len(body), "xxh128": xxhash.xxh128_hexdigest(body)} for file, body in files.items()}
        return {"name": name, "port": self.peer_port, "path": f"/adapters/{name}", "files": described, **changes}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """The status and what it said."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, text)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    @property
    def kept(self) -> list[str]:
        """What is in its directory."""
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    """All three, on loopback."""
    peer = type("Peer", (Web,), {"files": {}})
    with (
        stand_ins() as (endpoints, kinds),
        serving(peer) as url,
        loader_beside(endpoints[0].port, tmp_path / "adapters") as port,
    ):
        yield Beside(tmp_path / "adapters", port, kinds[0], peer, int(url.rpartition(":")[2]))


def test_an_adapter_is_fetched_and_loaded_and_older_ones_are_dropped(beside: Beside) -> None:
    """From whoever asks; what it took is told. Nobody waits for what is dropped."""
    status, said = beside.ask("POST", "/load", beside.order())
    assert (status, said["bytes"]) == (200, len(WEIGHTS) + 2)
    assert said["fetchSeconds"] >= 0
    assert said["loadSeconds"] >= 0
    assert (beside.directory / "v1-aaaa" / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert beside.ask("POST", "/load", beside.order("v2-bbbb"))[0] == 200
    until(lambda: beside.server.adapters == beside.kept == ["v2-bbbb"])
    assert beside.ask("GET", "/state") == (200, {"adapters": ["v2-bbbb"], "complaint": None})


def test_loading_again_is_done_once(beside: Beside) -> None:
    """One after the other, or at the same time."""
    answers: list[Any] = []
    order = beside.order()
    threads = [threading.Thread(target=lambda: answers.append(beside.ask("POST", "/load", order))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 4
    assert sorted(said["bytes"] for _, said in answers) == [0, 0, 0, len(WEIGHTS) + 2]
    assert beside.server.loads == ["v1-aaaa"]


def test_a_server_that_began_anew_gets_what_was_fetched(beside: Beside) -> None:
    """Its adapters are gone, their files are not."""
    beside.ask("POST", "/load", beside.order())
    beside.server.begin_anew()
    assert beside.ask("GET", "/state")[1]["adapters"] == []
    status, said = beside.ask("POST", "/load", beside.order())
    assert (status, said["bytes"]) == (200, 0)
    assert beside.server.adapters == ["v1-aaaa"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../etc"}, "name is '../etc', where small letters, digits and hyphens is expected"),
        ({"name": None}, "name is 'None'"),
        ({"path": "/adapters/../secret"}, "path is"),
        ({"path": "http://other/"}, "path is"),
        ({"port": 0}, "port is '0', where 1 to 65535 is expected"),
        ({"port": "8790"}, "port is"),
        ({"files": {}}, "files is"),
        ({"files": {"../x": {"size": 1, "xxh128": "0" * 32}}}, "files is '../x'"),
        ({"files": {"x": {"size": -1, "xxh128": "0" * 32}}}, "files.x.size is '-1'"),
        ({"files": {"x": {"size": 1, "xxh128": "short"}}}, "files.x.xxh128 is 'short'"),
        ({"files": {"x": 3}}, "files.x.size is 'None'"),
    ],
)
def test_what_is_no_order_is_refused(beside: Beside, changes: dict[str, Any], words: str) -> None:
    """With the field and what it takes; nothing is fetched or written."""
    status, said = beside.ask("POST", "/load", beside.order(**changes))
    assert status == 400
    assert words in said["error"]
    assert (beside.kept, beside.server.loads) == ([], [])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/load", b"{", 400),
        ("POST", "/load", [1], 400),
        ("POST", "/load", b"[" * 60_000, 400),
        ("POST", "/load", b"x" * 70_000, 400),
        ("POST", "/load", None, 400),
        ("POST", "/complain", {}, 400),
        ("POST", "/other", {}, 404),
        ("GET", "/other", None, 404),
    ],
)
def test_what_is_no_request_is_refused(beside: Beside, method: str, path: str, body: Any, status: int) -> None:
    """With a sentence."""
    found, said = beside.ask(method, path, body)
    assert found == status
    assert said["error"]


def _missing(beside: Beside) -> dict[str, Any]:
    order = beside.order()
    beside.peer.files.clear()
    return order


def _other_bytes(beside: Beside) -> dict[str, Any]:
    order = beside.order()
    beside.peer.files["adapters/v1-aaaa/adapter_model.safetensors"] = b"x" * len(WEIGHTS)
    return order


def _more_bytes(beside: Beside) -> dict[str, Any]:
    order = beside.order()
    beside.peer.files["adapters/v1-aaaa/adapter_model.safetensors"] = WEIGHTS * 50
    return order


def _half(beside: Beside) -> dict[str, Any]:
    order = beside.order()
    del order["files"]["adapter_config.json"]
    beside.peer.files["adapters/v1-aaaa/adapter_model.safetensors"] = WEIGHTS[:50_000]
    beside.peer.cut = True
    return order


def _nobody(beside: Beside) -> dict[str, Any]:
    return beside.order(port=free_port())


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_missing, "answered 404"),
        (_other_bytes, "is not what was announced: its xxh128 is"),
        (_more_bytes, "is larger than the 100000 bytes"),
        (_half, "ended after 50000 of 100000 bytes"),
        (_nobody, "cannot be fetched: .*refused"),
    ],
)
def test_a_peer_that_fails_leaves_nothing(beside: Beside, prepare: Any, words: str) -> None:
    """The one that asks is told; what was fetched by then is gone, and the next try goes well."""
    status, said = beside.ask("POST", "/load", prepare(beside))
    assert status == 502
    assert re.search(words, said["error"])
    assert (beside.kept, beside.server.loads) == ([], [])
    beside.peer.cut = False
    assert beside.ask("POST", "/load", beside.order())[0] == 200


def test_a_disk_without_room_is_told(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the place, and nothing half written is left; the disk's own error stands in for a full one."""
    from anneal_trainer.rollout import fetch

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_write", full)
    status, said = beside.ask("POST", "/load", beside.order())
    assert status == 507
    assert "No space left on device" in said["error"]
    assert beside.kept == []


def test_a_server_that_is_down_is_told(beside: Beside) -> None:
    """As something that may pass; one that refuses the adapter as something that does not."""
    beside.server.mood = "dead"
    status, said = beside.ask("POST", "/load", beside.order())
    assert (status, "vLLM cannot be reached" in said["error"]) == (503, True)
    beside.server.mood = "refuses"
    status, said = beside.ask("POST", "/load", beside.order())
    assert (status, "LoRA rank 64 is greater" in said["error"]) == (422, True)


def test_a_server_that_begins_is_not_taken_for_a_dead_one(beside: Beside) -> None:
    """It is live, not ready, until it has answered once; from then on silence is death."""
    beside.server.mood = "dead"
    assert (beside.ask("GET", "/live")[0], beside.ask("GET", "/ready")[0]) == (200, 503)
    beside.server.mood = "answers"
    assert (beside.ask("GET", "/live")[0], beside.ask("GET", "/ready")[0]) == (200, 200)
    beside.server.mood = "ill"
    assert (beside.ask("GET", "/live")[0], beside.ask("GET", "/ready")[0]) == (503, 503)


@pytest.mark.parametrize("gap", [False, True], ids=["quick restart", "seen gone"])
def test_a_complaint_stands_until_the_server_began_anew(beside: Beside, *, gap: bool) -> None:
    """/health alone would never tell that an engine hangs."""
    assert beside.ask("GET", "/live")[0] == 200
    beside.ask("POST", "/complain", {"why": "computed nothing for 60 s"})
    for _ in range(2):
        status, said = beside.ask("GET", "/live")
        assert (status, said["error"]) == (503, "vLLM hangs: computed nothing for 60 s")
    assert beside.ask("GET", "/state")[1]["complaint"] == "computed nothing for 60 s"
    if gap:
        beside.server.mood = "dead"
        assert beside.ask("GET", "/ready")[0] == 503
    beside.server.begin_anew()
    assert beside.ask("GET", "/live")[0] == 200
    assert beside.ask("GET", "/state")[1]["complaint"] is None


def test_the_loader_starts_by_itself_without_the_trainers_libraries(tmp_path: Path) -> None:
    """As its container does: torch and aiohttp are not in the operator's image."""
    port = free_port()
    code = (
        "import sys, runpy\n"
        "for name in ('torch', 'aiohttp', 'requests', 'prometheus_client', 'numpy'): sys.modules[name] = None\n"
        "runpy.run_module('anneal_trainer.rollout.loader', run_name='__main__')\n"
    )
    environment = {
        "ANNEAL_LOADER_PORT": str(port),
        "ANNEAL_VLLM_PORT": str(free_port()),
        "ANNEAL_ADAPTERS_DIR": str(tmp_path),
        "PYTHONPATH": ":".join(sys.path),
    }
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        for _ in range(100):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/live")
                assert connection.getresponse().status == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        else:
            raise AssertionError("the loader did not start")
    finally:
        process.terminate()
        # By itself: the first process of a container is not ended by a signal that it leaves to the kernel.
        assert process.wait(timeout=10) == 0
