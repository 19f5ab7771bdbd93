"""A vLLM server that the trainer starts itself: of colocated jobs, one a process, and of `anneal run`.

It listens on loopback only, shares the process's GPU, reads adapters by their path, and writes to a log on the job's
storage. When it ends while it is needed it is started again, on another port. It has a process group of its own, so
that an interrupt at the terminal reaches only the trainer, which ends it; the kernel does if the trainer was killed.
Not here: what is asked of it (`pool`), its command line (`anneal_api.vllm`), and which mode a job takes (`where`).
"""

import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from anneal_api import vllm
from anneal_api.meta import ENV_VLLM_PYTHON
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.errors import ConfigError, RolloutError
from anneal_trainer.files import replace_text

LOOPBACK = "127.0.0.1"
# Ends in a row before it was ready, after it has been ready once.
_MOST_STARTS = 3
_LOOK_SECONDS = 0.5
_ENDING_SECONDS = 20.0
_SAY_SECONDS = 60.0
_LAST_LINES = 8
# Before the command in the log, as in a shell.
_PROMPT = "$ "
_PORTS = "vllm-*.port"
# Of a directory for sockets: their paths have at most 107 bytes, and vLLM's names 36 of them.
_LONGEST_PATH = 70
_TIED = Path(__file__).with_name("tied.py")
# What tells a process of its part in training; vLLM would take it for its own.
_OF_TRAINING = ("RANK", "WORLD_SIZE", "MASTER_", "LOCAL_", "GROUP_", "ROLE_", "TORCHELASTIC_", "PET_", "OMP_NUM_")


@dataclass(frozen=True)
class Place:
    """Where one server runs and is found.

    `number`: of the process on this machine. `ports`: the directory in which those of all processes are found.
    """

    python: str
    model: Path
    log: Path
    ports: Path
    number: int = 0


class LocalServer:
    """A context: a server that is kept running until the block is left."""

    def __init__(self, spec: RLHFSpec, place: Place) -> None:
        self._spec, self._place = spec, place
        self._process: subprocess.Popen[bytes] | None = None
        self._ready, self._ending = Event(), Event()
        self._failed: Exception | None = None
        self._ended = ""
        self._sockets: TemporaryDirectory[str] | None = None
        self._thread = Thread(target=self._keep, name="vllm", daemon=True)

    def __enter__(self) -> Self:
        self._place.log.parent.mkdir(parents=True, exist_ok=True)
        self._place.ports.mkdir(parents=True, exist_ok=True)
        self._place.log.write_bytes(b"")
        self._sockets = _directory_for_sockets()
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if self._sockets is not None:
            self._sockets.cleanup()

    def wait(self, *, say: Callable[[str], None]) -> None:
        """Until it answers; ConfigError with its last lines if it cannot start."""
        begun = said = monotonic()
        patience = self._spec.rollout.start_timeout_seconds if self._spec.rollout else 0
        while not self._ready.wait(_LOOK_SECONDS):
            self.check()
            now = monotonic()
            if now - begun > patience:
                raise RolloutError(
                    f"vLLM was not ready after {patience} s (rollout.startTimeoutSeconds); its last lines:\n"
                    f"{self._last_lines()}"
                )
            if now - said >= _SAY_SECONDS:
                said = now
                say(f"starting vLLM: {now - begun:.0f} s")
        say(f"vLLM is ready after {monotonic() - begun:.0f} s")

    def check(self) -> None:
        """Raise what keeps it from running."""
        if self._failed is not None:
            raise self._failed

    def told(self) -> str:
        """Why there is none now."""
        return f"vLLM {self._ended}is being started (its log: {self._place.log})"

    # Its thread ------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Whatever keeps it from running is for `check` to tell: nobody waits for this thread."""
        try:
            self._start_again()
        except Exception as error:  # noqa: BLE001 - as above
            again = " again" if self._ended else ""
            self._failed = RolloutError(f"vLLM {self._ended}cannot be started{again}: {error}")

    def _start_again(self) -> None:
        """Start it, and start it again."""
        starts, was_ready = 0, False
        while not self._ending.is_set():
            starts += 1
            code = self._run()
            self._ended = f"ended with exit code {code}, and "
            if self._ending.is_set():
                return
            if self._ready.is_set():
                starts, was_ready = 0, True
                self._ready.clear()
            elif not was_ready or starts >= _MOST_STARTS:
                self._failed = self._cannot_start(code, again=was_ready)
                return

    def _run(self) -> int:
        """One life of it: its exit code."""
        port = _free_port()
        with self._place.log.open("ab") as log:
            log.write(f"{_PROMPT}{self._command_line(port)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(  # noqa: S603 - a program of this machine or image
                [sys.executable, str(_TIED), str(os.getpid()), *self._command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        mark = self._place.ports / _PORTS.replace("*", str(self._place.number))
        try:
            while self._process.poll() is None and not self._ending.wait(_LOOK_SECONDS):
                if not self._ready.is_set() and _answers(port):
                    replace_text(mark, str(port))
                    self._ready.set()
        finally:
            try:
                mark.unlink(missing_ok=True)
            finally:
                self._end()
        return self._process.returncode

    def _end(self) -> None:
        """All of its processes."""
        assert self._process is not None, "it was started"
        group = self._process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()

    def _command(self, port: int) -> list[str]:
        given = vllm.arguments(self._spec, model=str(self._place.model), port=port, host=LOOPBACK)
        return [self._place.python, "-m", vllm.MODULE, *given]

    def _command_line(self, port: int) -> str:
        """How a person starts the same."""
        given = (f"{name}={value}" for name, value in self._of_vllm().items())
        return shlex.join(["env", *given, *self._command(port)])

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_TRAINING)}
        if self._place.python != sys.executable:
            # The trainer's packages are not those of another Python.
            kept.pop("PYTHONPATH", None)
        assert self._sockets is not None, "made before its thread"
        # One that is killed leaves its sockets, and a file by which its processes met.
        sockets = {"VLLM_RPC_BASE_PATH": self._sockets.name, "TMPDIR": self._sockets.name}
        return {**kept, **self._of_vllm(), **sockets}

    def _of_vllm(self) -> dict[str, str]:
        gpu = {} if vllm.on_cpu(self._spec) else {"CUDA_VISIBLE_DEVICES": gpu_of(self._place.number, os.environ)}
        return {**vllm.environment(self._spec), **gpu}

    def _cannot_start(self, code: int, *, again: bool) -> Exception:
        kind = RolloutError if again else ConfigError
        return kind(
            f"vLLM ended with exit code {code} before it was ready; its last lines (all are in "
            f"{self._place.log.name} of the run's logs):\n{self._last_lines()}\n"
            f"it was started with {self._place.python}: if that has no vLLM, name in {ENV_VLLM_PYTHON} one that has; "
            "take rollout.mode: generate if this model or machine cannot serve it"
        )

    def _last_lines(self) -> str:
        with self._place.log.open(encoding="utf-8", errors="replace") as log:
            said = (line for line in log if line.strip() and not line.startswith(_PROMPT))
            return "".join(deque(said, _LAST_LINES)).rstrip()


def ports(directory: Path) -> list[int]:
    """Of the servers of all processes of this machine that are ready now."""
    found = []
    for mark in sorted(directory.glob(_PORTS)):
        with suppress(FileNotFoundError):
            found.append(int(mark.read_text(encoding="utf-8")))
    return found


def gpu_of(number: int, environment: Mapping[str, str]) -> str:
    """The GPU of a process, as CUDA_VISIBLE_DEVICES names it.

    >>> gpu_of(1, {"CUDA_VISIBLE_DEVICES": "4,6"})
    '6'
    """
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[number] if number < len(visible) else str(number)


def _directory_for_sockets() -> TemporaryDirectory[str]:
    most = _LONGEST_PATH - len("/vllm-12345678")
    short = tempfile.gettempdir() if len(os.fsencode(tempfile.gettempdir())) <= most else "/tmp"  # noqa: S108 - its own below
    return TemporaryDirectory(prefix="vllm-", dir=short, ignore_cleanup_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
