"""Progress is pulled: rank 0 of every running job is asked at an interval, a bounded number of them at a time.

A report stays in memory only; the next pass puts it into status. One missed answer says nothing, a few in a row are
told. Not here: what a report means (`progress`).
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from anneal_api.meta import OWNER_UID_LABEL, PROGRESS_PORT
from anneal_api.progress import ProgressReport
from anneal_operator import metrics
from anneal_operator.controller import Controller
from anneal_operator.kinds import POD, labels_of, uid_of
from anneal_operator.pods import EPOCH, PodView, view
from anneal_operator.store import Key
from anneal_operator.world import Report

log = logging.getLogger(__name__)

CONCURRENCY = 32
TIMEOUT = aiohttp.ClientTimeout(total=3.0)
# So many answers in a row must be missing before a report is replaced by the reason.
MISSES = 3
LARGEST_REPORT = 64 * 1024


@dataclass
class Poller:
    """Asks every `interval` seconds."""

    controller: Controller
    session: aiohttp.ClientSession
    interval: float
    _misses: dict[str, int] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENCY))

    async def run(self) -> None:
        """Poll until cancelled. A round that takes long delays the next one, never overlaps it."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.round()
            await asyncio.sleep(max(0.1, began + self.interval - loop.time()))

    async def round(self) -> None:
        """Ask every pod that can answer."""
        pods = dict(self._reporting_pods())
        for uid in set(self.controller.reports) - {labels_of(pod.raw)[OWNER_UID_LABEL] for pod in pods.values()}:
            del self.controller.reports[uid]
        self._misses = {uid: misses for uid, misses in self._misses.items() if uid in {p.uid for p in pods.values()}}
        await asyncio.gather(*(self._ask(key, pod) for key, pod in pods.items()))

    def _reporting_pods(self) -> Iterator[tuple[Key, PodView]]:
        """The running pod of index 0 of each job: prepare, or rank 0 of training."""
        store = self.controller.store
        for key in store.job_keys():
            job = store.job(key)
            if job is None:
                continue
            running = [pod for pod in map(view, store.children(uid_of(job), POD)) if _answers(pod)]
            if running:
                yield key, max(running, key=lambda pod: pod.created or EPOCH)

    async def _ask(self, key: Key, pod: PodView) -> None:
        async with self._slots:
            owner = labels_of(pod.raw)[OWNER_UID_LABEL]
            now = self.controller.clock()
            try:
                report = await self._fetch(f"http://{_host(pod.ip or '')}:{PROGRESS_PORT}/progress")
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                metrics.POLLS.labels("error").inc()
                self._misses[pod.uid] = self._misses.get(pod.uid, 0) + 1
                if self._misses[pod.uid] < MISSES:
                    return
                found = Report(pod.name, now, error=str(error) or type(error).__name__)
            else:
                metrics.POLLS.labels("ok").inc()
                self._misses.pop(pod.uid, None)
                found = Report(pod.name, now, report=report)
        before = self.controller.reports.get(owner)
        self.controller.reports[owner] = found
        if before is None or (before.report, before.error) != (found.report, found.error):
            self.controller.queue.add(key)

    async def _fetch(self, url: str) -> ProgressReport:
        async with self.session.get(url, timeout=TIMEOUT, allow_redirects=False) as response:
            response.raise_for_status()
            content = await response.content.read(LARGEST_REPORT)
            return ProgressReport.model_validate_json(content)


def _answers(pod: PodView) -> bool:
    return pod.running and pod.index == 0 and bool(pod.ip) and not pod.deleting


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
