"""Progress is pulled: rank 0 of every running job is asked at an interval, a bounded number of them at a time.

A report stays in memory only; the next pass puts it into status. One missed answer says nothing, a few in a row are
told. A prepare pod can be gone within seconds: until its preview is here it is asked every second.
Not here: what a report means (`progress`).
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from anneal_api.meta import OWNER_UID_LABEL, PROGRESS_PORT, ROLE_PREPARE, ROLE_ROLLOUT
from anneal_api.names import preview_name
from anneal_api.progress import KeptPreview, ProgressReport
from anneal_operator import metrics
from anneal_operator.controller import Controller
from anneal_operator.kinds import POD, Obj, labels_of, name_of, uid_of
from anneal_operator.pods import EPOCH, PodView, view
from anneal_operator.store import Key
from anneal_operator.world import Report

log = logging.getLogger(__name__)

CONCURRENCY = 32
TIMEOUT = aiohttp.ClientTimeout(total=3.0)
# So many answers in a row must be missing before a report is replaced by the reason.
MISSES = 3
LARGEST_REPORT = 64 * 1024
# What a ConfigMap can hold, and the escapes of JSON.
LARGEST_PREVIEW = 2 * 1024 * 1024
HURRY_SECONDS = 1.0


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
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            began = loop.time()
            all_are_due = began >= due
            if all_are_due:
                due = began + self.interval
            await self.round(hurried=not all_are_due)
            await asyncio.sleep(max(0.05, began + min(HURRY_SECONDS, self.interval) - loop.time()))

    async def round(self, *, hurried: bool = False) -> None:
        """Ask every pod that can answer; `hurried`: only those whose preview could be missed."""
        pods = dict(self._reporting_pods())
        if hurried:
            pods = {key: pod for key, pod in pods.items() if self._may_be_missed(pod)}
            await asyncio.gather(*(self._ask(key, pod) for key, pod in pods.items()))
            return
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

    def _may_be_missed(self, pod: PodView) -> bool:
        found = self.controller.reports.get(labels_of(pod.raw)[OWNER_UID_LABEL])
        return pod.role == ROLE_PREPARE and not (found and found.report and found.report.preview)

    async def _ask(self, key: Key, pod: PodView) -> None:
        async with self._slots:
            owner = labels_of(pod.raw)[OWNER_UID_LABEL]
            now = self.controller.clock()
            try:
                address = f"http://{_host(pod.ip or '')}:{PROGRESS_PORT}"
                report = ProgressReport.model_validate_json(await self._fetch(f"{address}/progress", LARGEST_REPORT))
                preview = await self._preview(key, address, report)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                metrics.POLLS.labels("error").inc()
                self._misses[pod.uid] = self._misses.get(pod.uid, 0) + 1
                if self._misses[pod.uid] < MISSES:
                    return
                found = Report(pod.name, now, error=str(error) or type(error).__name__)
            else:
                metrics.POLLS.labels("ok").inc()
                self._misses.pop(pod.uid, None)
                found = Report(pod.name, now, report=report, preview=preview)
        before = self.controller.reports.get(owner)
        self.controller.reports[owner] = found
        if before is None or (before.report, before.error) != (found.report, found.error):
            self.controller.queue.add(key)

    async def _preview(self, key: Key, address: str, report: ProgressReport) -> KeptPreview | None:
        """The preview, unless there is none, it is here already, or it is kept already."""
        job = self.controller.store.job(key)
        if not report.preview or job is None or _is_kept(job, report.preview):
            return None
        last = self.controller.reports.get(uid_of(job))
        if last and last.preview and last.report and last.report.preview == report.preview:
            return last.preview
        return KeptPreview.model_validate_json(await self._fetch(f"{address}/preview", LARGEST_PREVIEW))

    async def _fetch(self, url: str, most: int) -> bytes:
        """The body; cut off, which is no JSON then, at `most` bytes."""
        async with self.session.get(url, timeout=TIMEOUT, allow_redirects=False) as response:
            response.raise_for_status()
            return await _at_most(response.content, most)


async def _at_most(stream: aiohttp.StreamReader, most: int) -> bytes:
    """`read(n)` gives what has arrived by now, which need not be all."""
    content = b""
    while len(content) < most and (more := await stream.read(most - len(content))):
        content += more
    return content


def _is_kept(job: Obj, digest: str) -> bool:
    children = (job.get("status") or {}).get("children") or {}
    return children.get("preview") == preview_name(name_of(job), uid_of(job), digest)


def _answers(pod: PodView) -> bool:
    reports = pod.role != ROLE_ROLLOUT and pod.index == 0
    return reports and pod.running and bool(pod.ip) and not pod.deleting


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
