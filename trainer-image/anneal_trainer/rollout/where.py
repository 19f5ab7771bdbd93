"""Which servers a job draws from, if any: the operator's, its own, one that is named, or none and `generate` instead.

| rollout.mode | in a pod | under `anneal run` |
|---|---|---|
| server | the job's Service | a server of our own, if a Python with vLLM is found |
| colocate | a server of our own a process | the same |
| generate | none | none |

`ANNEAL_ROLLOUT_HOST` is the Service's name, or HOST:PORT of one server of this machine that somebody keeps running.
Not here: what is drawn (`methods.drawing`).
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from anneal_api.meta import ENV_ROLLOUT_HOST, ENV_VLLM_PYTHON, LOADER_PORT, PROGRESS_PORT, VLLM_PORT
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import RolloutSpec
from anneal_trainer import console
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError
from anneal_trainer.rollout.local import LOOPBACK, LocalServer, Place, ports
from anneal_trainer.rollout.pool import Endpoint, Pool, Served

# Of a GPU's memory, where trainer and server share it: as mode colocate has it.
_SHARED = 0.3
_PORTS = 65536


@dataclass(frozen=True)
class Rollout:
    """Servers: `find` names those of `replicas` that are ready. Without `adapters` they get all weights."""

    pool: Pool
    find: Callable[[], Sequence[Endpoint]]
    replicas: int
    patience: float
    adapters: bool = True
    stop: Callable[[], bool] = lambda: False


@contextmanager
def opened(context: Context, *, model: Path, stop: Callable[[], bool], gpu: bool) -> Iterator[Rollout | None]:
    """The servers, once there are some; None: answers are drawn with generate. `model` is the base's directory."""
    spec = context.spec
    assert isinstance(spec, RLHFSpec), "only jobs of that kind draw answers"
    assert spec.rollout is not None, "resolve() fills rollout"
    host, say = os.environ.get(ENV_ROLLOUT_HOST), _first_says()
    if spec.rollout.mode == "generate":
        yield None
    elif host:
        yield from _closed_after(_of_host(context, spec.rollout, host, stop=stop, say=say))
    else:
        python = _python(spec, context, say)
        if python is None:
            yield None
        else:
            yield from _own(context, as_here(spec, gpu=gpu), Path(model), python, stop=stop, say=say)


def as_here(spec: RLHFSpec, *, gpu: bool) -> RLHFSpec:
    """The spec as a server of our own follows it: one a process, beside the trainer."""
    rollout = spec.rollout
    assert rollout is not None, "resolve() fills rollout"
    compute = spec.compute if gpu else spec.compute.model_copy(update={"gpus_per_node": 0})
    if rollout.mode == "server":
        changes = {"mode": "colocate", "tensor_parallel": 1, "gpus": None, "memory_utilization": _SHARED}
        rollout = rollout.model_copy(update=changes)
    return spec.model_copy(update={"rollout": rollout, "compute": compute})


def python_with_vllm(environment: Mapping[str, str]) -> str | None:
    """A Python that has vLLM: the named one, or this one; ConfigError if there is none at the name."""
    named = environment.get(ENV_VLLM_PYTHON)
    if named and not (Path(named).is_file() and os.access(named, os.X_OK)):
        raise ConfigError(
            f"{ENV_VLLM_PYTHON} is {named}, which is no program: name the Python of an environment with vLLM, "
            "or unset it"
        )
    return named or (sys.executable if find_spec("vllm") else None)


def _python(spec: RLHFSpec, context: Context, say: Callable[[str], None]) -> str | None:
    """That of a server of our own; None, with a note, where `anneal run` has to do without."""
    assert spec.rollout is not None, "resolve() fills rollout"
    if not context.local and spec.rollout.mode == "server":
        raise ConfigError(
            f"rollout.mode: server, but {ENV_ROLLOUT_HOST} does not say where the servers are: the operator sets it, "
            "so it is older than this trainer's image; upgrade it, or take rollout.mode: generate"
        )
    if context.local and spec.rollout.weight_sync == "nccl":
        say("note: answers are drawn with generate, which is slower: a vLLM of this machine takes only adapters")
        return None
    python = python_with_vllm(os.environ)
    if python is None and not context.local:
        raise ConfigError(
            "rollout.mode: colocate, but the trainer's image has no vLLM: set images.colocate in the operator's Helm "
            "values to one that has, or take rollout.mode: server or generate"
        )
    if python is None:
        say(
            "note: answers are drawn with generate, which is slower: this Python has no vLLM, and "
            f"{ENV_VLLM_PYTHON} names none that has"
        )
    return python


def _first_says() -> Callable[[str], None]:
    """What tells a person; only the first rank does."""
    return console.say if os.environ.get("RANK", "0") == "0" else _nothing


def _nothing(_text: str) -> None:
    pass


def _of_host(
    context: Context, rollout: RolloutSpec, host: str, *, stop: Callable[[], bool], say: Callable[[str], None]
) -> Rollout:
    name, port = _named(host)
    adapters, patience = rollout.weight_sync == "adapter", rollout.start_timeout_seconds
    replicas = 1 if port else rollout.servers

    def find() -> Sequence[Endpoint]:
        return [Endpoint(name, port, None)] if port else _resolved(name, LOADER_PORT if adapters else None)

    served = None
    if not port and adapters and context.records is not None and os.environ.get("RANK", "0") == "0":
        served = Served(context.records / "adapters", PROGRESS_PORT)
    pool = Pool(find, replicas=replicas, patience=patience, served=served, log=say, stop=stop, adapters=adapters)
    return Rollout(pool, find, replicas, patience, adapters, stop)


def _named(host: str) -> tuple[str, int | None]:
    """The name of a Service, or host and port of one server."""
    name, colon, port = host.partition(":")
    if colon and not (name and port.isdigit() and 0 < int(port) < _PORTS):
        raise ConfigError(
            f"{ENV_ROLLOUT_HOST} is {host!r}: write HOST:PORT of a server, like 127.0.0.1:8000, or the name alone of a "
            "Service of servers"
        )
    return name, int(port) if colon else None


def _resolved(name: str, loader: int | None) -> Sequence[Endpoint]:
    """The addresses of a headless Service: those of its ready pods; OSError while there are none."""
    found = socket.getaddrinfo(name, VLLM_PORT, type=socket.SOCK_STREAM)
    return [Endpoint(address, VLLM_PORT, loader) for address in sorted({str(each[4][0]) for each in found})]


def _own(
    context: Context, spec: RLHFSpec, model: Path, python: str, *, stop: Callable[[], bool], say: Callable[[str], None]
) -> Iterator[Rollout]:
    rollout, number = spec.rollout, int(os.environ.get("LOCAL_RANK", "0"))
    assert rollout is not None, "resolve() fills rollout"
    with ExitStack() as stack:
        shared = context.records or Path(stack.enter_context(TemporaryDirectory(prefix="anneal-")))
        place = Place(python, model, context.layout.logs / f"vllm-{number}.log", shared, number)
        server = stack.enter_context(LocalServer(spec, place))
        say(f"starting vLLM (its log: {place.log})")
        server.wait(say=say)

        def stops() -> bool:
            server.check()
            return stop()

        def find() -> Sequence[Endpoint]:
            if found := ports(shared):
                return [Endpoint(LOOPBACK, port, None) for port in found]
            raise OSError(server.told())

        patience = rollout.start_timeout_seconds
        pool = Pool(find, replicas=context.processes, patience=patience, served=None, log=say, stop=stops)
        yield from _closed_after(Rollout(pool, find, context.processes, patience))


def _closed_after(rollout: Rollout) -> Iterator[Rollout]:
    try:
        yield rollout
    finally:
        rollout.pool.close()
