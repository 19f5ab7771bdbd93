"""Workers of the real queue: a pass that fails is counted, logged and repeated, and its key is never lost."""

import asyncio

import aiohttp
import pytest

from anneal_operator import metrics
from anneal_operator.errors import ConflictError
from anneal_operator.kinds import FINE_TUNE_JOB, JOB
from anneal_operator.store import Key
from simulated.builders import make_job
from simulated.process import Simulation


def count(result: str) -> float:
    """Passes with this result."""
    return metrics.RECONCILES.labels(result)._value.get()


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RuntimeError("a bug"), "error"),
        (aiohttp.ClientConnectionError("gone"), "api_error"),
        (ConflictError(409, "Conflict", "changed"), "conflict"),
    ],
    ids=["bug", "network", "conflict"],
)
async def test_a_failing_pass_is_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, result: str
) -> None:
    """Twice it fails, then it works; the two failures are in the metrics, and other keys are served meanwhile."""
    controller = Simulation().controller
    outcomes, done, seen = [error, error], asyncio.Event(), []

    async def handle(key: Key) -> None:
        seen.append(key.name)
        if key.name == "bad":
            if outcomes:
                raise outcomes.pop()
            done.set()

    monkeypatch.setattr(controller, "handle", handle)
    before = count(result)
    working = asyncio.create_task(controller.work(workers=2))
    controller.queue.add(Key(FINE_TUNE_JOB, "team", "bad"))
    controller.queue.add(Key(FINE_TUNE_JOB, "team", "good"))
    await asyncio.wait_for(done.wait(), timeout=5)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert count(result) == before + 2
    assert (seen.count("bad"), seen.count("good")) == (3, 1)
    if result == "error":
        assert "a bug" in caplog.text


async def test_a_hundred_jobs_at_once_all_come_to_their_end() -> None:
    """One of them prepares the data that they share, the others wait for it without a pod."""
    simulation = Simulation()
    for number in range(100):
        simulation.add(make_job(f"bot-{number}", created=number))
    await simulation.run(90, step=3)
    assert {simulation.status(f"bot-{number}")["phase"] for number in range(100)} == {"Succeeded"}
    assert len(simulation.api.of(JOB)) == 1
