"""Reads of what is not watched, kept for a few seconds: many jobs wait in one queue and ask for the same.

An answer may be that old when a pass uses it, so nothing is decided from it that the next pass could not mend.
Not here: what the answers mean.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from anneal_operator.cluster import Cluster
from anneal_operator.errors import ApiError, NotFoundError
from anneal_operator.kinds import Kind, Obj

log = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
_Place = tuple[Kind, str, str]


@dataclass
class Lookups:
    """Answers by place. A type that the server does not know raises NotFoundError, as often as it is asked for."""

    cluster: Cluster
    clock: Callable[[], float]
    _answers: dict[_Place, tuple[float, Any]] = field(default_factory=dict)
    _locks: dict[_Place, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        """An object; None if there is none of this name."""

        async def ask() -> Obj | None:
            try:
                return await self.cluster.get(kind, namespace, name)
            except NotFoundError as error:
                if error.unknown_type:
                    raise
                return None

        found: Obj | None = await self._answer((kind, namespace, name), ask)
        return found

    async def get_if_answered(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        """The same of what is only good to know: None too where nobody answers, and nobody is asked again soon."""

        async def ask() -> Obj | None:
            try:
                return await self.cluster.get(kind, namespace, name)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s %s/%s cannot be read: %s", kind.name, namespace, name, error)
                return None

        found: Obj | None = await self._answer((kind, namespace, name), ask)
        return found

    async def list_all(self, kind: Kind, namespace: str = "") -> list[Obj]:
        """A collection."""
        found: list[Obj] = await self._answer((kind, namespace, ""), lambda: self.cluster.list_all(kind, namespace))
        return found

    async def _answer(self, place: _Place, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._locks[place]:
            kept = self._answers.get(place)
            if kept is None or self.clock() - kept[0] >= KEPT_SECONDS:
                answer = await ask()
                # As old as its arrival: one that took long would be asked for again by each that waited for it.
                kept = self._answers[place] = (self.clock(), answer)
                self._forget_old()
            return kept[1]

    def _forget_old(self) -> None:
        """Queues and namespaces come and go; the process stays."""
        old = [place for place, (at, _) in self._answers.items() if self.clock() - at >= 10 * KEPT_SECONDS]
        for place in old:
            del self._answers[place]
            if not self._locks[place].locked():
                del self._locks[place]
