"""The operator's real store, controller and reconcile on the simulated cluster, with its watch in the test's hands.

Events can be late, repeated and coalesced; the process can die after any effect and come back with an empty cache.
Time moves only when the test says so.
"""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from anneal_operator.controller import Controller
from anneal_operator.errors import ApiError
from anneal_operator.handlers import notify
from anneal_operator.kinds import JOB_KINDS, WATCHED, Kind, Obj
from anneal_operator.neighbours import neighbour
from anneal_operator.settings import Settings
from anneal_operator.store import Key, Store
from simulated.api_server import ApiServer, CrashError
from simulated.builders import START, make_settings
from simulated.machinery import Machinery


@dataclass
class Simulation:
    """A cluster, its machinery, and an operator that may die."""

    settings: Settings = field(default_factory=make_settings)
    seed: int | None = None
    now: datetime = START
    crashes: int = 0

    def __post_init__(self) -> None:
        self.api = ApiServer(clock=lambda: self.now)
        self.machinery = Machinery(self.api)
        self.random = random.Random(self.seed)
        self.start()

    def start(self) -> None:
        """A new process: an empty cache that is filled by listing."""
        self.store = Store()
        self.controller = Controller(self.store, self.api, self.settings, clock=lambda: self.now)  # type: ignore[arg-type]
        self.delivered = dict.fromkeys(WATCHED, len(self.api.watch))
        self.wakes: dict[Key, datetime] = {}
        self.due: set[Key] = set()
        for kind in WATCHED:
            for obj in self.api.of(kind):
                self.store.put(kind, obj)
        self.due |= set(self.store.job_keys())

    def job(self, name: str = "bot") -> Obj:
        """A job of either kind as the server has it; no test gives both one name."""
        return next(found for kind in JOB_KINDS if (found := self.api.objects.get((kind, "team", name))))

    def status(self, name: str = "bot") -> dict[str, Any]:
        """Its status."""
        found: dict[str, Any] = self.job(name).get("status") or {}
        return found

    def add(self, job: Obj) -> None:
        """A person creates a job."""
        self.api.insert(job)

    def edit(self, name: str = "bot", **spec: Any) -> None:
        """A person changes a job's spec."""
        job = self.job(name)
        metadata = {**job["metadata"], "generation": job["metadata"]["generation"] + 1}
        self.api.update({**job, "metadata": metadata, "spec": {**job["spec"], **spec}})

    def deliver(self) -> None:
        """Let the watches catch up: wholly, or each kind as far as chance has it, and some events twice."""
        for kind in self.random.sample(WATCHED, len(WATCHED)):
            begin, end = self.delivered[kind], len(self.api.watch)
            if self.seed is not None:
                end = self.random.randint(begin, end)
                begin = max(0, begin - self.random.randint(0, 3))
            for event, of, obj in self.api.watch[begin:end]:
                if of == kind:
                    self._deliver(event, kind, obj)
            self.delivered[kind] = max(end, self.delivered[kind])

    def _deliver(self, event: str, kind: Kind, obj: Obj) -> None:
        if event == "DELETED":
            self.store.removed(kind, obj)
            if kind in JOB_KINDS:
                self.controller.stir("team", neighbour(obj))
        elif not self.store.put(kind, obj):
            return
        notify(self.controller, kind, obj)

    async def passes(self) -> None:
        """Work off what is due; an interrupted pass ends the process."""
        for _ in range(50 + 20 * len(list(self.store.job_keys()))):
            self.due |= {key for key, at in self.wakes.items() if at <= self.now}
            while len(self.controller.queue):
                self.due.add(await self.controller.queue.get())
                self.controller.queue._working.clear()
            if not self.due:
                return
            key = self.due.pop()
            self.wakes.pop(key, None)
            try:
                wake = await self.controller.handle(key)
            except ApiError:
                self.wakes[key] = self.now + timedelta(seconds=1)
                continue
            except CrashError:
                self.crashes += 1
                self.start()
                continue
            if wake is not None:
                self.wakes[key] = wake
        raise AssertionError(f"the operator spins on {self.due or self.wakes}")

    async def run(self, seconds: float, *, step: float = 1) -> None:
        """Let time pass."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.deliver()
            await self.passes()
            self.machinery.tick()
            self.now += timedelta(seconds=step)
        self.deliver()
        await self.passes()

    async def until(self, phase: str, name: str = "bot", *, seconds: float = 900) -> dict[str, Any]:
        """Let time pass until a job is in a phase."""
        for _ in range(int(seconds)):
            if self.status(name).get("phase") == phase:
                return self.status(name)
            await self.run(1)
        raise AssertionError(f"{name} is {self.status(name).get('phase')}, not {phase}: {self.status(name)}")


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Conditions as type -> (status, reason)."""
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
