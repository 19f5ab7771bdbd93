"""Work spread over processes: results in the order of the tasks, a bounded number of them under way.

Processes come from a server that has imported the tokenizer's library once, and not from a fork of this one, which may
have threads. Few tasks are done right here, since a process takes longer to start than they do. A process that dies
is an error at once, and never a wait without end. Not here: what the work is (`rows`).
"""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from anneal_trainer.errors import TemporaryError

# What a tokenizer, its library and a chunk of rows take.
_BYTES_A_PROCESS = 512 * 1024**2
_MOST = 32
_UNDER_WAY = 2
# New objects after which to look for cycles.
_OBJECTS = 50_000
_CGROUP = Path("/sys/fs/cgroup")

Work = Callable[[Any], Any]
_work: list[Work] = []


@dataclass(frozen=True)
class Crew:
    """How to get the work function in a process: `make(*arguments)`, both of them picklable."""

    make: Callable[..., Work]
    arguments: tuple[Any, ...]
    here: Work
    processes: int

    def results(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """The result of each task."""
        left = iter(tasks)
        first = list(islice(left, 2))
        if self.processes < 2 or len(first) < 2:  # noqa: PLR2004 - one task or one process: no other process is needed
            yield from map(self.here, chain(first, left))
            return
        try:
            yield from self._spread(chain(first, left))
        except BrokenProcessPool as error:
            raise TemporaryError(
                "a process that prepared rows was killed, most likely for want of memory: if it happens again, raise "
                "compute.prepare.memory"
            ) from error

    def _spread(self, tasks: Iterator[Any]) -> Iterator[Any]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["anneal_trainer.data.rows", "transformers.tokenization_utils_tokenizers"])
        # Each process tokenizes on one core; threads below them would only fight over the same cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with ProcessPoolExecutor(
            self.processes, mp_context=context, initializer=_begin, initargs=(self.make, self.arguments)
        ) as pool:
            waiting = deque(pool.submit(_do, task) for task in islice(tasks, self.processes * _UNDER_WAY))
            try:
                while waiting:
                    result = waiting.popleft().result()
                    waiting.extend(pool.submit(_do, task) for task in islice(tasks, 1))
                    yield result
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _begin(make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    _work.append(make(*arguments))
    # What is there by now stays, and rows hold few cycles: looking as often as usual takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(_OBJECTS)


def _do(task: Any) -> Any:
    return _work[0](task)


def processes() -> int:
    """As many as there are cores and memory for, of this machine or of the container's share of it."""
    cores = len(os.sched_getaffinity(0))
    quota = _limit("cpu.max")
    if quota:
        allowed, period = quota
        cores = min(cores, max(1, round(allowed / period)))
    memory = _limit("memory.max")
    if memory:
        cores = min(cores, max(1, memory[0] // _BYTES_A_PROCESS - 1))
    return min(cores, _MOST)


def _limit(name: str) -> tuple[int, int] | None:
    """A limit of the container, with its period if it has one; None where there is no limit."""
    try:
        words = (_CGROUP / name).read_text(encoding="utf-8").split()
        return (int(words[0]), int(words[1]) if len(words) > 1 else 1)
    except (OSError, ValueError, IndexError):
        return None
