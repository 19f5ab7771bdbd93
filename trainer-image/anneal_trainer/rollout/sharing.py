"""One draw: prompts go to the replicas that have the fewest answers to give, and to others where one fails.

A request is one prompt with all its answers, so that a group is drawn from one version and one cache of the prompt. A
replica that neither answers nor counts a token more in its metrics for `hung_after` seconds is given up; only a server
that stands still does that, however long its answers are. Not here: how a replica comes back (`replicas`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from anneal_trainer.errors import RolloutError, StoppedError
from anneal_trainer.rollout.api import Completion, LacksAdapterError, Request, ServerError
from anneal_trainer.rollout.replicas import Keeper, Replica

# Answers that one server is asked for at once: more than it computes together, so that it never waits for us.
_MOST_BUSY: Final = 1024
# How often one prompt may be what a server was lost with.
_MOST_TRIES: Final = 5
_LOOK: Final = 1.0
_TOLD_EVERY: Final = 30.0


@dataclass(frozen=True)
class Limits:
    """How long a draw waits: for a replica, for a sign of life of one; and whether the process was asked to end."""

    patience: float
    hung_after: float
    stop: Callable[[], bool]


@dataclass(eq=False)
class Wait:
    """Waiting for replicas, which is told now and then, and ends."""

    keeper: Keeper
    limits: Limits
    what: str
    since: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)

    async def on(self) -> None:
        """Until something has changed or a second is over; RolloutError if it took too long."""
        self.check()
        self.keeper.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self.keeper.changed.wait()

    def check(self, *, computes: bool = False) -> None:
        """Raise what ends the waiting. While servers compute, a stop waits for the step, whose checkpoint is whole."""
        now = time.monotonic()
        if not computes and self.limits.stop():
            raise StoppedError(f"asked to stop while {self.what}; the last checkpoint stands")
        if self.keeper.refused:
            raise self.keeper.refused
        if now - self.since > self.limits.patience:
            raise RolloutError(
                f"no server to draw answers from for {self.limits.patience:.0f} s (rollout.startTimeoutSeconds): "
                f"{self.keeper.told()}"
            )
        if now - self._told > _TOLD_EVERY:
            self._told = now
            self.keeper.log(f"{self.what} since {now - self.since:.0f} s: {self.keeper.told()}")

    def progress(self) -> None:
        """Something went well: patience begins anew."""
        self.since = self._told = time.monotonic()


class Sharing:
    """The requests of one draw."""

    def __init__(self, keeper: Keeper, limits: Limits, requests: Sequence[Request], options: dict[str, Any]) -> None:
        self._keeper = keeper
        self._limits = limits
        self._requests = requests
        self._options = options
        self._pending = deque(range(len(requests)))
        self._tries = [0] * len(requests)
        self._found: list[list[Completion] | None] = [None] * len(requests)
        self._running: dict[asyncio.Task[list[Completion]], tuple[int, Replica]] = {}

    async def all(self) -> list[list[Completion]]:
        """The answers to every request."""
        wait = Wait(self._keeper, self._limits, "waiting for a server to draw answers from")
        try:
            while self._pending or self._running:
                self._hand_out()
                if self._running:
                    await self._some(wait)
                    wait.check(computes=True)
                else:
                    begun = time.monotonic()
                    await wait.on()
                    self._keeper.counts.seconds_waited += time.monotonic() - begun
        finally:
            for task, (_, replica) in self._running.items():
                task.cancel()
                replica.busy = 0
        return [found for found in self._found if found is not None]

    def _hand_out(self) -> None:
        ready = self._keeper.ready()
        while self._pending and ready:
            replica = min(ready, key=lambda each: each.busy)
            index = self._pending[0]
            request = self._requests[index]
            if replica.busy and replica.busy + request.answers > _MOST_BUSY:
                return
            self._pending.popleft()
            if not replica.busy:
                replica.heard = time.monotonic()
            replica.busy += request.answers
            assert replica.holds is not None, "ready"
            asking = replica.server.complete(replica.holds, request, self._options)
            self._running[asyncio.create_task(asking)] = (index, replica)

    async def _some(self, wait: Wait) -> None:
        done, _ = await asyncio.wait(self._running, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            index, replica = self._running.pop(task)
            replica.busy -= self._requests[index].answers
            try:
                self._found[index] = task.result()
                replica.heard = time.monotonic()
                wait.progress()
            except LacksAdapterError as error:
                self._again(index, replica, str(error), counts=False)
            except ServerError as error:
                self._again(index, replica, str(error), counts=True)
        await self._listen(wait)

    def _again(self, index: int, replica: Replica, why: str, *, counts: bool) -> None:
        """To another one, or to the same when it is well."""
        self._pending.appendleft(index)
        self._keeper.counts.retries += 1
        self._tries[index] += counts
        if self._keeper.is_ready(replica):
            self._keeper.lose(replica, why)
            self._keeper.look_now()
        if self._tries[index] >= _MOST_TRIES:
            raise RolloutError(
                f"{_MOST_TRIES} times a server failed with one prompt of {len(self._requests[index].prompt)} tokens; "
                f"last, {replica.endpoint} {why}"
            )

    async def _listen(self, wait: Wait) -> None:
        """Whether those that owe answers compute."""
        for replica in {replica for _, replica in self._running.values()}:
            silent = time.monotonic() - replica.heard
            if silent < self._limits.hung_after / 4:
                continue
            try:
                pulse = await replica.server.pulse()
            except ServerError:
                pulse = None
            if pulse is not None and pulse != replica.pulse:
                replica.pulse, replica.heard = pulse, time.monotonic()
                wait.progress()
            elif silent > self._limits.hung_after:
                await self._give_up(replica, silent)

    async def _give_up(self, replica: Replica, silent: float) -> None:
        for task, (index, owner) in list(self._running.items()):
            if owner is replica:
                task.cancel()
                del self._running[task]
                self._pending.appendleft(index)
                self._keeper.counts.retries += 1
        replica.busy = 0
        await self._keeper.give_up(replica, silent)
