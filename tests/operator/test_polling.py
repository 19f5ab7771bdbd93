"""Progress is fetched from real servers: bounded, at rank 0 only, and a silent trainer is told after a few misses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from anneal_api.names import preview_name
from anneal_api.progress import ProgressReport
from anneal_operator import polling
from anneal_operator.kinds import FINE_TUNE_JOB, POD
from anneal_operator.polling import MISSES, Poller
from anneal_operator.store import Key
from simulated.builders import make_job, make_pod
from simulated.process import Simulation


class Trainer:
    """A `/progress` endpoint."""

    def __init__(self) -> None:
        self.body: Any = ProgressReport(step=3, total_steps=9).dump()
        self.asked = 0
        self.previews = 0
        self.third = asyncio.Event()

    async def handle(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if self.asked == 3:
            self.third.set()
        if isinstance(self.body, dict):
            return web.json_response(self.body)
        return web.Response(status=500, text=str(self.body))

    async def preview(self, _request: web.Request) -> web.Response:
        self.previews += 1
        return web.json_response({"text": "red", "html": "x" * 300_000})


@pytest.fixture
async def trainer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trainer]:
    """One on a free port of this machine."""
    found = Trainer()
    app = web.Application()
    app.router.add_get("/progress", found.handle)
    app.router.add_get("/preview", found.preview)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setattr(polling, "PROGRESS_PORT", runner.addresses[0][1])
    yield found
    await runner.cleanup()


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    """A poller over one job with one running pod here."""
    simulation = Simulation()
    async with aiohttp.ClientSession() as session:
        poller = Poller(simulation.controller, session, interval=0.05)
        add(poller, make_pod(started=1))
        simulation.store.put(FINE_TUNE_JOB, make_job())
        yield poller


def add(poller: Poller, pod: dict[str, Any]) -> None:
    """A pod that listens on this machine."""
    pod["status"]["podIP"] = "127.0.0.1"
    poller.controller.store.put(POD, pod)


async def test_a_report_brings_the_job_to_the_queue_once(poller: Poller, trainer: Trainer) -> None:
    """An equal report is no news: it costs no pass and no write."""
    await poller.round()
    report = poller.controller.reports["uid-bot"].report
    assert report is not None
    assert report.step == 3
    assert len(poller.controller.queue) == 1
    await poller.controller.queue.get()
    poller.controller.queue.done(Key(FINE_TUNE_JOB, "team", "bot"))
    await poller.round()
    assert len(poller.controller.queue) == 0
    assert trainer.asked == 2


@pytest.mark.parametrize("body", ["no", {"step": "many"}], ids=["error", "nonsense"])
async def test_a_few_misses_in_a_row_are_told_and_one_is_not(poller: Poller, trainer: Trainer, body: Any) -> None:
    """The last good report stays until then."""
    await poller.round()
    trainer.body = body
    for _ in range(MISSES - 1):
        await poller.round()
        assert poller.controller.reports["uid-bot"].report is not None
    await poller.round()
    assert poller.controller.reports["uid-bot"].error


async def test_other_ranks_and_ended_pods_are_not_asked(poller: Poller, trainer: Trainer) -> None:
    """Only rank 0 serves progress."""
    for pod in list(poller.controller.store.children("uid-bot", POD)):
        poller.controller.store.removed(POD, pod)
    add(poller, make_pod("w-1", index=1, started=1))
    add(poller, make_pod("w-0", exit_code=0))
    add(poller, make_pod("w-2", phase="Pending"))
    await poller.round()
    assert trainer.asked == 0


async def test_reports_of_jobs_that_run_no_more_are_dropped(poller: Poller, trainer: Trainer) -> None:
    """The next attempt never sees the last one's report."""
    del trainer
    await poller.round()
    for pod in list(poller.controller.store.children("uid-bot", POD)):
        poller.controller.store.removed(POD, pod)
    await poller.round()
    assert poller.controller.reports == {}


async def test_it_polls_at_its_interval_until_it_is_cancelled(poller: Poller, trainer: Trainer) -> None:
    """Rounds follow each other and never overlap."""
    task = asyncio.create_task(poller.run())
    await asyncio.wait_for(trainer.third.wait(), timeout=10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_preview_is_fetched_once_and_not_at_all_when_it_is_kept(poller: Poller, trainer: Trainer) -> None:
    """Whatever its size; and it stays with the reports until the pass has made a ConfigMap of it."""
    trainer.body = ProgressReport(preview="abcdef01").dump()
    for _ in range(3):
        await poller.round()
    report = poller.controller.reports["uid-bot"]
    assert report.preview is not None
    assert len(report.preview.html) == 300_000
    assert trainer.previews == 1
    name = preview_name("bot", "uid-bot", "abcdef01")
    job = make_job(status={"children": {"preview": name}})
    job["metadata"]["resourceVersion"] = "2"
    poller.controller.store.put(FINE_TUNE_JOB, job)
    await poller.round()
    assert poller.controller.reports["uid-bot"].preview is None
    assert trainer.previews == 1


async def test_only_prepare_pods_without_a_preview_are_asked_in_a_hurry(poller: Poller, trainer: Trainer) -> None:
    """They may be gone before the next round; trainers stay for long."""
    await poller.round(hurried=True)
    assert trainer.asked == 0
    add(poller, make_pod("prep", role="prepare", created=2, started=2))
    await poller.round(hurried=True)
    trainer.body = ProgressReport(role="prepare", preview="abcdef01").dump()
    for _ in range(2):
        await poller.round(hurried=True)
    assert trainer.asked == 2
