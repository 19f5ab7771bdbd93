"""What is said to one vLLM server, and to the loader beside it: their requests, and what their answers mean.

Asynchronous: many prompts are asked at once over kept connections. Not here: which server is asked (`sharing`), and
when one is given up (`replicas`).
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from anneal_api.meta import BASE_MODEL
from anneal_api.online import SamplingSpec
from anneal_api.rollout import NEWEST, OLDEST
from anneal_trainer.errors import ConfigError
from anneal_trainer.rollout.served import Published

QUICK: Final = 10.0
# A hand-over: gigabytes over a busy network, and the server's own loading.
_HAND_OVER: Final = 900.0
_SHOWN: Final = 300
_OK, _BAD, _MISSING, _REFUSED = 200, 400, 404, 422


class ServerError(Exception):
    """A server did not do what was asked of it; another one may, or this one later."""


class LacksAdapterError(ServerError):
    """The server does not know the adapter that was asked for: it began anew."""


@dataclass(frozen=True)
class Endpoint:
    """One server. `loader` is the port of what fetches adapters beside it; None: it reads them by path."""

    host: str
    port: int
    loader: int | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Request:
    """A prompt and how many answers it gets.

    Answer k is drawn with `seed` + k, so the seeds of two prompts must be further apart than that: those of equal
    seeds are drawn with equal numbers.
    """

    prompt: list[int]
    answers: int
    seed: int | None


@dataclass(frozen=True)
class Completion:
    """An answer's tokens, the end of a turn among them if there is one, and the log-probability each was drawn with."""

    ids: list[int]
    logprobs: list[float]
    cut_off: bool


@dataclass(frozen=True)
class Pulse:
    """When a server's process began (None: not told), and how many tokens it has computed since."""

    started: float | None
    tokens: float


class Server:
    """The requests to one endpoint."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint) -> None:
        self._session = session
        self.endpoint = endpoint
        self._url = f"http://{endpoint.host}:{endpoint.port}"

    async def check_version(self) -> None:
        """ConfigError if it is no version that Anneal knows."""
        said = await self._json("GET", f"{self._url}/version", seconds=QUICK)
        version = str(said.get("version")) if isinstance(said, dict) else ""
        found = re.match(r"([0-9]+)[.]([0-9]+)", version)
        if not found or not OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
            raise ConfigError(
                f"the server at {self.endpoint} is vLLM {version or 'of no version'}; versions {_dotted(OLDEST)} to "
                f"{_dotted(NEWEST)} are supported: set rollout.image to an image of one of them"
            )

    async def models(self) -> list[str]:
        """The adapters that it has, and the base."""
        said = await self._json("GET", f"{self._url}/v1/models", seconds=QUICK)
        try:
            return [str(model["id"]) for model in said["data"]]
        except (TypeError, KeyError):
            raise ServerError(f"/v1/models answered {_shown(said)}, which is no list of models") from None

    async def pulse(self) -> Pulse:
        """Whether it computes: from its metrics, which it tells even while its engine hangs."""
        status, body = await self._ask("GET", f"{self._url}/metrics", None, seconds=QUICK)
        if status != _OK:
            raise ServerError(f"/metrics answered {status}")
        text = body.decode(errors="replace")
        started = re.search(r"^process_start_time_seconds ([0-9.e+]+)$", text, re.MULTILINE)
        counters = re.findall(r"^vllm:(?:prompt|generation)_tokens_total\S* ([0-9.e+]+)$", text, re.MULTILINE)
        return Pulse(float(started[1]) if started else None, sum(map(float, counters)))

    async def complete(self, model: str, request: Request, options: dict[str, Any]) -> list[Completion]:
        """The answers to a prompt, each with what it was drawn with."""
        # The most likely answer is one, which vLLM is asked for once.
        drawn = request.answers if options["temperature"] else 1
        asked = {"model": model, "prompt": request.prompt, "n": drawn, **options}
        if request.seed is not None:
            asked["seed"] = request.seed
        status, body = await self._ask("POST", f"{self._url}/v1/completions", asked, seconds=None)
        if status == _OK:
            return _completions(body, drawn) * (request.answers // drawn)
        said = _complaint(body)
        if status == _MISSING:
            raise LacksAdapterError(f"has no {model}: {said}")
        if status == _BAD:
            raise ConfigError(
                f"the server at {self.endpoint} refuses a prompt of {len(request.prompt)} tokens with sampling."
                f"maxTokens {options['max_tokens']} (rollout.maxModelLen is what it has room for): {said}"
            )
        raise ServerError(f"/v1/completions answered {status}: {said}")

    async def load(self, adapter: Published, port: int | None) -> int:
        """Give it an adapter; the bytes that travelled. Others are taken away. `port` is where rank 0 serves it."""
        if self.endpoint.loader is None:
            return await self._load_by_path(adapter)
        assert port is not None, "loaders fetch from rank 0's port"
        body = {"name": adapter.name, "port": port, "path": f"/adapters/{adapter.name}", "files": adapter.files}
        url = f"http://{self.endpoint.host}:{self.endpoint.loader}/load"
        status, said = await self._ask("POST", url, body, seconds=_HAND_OVER)
        if status == _OK:
            try:
                return int(_parsed(said)["bytes"])
            except (TypeError, KeyError, ValueError):
                raise ServerError(f"has a loader that answered {_shown(said.decode(errors='replace'))}") from None
        raise self._not_loaded(status, _complaint(said))

    async def complain(self, why: str) -> None:
        """Have the loader tell the kubelet that this server hangs, which restarts it."""
        if self.endpoint.loader is not None:
            url = f"http://{self.endpoint.host}:{self.endpoint.loader}/complain"
            await self._ask("POST", url, {"why": why}, seconds=QUICK)

    async def _load_by_path(self, adapter: Published) -> int:
        held = await self.models()
        moved = 0
        # vLLM refuses one that it has; there is one if taking the others away failed.
        if adapter.name not in held:
            await self._load_from(adapter)
            moved = adapter.bytes
        for name in held:
            if name not in (BASE_MODEL, adapter.name):
                await self._ask("POST", f"{self._url}/v1/unload_lora_adapter", {"lora_name": name}, seconds=QUICK)
        return moved

    async def _load_from(self, adapter: Published) -> None:
        asked = {"lora_name": adapter.name, "lora_path": str(adapter.directory)}
        status, said = await self._ask("POST", f"{self._url}/v1/load_lora_adapter", asked, seconds=_HAND_OVER)
        if status != _OK:
            # It says 500 of an adapter that does not fit it, too: one that is well has refused it, now and later.
            well = (await self._ask("GET", f"{self._url}/health", None, seconds=QUICK))[0] == _OK
            raise self._not_loaded(_REFUSED if well else status, _complaint(said))

    def _not_loaded(self, status: int, said: str) -> Exception:
        if status == _REFUSED:
            return ConfigError(f"the server at {self.endpoint} refuses the adapter: {said}")
        return ServerError(f"did not load the adapter ({status}): {said}")

    async def _json(self, method: str, url: str, *, seconds: float) -> Any:
        status, body = await self._ask(method, url, None, seconds=seconds)
        if status != _OK:
            raise ServerError(f"{url.rpartition('/')[2]} answered {status}: {_complaint(body)}")
        return _parsed(body)

    async def _ask(self, method: str, url: str, body: Any, *, seconds: float | None) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=QUICK)
        try:
            async with self._session.request(method, url, json=body, timeout=timeout) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServerError(f"cannot be reached: {str(error) or type(error).__name__}") from None


def options(sampling: SamplingSpec, *, ends: Sequence[int], greedy: bool) -> dict[str, Any]:
    """How all answers of a draw are drawn, in vLLM's words."""
    drawn = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
    }
    return {
        **({"temperature": 0} if greedy else drawn),
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "stop_token_ids": list(ends),
        # Of the drawn token alone.
        "logprobs": 0,
        "return_token_ids": True,
    }


def _completions(body: bytes, answers: int) -> list[Completion]:
    said = _parsed(body)
    try:
        choices = sorted(said["choices"], key=lambda choice: int(choice["index"]))
        found = [_completion(choice) for choice in choices]
        places = [choice["index"] for choice in choices]
    except (TypeError, KeyError, ValueError):
        raise ServerError(f"answered {_shown(said)}, which is no completion") from None
    if places != list(range(answers)):
        raise ServerError(f"answered {len(found)} answers where {answers} were asked for")
    return found


def _completion(choice: dict[str, Any]) -> Completion:
    ids = [int(token) for token in choice["token_ids"]]
    logprobs = [float(each) for each in choice["logprobs"]["token_logprobs"]] if ids else []
    if len(ids) != len(logprobs) or any(math.isnan(each) for each in logprobs):
        raise ValueError(ids)
    reason = choice["finish_reason"]
    if reason not in ("stop", "length"):
        raise ValueError(reason)
    return Completion(ids, logprobs, cut_off=reason == "length")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ServerError(f"answered no JSON: {_shown(body.decode(errors='replace'))}") from None


def _complaint(body: bytes) -> str:
    """The server's own words: {"error": {"message": …}}, {"error": …}, or whatever it said."""
    try:
        said: Any = json.loads(body)["error"]
        return _shown(said["message"] if isinstance(said, dict) else said)
    except (ValueError, TypeError, KeyError, RecursionError):
        return _shown(body.decode(errors="replace"))


def _shown(said: Any) -> str:
    text = said if isinstance(said, str) else json.dumps(said)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
