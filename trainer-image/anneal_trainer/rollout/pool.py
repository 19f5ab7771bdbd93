"""The vLLM servers that answers are drawn from: prompts are shared among them, and each holds the adapter in use.

Not here: how a server is started (`local`, the operator), its own protocol (`api`), and what is drawn when (`methods`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anneal_api.online import SamplingSpec
from anneal_trainer.rollout.served import Served


@dataclass(frozen=True)
class Endpoint:
    """One server. `loader` is the port of what fetches adapters beside it; None: it reads them by path."""

    host: str
    port: int
    loader: int | None


@dataclass(frozen=True)
class Request:
    """A prompt and how many answers it gets. Answer k is drawn with `seed` + k."""

    prompt: list[int]
    answers: int
    seed: int | None


@dataclass(frozen=True)
class Completion:
    """An answer's tokens, the end of a turn among them if there is one, and what each was drawn with."""

    ids: list[int]
    logprobs: list[float]
    cut_off: bool


@dataclass(frozen=True)
class Handed:
    """What handing a version over took: seconds until every replica had it, and bytes that travelled to all of them."""

    seconds: float
    bytes: int
    replicas: int


class Pool:
    """The servers that `find` names now; `replicas` of them are wanted, and waited for up to `patience` seconds."""

    def __init__(
        self,
        find: Callable[[], Sequence[Endpoint]],
        *,
        replicas: int,
        patience: float,
        served: Served | None,
        log: Callable[[str], None],
    ) -> None:
        raise NotImplementedError

    def load(self, version: int, adapter: Path) -> Handed:
        """Rank 0 only: every replica has the adapter, or RolloutError."""
        raise NotImplementedError

    def draw(
        self,
        requests: Sequence[Request],
        sampling: SamplingSpec,
        *,
        version: int,
        ends: Sequence[int],
        greedy: bool = False,
    ) -> list[list[Completion]]:
        """Answers, a list a request, in the requests' order; all of them of that version."""
        raise NotImplementedError

    def measures(self) -> dict[str, float]:
        """What there was since the last call: retries, lost replicas, reloads, seconds waited."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop looking after replicas."""
        raise NotImplementedError
