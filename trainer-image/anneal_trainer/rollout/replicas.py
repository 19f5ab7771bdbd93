"""Looking after the servers: which there are, whether each holds the adapter in use, and what is done when one fails.

A replica is `ready` when it was seen to hold the adapter that is wanted; whatever fails makes it not so, until it is
looked at again. On rank 0 a look gives it the adapter if it lacks it; the others wait until rank 0 has. A replica that
hangs still answers such looks: it is left alone until its process began anew. Not here: what is drawn (`sharing`).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from anneal_api.meta import BASE_MODEL
from anneal_trainer.errors import RolloutError, TrainerError
from anneal_trainer.rollout.api import Endpoint, Pulse, Server, ServerError
from anneal_trainer.rollout.served import Published, prefix

# Between looks: while something is waited for, while all is well, and the most that a failing replica rests.
_SOON: Final = 0.5
_IDLE: Final = 5.0
_LONGEST_REST: Final = 8.0


@dataclass(eq=False)
class Replica:
    """One server, and what is known of it."""

    server: Server
    # The adapter it was last seen to hold, and what went wrong since.
    holds: str | None = None
    said: str = "was not asked yet"
    checked: bool = False
    failures: int = 0
    rests_until: float = 0.0
    # When its process began, of one that hangs: it is given up until that differs.
    hangs_since: tuple[float | None] | None = None
    # Answers asked for, and when it was last seen to compute.
    busy: int = 0
    heard: float = 0.0
    pulse: Pulse | None = None
    look: "asyncio.Task[None] | None" = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self.server.endpoint

    def fails(self, why: str) -> None:
        """It is not drawn from until it was looked at again, later each time."""
        self.holds, self.said = None, why
        self.rests_until = time.monotonic() + min(_SOON * 2**self.failures, _LONGEST_REST)
        self.failures += 1


@dataclass
class Counts:
    """What there was since it was last told."""

    retries: int = 0
    lost: int = 0
    loads: int = 0
    seconds_waited: float = 0.0
    bytes: int = 0


@dataclass(eq=False)
class Keeper:
    """All replicas. `published` is what rank 0 gives them; elsewhere only `version` is known."""

    session: aiohttp.ClientSession
    find: Callable[[], Sequence[Endpoint]]
    port: int | None
    log: Callable[[str], None]
    replicas: dict[Endpoint, Replica] = field(default_factory=dict)
    published: Published | None = None
    version: int | None = None
    # What rank 0 has handed over, as far as another rank was told.
    expected: str | None = None
    counts: Counts = field(default_factory=Counts)
    refused: TrainerError | None = None
    # Whether servers hold adapters by name; else whole weights, which one that began anew has lost.
    adapters: bool = True
    # Those that were sent whole weights, and when the process of each had begun before.
    sent: Mapping[Endpoint, float | None] = field(default_factory=dict)
    # Why no servers are known: a Service without a ready pod has no address. And what was last said of one.
    unfound: str = "none was found"
    last_words: str = ""
    # Set when something about a replica has changed, and when a look is wanted at once.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: bool = False

    @contextmanager
    def waited_for(self, version: int) -> Iterator[None]:
        """While the block runs, replicas with the adapter of this version are what somebody waits for."""
        self.version, self.waiting, self.refused = version, True, None
        if not self.adapters:
            # Whole weights have no name that would be missing: each server is looked at before it is drawn from.
            for replica in self.replicas.values():
                replica.holds, replica.checked = None, False
        self.look_now()
        try:
            yield
        finally:
            self.waiting = False

    def look_now(self) -> None:
        """Without waiting for the next round."""
        self._wanted.set()

    def is_ready(self, replica: Replica) -> bool:
        """Whether it was seen to hold what is wanted."""
        if not self.adapters:
            return replica.holds == BASE_MODEL
        if self.published is not None and self.published.version == self.version:
            return replica.holds == self.published.name
        if replica.holds is None or not replica.holds.startswith(prefix(self.version or 0)):
            return False
        return self.expected in (None, replica.holds)

    def ready(self) -> list[Replica]:
        """Those that can be drawn from."""
        return [replica for replica in self.replicas.values() if self.is_ready(replica)]

    def told(self) -> str:
        """Each replica that is not ready, and what it last said."""
        lines = [f"{r.endpoint} {r.said}" for r in self.replicas.values() if not self.is_ready(r)]
        last = f"; the last one, {self.last_words}" if self.last_words else ""
        return "; ".join(lines) or f"no server is ready ({self.unfound}){last}"

    async def keep(self) -> None:
        """Look, again and again."""
        while True:
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 - nobody waits for this task; whoever waits for servers is told
                self.refused = RolloutError(f"servers cannot be looked for: {error!r}")
                self.changed.set()
            busy = self.waiting and len(self.ready()) < max(1, len(self.replicas))
            with suppress(TimeoutError):
                # Not wait_for: where the event comes with a cancellation, Python 3.11's forgets the cancellation.
                async with asyncio.timeout(_SOON if busy else _IDLE):
                    await self._wanted.wait()
            self._wanted.clear()

    async def _round(self) -> None:
        if not (self.waiting or self.published):
            return
        # Those that are known do not wait until names are resolved.
        self._look_at_due()
        await self._found()
        self._look_at_due()

    def _look_at_due(self) -> None:
        now = time.monotonic()
        for replica in self.replicas.values():
            # While drawing, a ready one is heard of by its answers.
            due = now >= replica.rests_until and not (self.waiting and self.is_ready(replica))
            if due and (replica.look is None or replica.look.done()):
                replica.look = asyncio.create_task(self._look(replica))

    async def _found(self) -> None:
        try:
            found = set(await asyncio.to_thread(self.find))
        except OSError as error:
            # A Service without a ready pod has no address at all.
            self.unfound, found = str(error), set()
        for endpoint in found - self.replicas.keys():
            self.replicas[endpoint] = Replica(Server(self.session, endpoint))
        for endpoint in self.replicas.keys() - found:
            # One that is no longer named still answers what it was asked.
            if not self.replicas[endpoint].busy:
                self._forget(self.replicas.pop(endpoint))

    def _forget(self, replica: Replica) -> None:
        if replica.look is not None:
            replica.look.cancel()
        if replica.holds:
            self.counts.lost += 1
            self.log(f"the server at {replica.endpoint} is gone")
        self.changed.set()

    async def _look(self, replica: Replica) -> None:
        try:
            await self._check(replica)
        except TrainerError as error:
            self.refused = error
        except ServerError as error:
            self.lose(replica, str(error))
        self.changed.set()

    async def _check(self, replica: Replica) -> None:
        if replica.hangs_since:
            (since,) = replica.hangs_since
            if since is not None and (await replica.server.pulse()).started == since:
                raise ServerError(replica.said)
            replica.hangs_since, replica.checked = None, False
        if not replica.checked:
            await replica.server.check_version()
            await self._same_process(replica)
            replica.checked = True
        held = await self._holding(replica)
        if replica.holds != held:
            replica.holds, replica.said, replica.failures = held, "", 0
            replica.heard = time.monotonic()

    async def _same_process(self, replica: Replica) -> None:
        """Weights that were sent are gone with the process that had them; only a new attempt sends them to all.

        A pod that was made again has another address, and never had any.
        """
        if self.adapters:
            return
        started, nothing = (await replica.server.pulse()).started, object()
        if self.sent.get(replica.endpoint, nothing) != started:
            raise RolloutError(
                f"the server at {replica.endpoint} began anew and has not the weights that servers were sent: the next "
                "attempt begins with new servers"
            )

    async def _holding(self, replica: Replica) -> str:
        published = self.published
        if published is not None and self.adapters and replica.holds != published.name:
            return await self._given(replica, published)
        names = await replica.server.models()
        if not self.adapters:
            return BASE_MODEL
        if published is None:
            begun = prefix(self.version or 0)
            named = [name for name in names if name == (self.expected or name) and name.startswith(begun)]
            if len(named) != 1:
                raise ServerError(f"holds {', '.join(names) or 'nothing'}, not yet the adapter of step {self.version}")
            return named[0]
        return published.name if published.name in names else await self._given(replica, published)

    async def _given(self, replica: Replica, published: Published) -> str:
        moved = await replica.server.load(published, self.port)
        self.counts.bytes += moved
        self.counts.loads += 1
        return published.name

    def lose(self, replica: Replica, why: str) -> None:
        """It has failed."""
        if replica.holds:
            self.counts.lost += 1
            self.log(f"the server at {replica.endpoint} {why}")
        if replica.hangs_since is None:
            replica.checked = False
        self.last_words = f"{replica.endpoint} {why}"
        replica.fails(why)
        self.changed.set()

    async def give_up(self, replica: Replica, seconds: float) -> None:
        """It takes requests and computes nothing: its loader is told, so that it is restarted."""
        try:
            replica.hangs_since = ((await replica.server.pulse()).started,)
        except ServerError:
            replica.hangs_since = (None,)
        why = f"computed nothing for {seconds:.0f} s"
        self.lose(replica, why)
        try:
            await replica.server.complain(why)
        except ServerError as error:
            self.log(f"the loader at {replica.endpoint.host} {error}")
