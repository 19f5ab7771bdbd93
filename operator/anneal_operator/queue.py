"""A keyed work queue: a key waits at most once, is worked on by one worker at a time, and is never lost.

Events only say *that* something changed, so many of them for one key become one pass. A failed pass comes back with
exponential back-off; a pass can also ask to be called again at a time. Not here: what a pass does.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 60.0


@dataclass
class KeyedQueue(Generic[K]):
    """`add` from anywhere on the loop; workers `get`, then `done` or `failed`."""

    _ready: "OrderedDict[K, None]" = field(default_factory=OrderedDict)
    _working: set[K] = field(default_factory=set)
    _again: set[K] = field(default_factory=set)
    _timers: dict[K, asyncio.TimerHandle] = field(default_factory=dict)
    _failures: dict[K, int] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have `key` worked on soon; once, however often it is added meanwhile."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._arrived.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have `key` worked on in `seconds`, or earlier if that was asked for before."""
        when = asyncio.get_running_loop().time() + max(0.0, seconds)
        earlier = self._timers.get(key)
        if earlier is not None and earlier.when() <= when:
            return
        if earlier is not None:
            earlier.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(when, self._fire, key)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> K:
        """The next key; it is this worker's until `done` or `failed`."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        key, _ = self._ready.popitem(last=False)
        # A pass looks at everything, so an older wish for a later pass is void: the pass will renew it.
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The pass succeeded."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: K) -> float:
        """The pass failed: the key comes back; how many seconds from now is returned."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0**count)
        # News that came during a failing pass do not skip the back-off, or a broken job would spin.
        self._again.discard(key)
        self._release(key)
        self.add_after(key, delay)
        return delay

    def _release(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
