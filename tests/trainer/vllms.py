"""vLLM servers of tests: a real one on loopback, and a stand-in that fails in every way that a real one may."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from anneal_api import vllm
from anneal_api.meta import BASE_MODEL
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.rollout.loader import Loader, served
from anneal_trainer.rollout.pool import Endpoint, Pool, Served
from anneal_trainer.rollout.vllm_control import Control
from trainer.servers import Quiet, serving

_START_SECONDS = 480


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def vllm_server(python: Path, spec: RLHFSpec, model: Path, log: Path, *more: str) -> Iterator[int]:
    """A real server of a job's spec over `model`; its port, once it is ready."""
    port = free_port()
    arguments = vllm.arguments(spec, model=str(model), port=port, host="127.0.0.1")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # One that is ended in a hurry leaves its sockets.
    with log.open("wb") as output, tempfile.TemporaryDirectory(prefix="vllm-", ignore_cleanup_errors=True) as scratch:
        process = subprocess.Popen(
            [python, "-m", vllm.MODULE, *arguments, *more],
            env={**inherited, **vllm.environment(spec), "TMPDIR": scratch},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _until_ready(process, port, log)
            yield port
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"vLLM did not start: {log.read_text(errors='replace')[-3000:]}")


def until(what: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait for it to be true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


class StandIn(Quiet):
    """Speaks as vLLM does. Answers hold what tells them apart: the digits of the version, the server, the prompt."""

    number: ClassVar[int]
    version: ClassVar[str]
    started: ClassVar[float]
    adapters: ClassVar[list[str]]
    # What it does with prompts: "answers", or the name of a way to fail.
    mood: ClassVar[str]
    seen: ClassVar[list[dict[str, Any]]]
    loads: ClassVar[list[str]]
    tokens: ClassVar[int]
    stopped: ClassVar[threading.Event]
    seconds: ClassVar[float]
    # What it tells without an adapter.
    base_version: ClassVar[int] = 0

    @classmethod
    def begin_anew(cls) -> None:
        """As after a restart of its process."""
        cls.adapters, cls.mood, cls.started = [], "answers", cls.started + 1

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """What is asked of it without changing anything."""
        if self.mood == "dead":
            self.close_connection = True
            return
        match self.path:
            case "/health":
                self.answer(503 if self.mood == "ill" else 200)
            case "/version":
                self._json(200, {"version": self.version})
            case "/v1/models":
                self._json(200, {"data": [{"id": name} for name in (BASE_MODEL, *self.adapters)]})
            case "/metrics":
                lines = [
                    f"process_start_time_seconds {self.started}",
                    f'vllm:generation_tokens_total{{e="0"}} {self.tokens}',
                ]
                self.answer(200, "\n".join([*lines, ""]).encode())

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        """Adapters and prompts."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.mood == "dead":
            self.close_connection = True
            return
        match self.path:
            case "/v1/load_lora_adapter":
                self._load(body)
            case "/v1/unload_lora_adapter":
                self._unload(body["lora_name"])
            case "/v1/completions":
                self.seen.append(body)
                self._complete(body)

    def _unload(self, name: str) -> None:
        if self.mood == "keeps":
            type(self).mood = "answers"
            self.close_connection = True
            return
        type(self).adapters = [each for each in self.adapters if each != name]
        self.answer(200)

    def _load(self, body: dict[str, Any]) -> None:
        self.loads.append(body["lora_name"])
        if self.mood == "refuses":
            # As vLLM 0.31 has it.
            self._json(
                500,
                {"error": {"message": "Call to add_lora method failed: LoRA rank 64 is greater than max_lora_rank 8."}},
            )
        elif body["lora_name"] in self.adapters:
            self._json(400, {"error": {"message": f"The lora adapter '{body['lora_name']}' has already been loaded."}})
        elif not (Path(body["lora_path"]) / "adapter_config.json").exists():
            self._json(404, {"error": {"message": "No adapter found"}})
        else:
            type(self).adapters = [*self.adapters, body["lora_name"]]
            self.answer(200, b"Success")

    def _complete(self, body: dict[str, Any]) -> None:
        model = body["model"]
        time.sleep(self.seconds)
        match self.mood:
            case "hangs":
                self.stopped.wait(30)
                self.close_connection = True
            case "slow":
                for _ in range(8):
                    type(self).tokens += 1
                    time.sleep(0.25)
                self._answers(body)
            case "dies" | "dead":
                type(self).mood = "dead"
                self.close_connection = True
            case "mumbles":
                self.answer(200, b"<html>")
            case "fails":
                self._json(500, {"error": {"message": "EngineCore encountered an issue."}})
            case _ if model not in (BASE_MODEL, *self.adapters):
                self._json(404, {"error": {"message": f"The model `{model}` does not exist."}})
            case _:
                self._answers(body)

    def _answers(self, body: dict[str, Any]) -> None:
        model = body["model"]
        version = self.base_version if model == BASE_MODEL else int(model.partition("-")[0][1:])
        choice = {"token_ids": [version, self.number, body["prompt"][0]], "finish_reason": "stop"}
        choice["logprobs"] = {"token_logprobs": [-0.5, -0.25, -0.125]}
        # Not in order: nothing promises that.
        self._json(200, {"choices": [{**choice, "index": index} for index in reversed(range(body["n"]))]})

    def _json(self, status: int, said: Any) -> None:
        self.answer(status, json.dumps(said).encode())


@contextmanager
def stand_ins(count: int = 1, *, loaders: Path | None = None) -> Iterator[tuple[list[Endpoint], list[type[StandIn]]]]:
    """So many servers, with real loaders beside them that keep adapters below `loaders`."""
    with ExitStack() as stack:
        endpoints, kinds = [], []
        stopped = threading.Event()
        for number in range(count):
            blank = {
                "number": number,
                "version": "0.31.0",
                "started": 1.0,
                "mood": "answers",
                "tokens": 0,
                "seconds": 0.0,
            }
            kind = type("One", (StandIn,), {**blank, "adapters": [], "seen": [], "loads": [], "stopped": stopped})
            port = int(stack.enter_context(serving(kind)).rpartition(":")[2])
            loader = None
            if loaders is not None:
                loader = stack.enter_context(loader_beside(port, loaders / str(number)))
            endpoints.append(Endpoint("127.0.0.1", port, loader))
            kinds.append(kind)
        stack.callback(stopped.set)
        yield endpoints, kinds


@contextmanager
def loader_beside(port: int, directory: Path) -> Iterator[int]:
    """A real loader of the server at `port`; its own port."""
    directory.mkdir(parents=True, exist_ok=True)
    server = served(Loader(Control("127.0.0.1", port), directory), 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def loader_process(port: int, directory: Path) -> Iterator[int]:
    """The same as a process of its own, as it is in a pod; its own port."""
    directory.mkdir(parents=True, exist_ok=True)
    own = free_port()
    environment = {
        **os.environ,
        "ANNEAL_LOADER_PORT": str(own),
        "ANNEAL_VLLM_PORT": str(port),
        "ANNEAL_ADAPTERS_DIR": str(directory),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen([sys.executable, "-m", "anneal_trainer.rollout.loader"], env=environment)
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", own)) == 0)
        yield own
    finally:
        process.terminate()
        process.wait()


@contextmanager
def pool_of(endpoints: list[Endpoint], **options: Any) -> Iterator[Pool]:
    """A pool over them that does not wait for long."""
    given: dict[str, Any] = {"patience": 10, "served": None, "log": lambda _line: None, "hung_after": 1.0, **options}
    pool = Pool(lambda: list(endpoints), replicas=len(endpoints), **given)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def rank0_serving(directory: Path) -> Iterator[Served]:
    """The launcher's server, with adapters below `directory`."""
    from anneal_api import ProgressReport
    from anneal_trainer import server

    records = server.Records(directory, ProgressReport())
    serving_records = server.serve(records, 0)
    try:
        yield Served(records.adapters, serving_records.server_port)
    finally:
        serving_records.shutdown()
        serving_records.server_close()


def adapter_at(path: Path, text: str = "weights") -> Path:
    """Files as an adapter has them; stand-ins do not read them."""
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_text(text)
    return path
