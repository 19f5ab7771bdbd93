"""Kubernetes Events: few, made after the status that they tell of is written, and never waited for.

They are told from decisions that changed the status, so a repeated pass tells nothing twice. Nothing depends on an
Event: one that cannot be made is logged, and those that still wait when the process ends are lost.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp

from anneal_api.meta import FIELD_MANAGER
from anneal_operator.cluster import Cluster
from anneal_operator.errors import ApiError
from anneal_operator.kinds import EVENT, Obj, meta, name_of, uid_of
from anneal_operator.world import Note

log = logging.getLogger(__name__)

MOST_WAITING = 1000
NOTE_LIMIT = 1024


@dataclass
class Recorder:
    """Makes Events one after the other, beside the passes."""

    cluster: Cluster
    clock: Callable[[], datetime]
    _waiting: asyncio.Queue[Obj] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))

    def tell(self, job: Obj, note: Note) -> None:
        """Have an Event made soon."""
        try:
            self._waiting.put_nowait(self.event(job, note))
        except asyncio.QueueFull:
            log.warning("too many Events wait: one about %s is dropped", name_of(job))

    async def work(self) -> None:
        """Make Events until cancelled."""
        while True:
            event = await self._waiting.get()
            try:
                await self.cluster.create(event)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("an Event could not be made: %s", error)

    def event(self, job: Obj, note: Note) -> Obj:
        """The Event, named as client libraries do: what it is about, and a time."""
        namespace = meta(job)["namespace"]
        about = {key: job[key] for key in ("apiVersion", "kind")}
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{name_of(job)[:200].rstrip('.-')}.{time.time_ns():x}", "namespace": namespace},
            "eventTime": self.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "anneal.dev/operator",
            "reportingInstance": FIELD_MANAGER,
            "action": "Reconcile",
            "reason": note.reason,
            "type": "Warning" if note.warning else "Normal",
            "note": note.message[:NOTE_LIMIT],
            "regarding": {**about, "namespace": namespace, "name": name_of(job), "uid": uid_of(job)},
        }
