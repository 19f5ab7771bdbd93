"""The work queue: coalescing, one worker a key, back-off, wake-ups."""

import asyncio

from anneal_operator.queue import LONGEST_BACKOFF, KeyedQueue


async def test_many_events_for_one_key_become_one_pass() -> None:
    """A key waits at most once, in the order of first arrival."""
    queue: KeyedQueue[str] = KeyedQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_news_during_a_pass_bring_the_key_back_after_it() -> None:
    """No two workers have one key, and nothing that arrives meanwhile is lost."""
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_a_failed_pass_comes_back_later_each_time_up_to_a_limit() -> None:
    """Back-off doubles, and a success forgets it."""
    queue: KeyedQueue[str] = KeyedQueue()
    delays = []
    for _ in range(12):
        queue.add("a")
        await queue.get()
        delays.append(queue.failed("a"))
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays[-1] == LONGEST_BACKOFF
    queue.add("a")
    await queue.get()
    queue.done("a")
    queue.add("a")
    await queue.get()
    assert queue.failed("a") == 0.1
    queue.close()


async def test_a_failed_key_is_never_lost() -> None:
    """It returns by itself after its delay."""
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    await queue.get()
    queue.failed("a")
    assert await asyncio.wait_for(queue.get(), timeout=2) == "a"


async def test_the_earliest_of_several_wake_ups_counts() -> None:
    """Asking for later does not postpone an earlier wish; asking for earlier brings it forward."""
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.get(), timeout=2) == "a"
    queue.done("a")
    assert not queue._timers
