"""The vLLM servers that answers are drawn from: prompts are shared among them, and each holds the adapter in use.

Every process of a job has a pool; that of rank 0 gives the servers what was learnt. The work is done on a thread of its
own, which also looks after the servers while the trainer computes. Not here: how a server is started (`local`, the
operator), and what is drawn when (`methods`).
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar

import aiohttp

from anneal_api.online import SamplingSpec
from anneal_trainer.errors import RolloutError
from anneal_trainer.rollout.api import Completion, Endpoint, Request, Server, ServerError, options
from anneal_trainer.rollout.replicas import Counts, Keeper
from anneal_trainer.rollout.served import Published, Served, publish, sweep
from anneal_trainer.rollout.sharing import Limits, Sharing, Wait

__all__ = ["Completion", "Endpoint", "Handed", "Pool", "Request", "Served"]

# Without an answer and without a token more in its metrics: a server that computes counts several a second.
HUNG_AFTER: Final = 60.0
# How long others wait at a hand-over for a replica that fails, once one has what was handed over.
_STRAGGLERS: Final = 60.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Handed:
    """What handing a version over took: seconds until every replica had it, and bytes that travelled to all of them."""

    seconds: float
    bytes: int
    replicas: int


class Pool:
    """The servers that `find` names now, of which there are to be `replicas`; one is waited for up to `patience` s."""

    def __init__(
        self,
        find: Callable[[], Sequence[Endpoint]],
        *,
        replicas: int,
        patience: float,
        served: Served | None,
        log: Callable[[str], None],
        hung_after: float = HUNG_AFTER,
        stop: Callable[[], bool] = lambda: False,
        adapters: bool = True,
    ) -> None:
        self._replicas = replicas
        self._limits = Limits(patience, hung_after, stop)
        self._own = tempfile.TemporaryDirectory(prefix="anneal-adapters-") if served is None else None
        self._directory = Path(self._own.name) if self._own else served.directory if served else Path()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True, name="rollout")
        self._thread.start()
        self._keeper = self._run(self._opened(find, served.port if served else None, log))
        # Without: servers were sent whole weights, by `nccl`.
        self._keeper.adapters = adapters
        self._told = Counts()

    def load(self, version: int, adapter: Path) -> Handed:
        """Give every server the adapter, on rank 0 alone. One that fails then gets it before it is drawn from again.

        Its files must not be changed afterwards; they are kept, by links, until the next version is handed over.
        """
        begun, before = time.monotonic(), self._keeper.counts.bytes
        published = publish(self._directory, version, adapter)
        replicas = self._run(self._handed(published))
        handed = Handed(time.monotonic() - begun, self._keeper.counts.bytes - before, replicas)
        sweep(self._directory, keep=published.name)
        return handed

    @property
    def name(self) -> str | None:
        """Of the adapter that was handed over last, on rank 0."""
        return self._keeper.published.name if self._keeper.published else None

    def expects(self, name: str | None) -> None:
        """On other ranks, the adapter to draw from: a server may still hold an earlier attempt's of the same step."""
        self._keeper.expected = name

    def processes(self, endpoints: Sequence[Endpoint]) -> dict[Endpoint, float | None]:
        """When the process of each began: before it is sent whole weights, on rank 0."""
        return self._run(self._begun(endpoints))

    def sent(self, processes: Mapping[Endpoint, float | None]) -> None:
        """These alone have whole weights; every rank is told, before it draws."""
        self._keeper.sent = processes

    def draw(
        self,
        requests: Sequence[Request],
        sampling: SamplingSpec,
        *,
        version: int,
        ends: Sequence[int],
        greedy: bool = False,
    ) -> list[list[Completion]]:
        """Answers, a list a request, in the requests' order; all of them of that version.

        ConfigError if a server refuses a prompt; RolloutError if there was none to draw from for too long.
        """
        return self._run(self._drawn(version, requests, options(sampling, ends=ends, greedy=greedy)))

    def measures(self) -> dict[str, float]:
        """What there was since the last call: tries again, replicas lost, loads, seconds of draws without a replica."""
        now, last = self._keeper.counts, self._told
        self._told = Counts(**vars(now))
        return {
            "retries": now.retries - last.retries,
            "lost": now.lost - last.lost,
            "loads": now.loads - last.loads,
            "seconds_waited": now.seconds_waited - last.seconds_waited,
        }

    def close(self) -> None:
        """Look after the servers no longer."""
        self._run(self._closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._own:
            self._own.cleanup()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # A signal's own exception: what was asked is not waited for.
            future.cancel()
            raise

    async def _opened(
        self, find: Callable[[], Sequence[Endpoint]], port: int | None, log: Callable[[str], None]
    ) -> Keeper:
        # As many connections as requests: vLLM queues them. No answer is known to be small.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        session = aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
        keeper = Keeper(session, find, port, log)
        self._keeping = asyncio.create_task(keeper.keep())
        return keeper

    async def _begun(self, endpoints: Sequence[Endpoint]) -> dict[Endpoint, float | None]:
        found = {}
        for endpoint in endpoints:
            try:
                found[endpoint] = (await Server(self._keeper.session, endpoint).pulse()).started
            except ServerError as error:
                raise RolloutError(f"the server at {endpoint} {error}") from error
        return found

    async def _handed(self, published: Published) -> int:
        keeper, begun = self._keeper, time.monotonic()
        keeper.published = published
        wait = Wait(keeper, self._limits, "handing the adapter over")
        with keeper.waited_for(published.version):
            while not self._is_handed(time.monotonic() - begun):
                await wait.on()
        return len(keeper.ready())

    def _is_handed(self, seconds: float) -> bool:
        """To all that are named; without those that fail all the time, if another one has it."""
        ready, known = len(self._keeper.ready()), len(self._keeper.replicas)
        if ready and ready < known and seconds > _STRAGGLERS:
            self._keeper.log(f"going on with {ready} of {self._replicas} servers: {self._keeper.told()}")
            return True
        return 0 < ready == known

    async def _drawn(self, version: int, requests: Sequence[Request], how: dict[str, Any]) -> list[list[Completion]]:
        published = self._keeper.published
        assert published is None or published.version == version, "rank 0 draws from what it handed over"
        with self._keeper.waited_for(version):
            return await Sharing(self._keeper, self._limits, requests, how).all()

    async def _closed(self) -> None:
        tasks = [self._keeping, *(each.look for each in self._keeper.replicas.values() if each.look)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keeper.session.close()
