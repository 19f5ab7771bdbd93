"""What the loader says to the vLLM server of its own pod, and what it knows of its life.

Only Python's own library, as of the loader. Not here: drawing answers (`api`).
"""

import http.client
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anneal_trainer.rollout.fetch import AskError

# Of probes, which the kubelet waits for; of what a busy server is asked beside its answers; of loading.
_QUICK: Final = 4.0
_BUSY: Final = 30.0
_LOADING: Final = 300.0
_OK: Final = 200
_SHOWN: Final = 500


@dataclass(frozen=True)
class Control:
    """The requests to one server."""

    host: str
    port: int

    def healthy(self) -> bool:
        """Whether it answers and its engine is not known to be dead."""
        try:
            return self._ask("GET", "/health", None, _QUICK)[0] == _OK
        except OSError:
            return False

    def started(self) -> str | None:
        """When its process began, if it can be told."""
        try:
            status, body = self._ask("GET", "/metrics", None, _QUICK)
        except OSError:
            return None
        found = re.search(rb"^process_start_time_seconds (\S+)$", body, re.MULTILINE)
        return found[1].decode() if found and status == _OK else None

    def models(self) -> list[str]:
        """The adapters that it holds, and the base."""
        status, body = self._asked("GET", "/v1/models", None, _BUSY)
        try:
            return [str(model["id"]) for model in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError):
            raise AskError(503, f"vLLM answered /v1/models with {status}: {_words(body)}") from None

    def load(self, name: str, path: Path) -> None:
        """TimeoutError if it does not answer, AskError if it does not load it."""
        body = {"lora_name": name, "lora_path": str(path)}
        status, said = self._asked("POST", "/v1/load_lora_adapter", body, _LOADING)
        if status != _OK:
            # It says 500 of an adapter that does not fit it, too: one that is well has refused it, now and later.
            refused = self.healthy()
            raise AskError(422 if refused else 503, f"vLLM does not load {name} ({status}): {_words(said)}")

    def unload(self, name: str) -> None:
        """If it is not known, that is as well."""
        self._asked("POST", "/v1/unload_lora_adapter", {"lora_name": name}, _BUSY)

    def _asked(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        try:
            return self._ask(method, path, body, seconds)
        except TimeoutError:
            if seconds == _LOADING:
                raise TimeoutError(f"no answer for {seconds:.0f} s") from None
            raise AskError(503, f"vLLM does not answer {path} within {seconds:.0f} s") from None
        except OSError as error:
            raise AskError(503, f"vLLM cannot be reached: {error}") from None

    def _ask(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        headers = {"Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from None
        finally:
            connection.close()


class Life:
    """Whether the server lives. A complaint stands until its process is another one: begun later, or gone meanwhile."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._answered = False
        self._started: str | None = None
        self.complaint: str | None = None

    def complain(self, why: str) -> None:
        """The server takes requests and computes nothing."""
        started = self._control.started()
        with self._lock:
            self.complaint, self._started = why, started

    def answers(self) -> bool:
        """Whether it is healthy now."""
        healthy = self._control.healthy()
        another = healthy and self.complaint is not None and self._control.started() not in (self._started, None)
        with self._lock:
            if another or (self._answered and not healthy):
                self.complaint = None
            self._answered = self._answered or healthy
        return healthy

    def trouble(self) -> str | None:
        """Why it should be restarted; None while it begins (the startup probe's part) and while all is well."""
        before, complaint = self._answered, self.complaint
        healthy = self.answers()
        if before and not healthy:
            return f"vLLM hangs: {complaint}" if complaint else "vLLM does not answer /health with 200"
        return f"vLLM hangs: {self.complaint}" if self.complaint else None


def _words(body: bytes) -> str:
    """The server's own: {"error": {"message": …}}, or whatever it said."""
    try:
        return str(json.loads(body)["error"]["message"])[:_SHOWN]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")[:_SHOWN]
