"""The cluster's nodes with GPUs, listed now and then for all jobs: a node changes often, and its GPUs hardly ever.

A kind of GPU stays known after its last node has gone, with no room, for as long as the process lives: what a job that
waits asks for must not change whenever nodes are scaled down, or it would lose its place in its queue.
Not here: what nodes tell (`pools`).
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus

import aiohttp

from anneal_operator.cluster import Cluster
from anneal_operator.errors import ApiError
from anneal_operator.pools import GroupKind, NodeGroup, discover
from anneal_operator.settings import Pool

log = logging.getLogger(__name__)

MOST_AGE = timedelta(seconds=60)


@dataclass
class NodeCache:
    """What was last known of them."""

    cluster: Cluster
    pools: Mapping[str, Pool]
    _known: dict[GroupKind, NodeGroup] = field(default_factory=dict)
    _read: datetime | None = None
    _refused: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def groups(self, now: datetime) -> tuple[NodeGroup, ...]:
        """The groups, as of a minute ago at the latest; without an answer as they were before."""
        async with self._lock:
            if self._read is None or now - self._read >= MOST_AGE:
                await self._read_again()
                self._read = now
            return tuple(self._known.values())

    async def _read_again(self) -> None:
        try:
            found = discover(await self.cluster.list_nodes(), self.pools)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            self._not_answered(error)
            return
        self._refused = False
        empty = {key: replace(each, nodes=0) for key, each in self._known.items()}
        known = empty | {each.kind: each for each in found}
        self._known = {kind: known[kind] for kind in sorted(known)}

    def _not_answered(self, error: Exception) -> None:
        """A refusal lasts; else, without any answer yet, the pass is tried again, as it would refuse in vain."""
        if isinstance(error, ApiError) and error.status == HTTPStatus.FORBIDDEN:
            if not self._refused:
                log.warning("nodes may not be listed, so no pools are found from their labels: %s", error)
            self._refused = True
        elif self._read is None:
            raise error
        else:
            log.warning("nodes cannot be listed: %s", error)
