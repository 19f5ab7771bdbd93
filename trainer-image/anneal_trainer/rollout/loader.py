"""Beside each vLLM server: fetches adapters from rank 0 and has the server load them, and says whether it lives.

    POST /load       {"name", "port", "path", "files"}: fetched from whoever asks, loaded; older ones are dropped after
    POST /complain   {"why"}: the server computes nothing; /live says so until its process began anew
    GET /live        200 unless it is complained about, or has answered before and does no longer
    GET /ready       200 while the server answers
    GET /state       the adapters it holds, and what is complained about

It runs in the operator's image, which has none of the trainer's libraries: nothing but Python's own and xxhash is
imported here, in `fetch` and in `vllm_control`. Not here: who may ask (the job's NetworkPolicy lets its own pods
alone).
"""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from anneal_api.meta import ADAPTERS_DIR, BASE_MODEL, LOADER_PORT, VLLM_PORT
from anneal_trainer.rollout.fetch import AskError, Order, fetch
from anneal_trainer.rollout.vllm_control import Control, Life

_MOST_BYTES: Final = 65536
_SECONDS: Final = 30.0


class Loader:
    """One server's adapters, in `directory`."""

    def __init__(self, control: Control, directory: Path) -> None:
        self._control = control
        self._directory = directory
        self.life = Life(control)
        # Whoever asks for the same again waits, and finds it done.
        self._lock = threading.Lock()
        self._loaded: str | None = None

    def load(self, order: Order, peer: str) -> dict[str, float]:
        """Have this adapter loaded; AskError if that cannot be. Whoever asks draws from it at once."""
        with self._lock:
            begun, target = time.monotonic(), self._directory / order.name
            fetched = fetch(order, peer, target)
            after = time.monotonic()
            if self._loaded != order.name or order.name not in self._control.models():
                self._load(order.name, target)
            self._loaded = order.name
            return {"fetchSeconds": after - begun, "loadSeconds": time.monotonic() - after, "bytes": fetched}

    def drop_others(self) -> None:
        """All but the adapter that was loaded last: first out of the server, then their files."""
        with self._lock:
            if self._loaded is None:
                return
            for other in self._control.models():
                if other not in (BASE_MODEL, self._loaded):
                    self._control.unload(other)
            for entry in self._directory.iterdir():
                if entry.name != self._loaded:
                    shutil.rmtree(entry, ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """What is there now."""
        held = [name for name in self._control.models() if name != BASE_MODEL]
        return {"adapters": held, "complaint": self.life.complaint}

    def _load(self, name: str, path: Path) -> None:
        try:
            self._control.load(name, path)
        except TimeoutError as error:
            self.life.complain(f"did not load {name}: {error}")
            raise AskError(504, f"vLLM did not load {name}: {error}") from None
        except AskError:
            # What it holds already, it refuses: of a loader before this one.
            if name not in self._control.models():
                raise


class _Handler(BaseHTTPRequestHandler):
    """Requests and answers as JSON; `loader` is a subclass's."""

    loader: Loader
    timeout = _SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """What is so."""
        self._answered(lambda: _told(self.loader, self.path))

    def do_POST(self) -> None:
        """What is to be done."""
        self._answered(lambda: _done(self.loader, self.path, self._body(), self.client_address[0]))
        if self.path == "/load":
            # Generation does not wait for it. What fails here is done after the next load.
            with suppress(AskError, OSError):
                self.loader.drop_others()

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MOST_BYTES:
            raise AskError(400, f"a body of at most {_MOST_BYTES} bytes is expected, with its Content-Length")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise AskError(400, "the body is no JSON") from None
        if not isinstance(body, dict):
            raise AskError(400, "the body is no JSON object")
        return body

    def _answered(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            status, said = 200, work()
        except AskError as error:
            status, said = error.status, {"error": str(error)}
        except OSError as error:
            status, said = 500, {"error": f"the adapters' directory cannot be used: {error}"}
        text = json.dumps(said).encode()
        # Whoever asked may be gone.
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, template: str, *arguments: object) -> None:
        """Probes would bury the log."""
        if self.command == "POST":
            print(f"anneal: {self.client_address[0]} {template % arguments}", file=sys.stderr, flush=True)  # noqa: T201


def served(loader: Loader, port: int) -> ThreadingHTTPServer:
    """A server on every address of the pod, not yet begun: the kubelet and rank 0 ask by the pod's IP."""
    server = ThreadingHTTPServer(("", port), type("Handler", (_Handler,), {"loader": loader}))
    server.daemon_threads = True
    return server


def _told(loader: Loader, path: str) -> dict[str, Any]:
    match path.partition("?")[0]:
        case "/live":
            if trouble := loader.life.trouble():
                raise AskError(503, trouble)
            return {"live": True}
        case "/ready":
            if not loader.life.answers():
                raise AskError(503, "vLLM does not answer /health with 200")
            return {"ready": True}
        case "/state":
            return loader.state()
    raise AskError(404, "try /live, /ready or /state")


def _done(loader: Loader, path: str, body: Mapping[str, Any], peer: str) -> dict[str, Any]:
    match path:
        case "/load":
            return loader.load(Order.of(body), peer)
        case "/complain":
            why = body.get("why")
            if not isinstance(why, str) or not why:
                raise AskError(400, "why is a sentence")
            loader.life.complain(why)
            return {}
    raise AskError(404, "try /load or /complain")


def main(environment: Mapping[str, str]) -> None:
    """Serve until the pod ends."""
    # The kernel keeps from the first process of a container what that does not handle: the pod, and its GPUs with it,
    # would stay for all of its grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    directory = Path(environment.get("ANNEAL_ADAPTERS_DIR", ADAPTERS_DIR))
    control = Control("127.0.0.1", int(environment.get("ANNEAL_VLLM_PORT", VLLM_PORT)))
    port = int(environment.get("ANNEAL_LOADER_PORT", LOADER_PORT))
    served(Loader(control, directory), port).serve_forever()


if __name__ == "__main__":
    main(os.environ)
