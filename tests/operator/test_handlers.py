"""What stands between kopf's watches and the controller: freshness, lists that start over, and thin handlers."""

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from anneal_operator import handlers, health
from anneal_operator.cluster import make_session
from anneal_operator.handlers import STALE_AFTER, Freshness, configure, registry_for
from anneal_operator.kinds import FINE_TUNE_JOB, JOB_KINDS, POD, WATCHED, WORKLOAD
from simulated.builders import make_job, make_pod
from simulated.process import Simulation


@pytest.fixture
def simulation() -> Simulation:
    """A controller whose store knows one job with one pod."""
    found = Simulation()
    found.store.put(FINE_TUNE_JOB, make_job())
    found.store.put(POD, make_pod())
    return found


@pytest.fixture
async def lists() -> AsyncIterator[dict[str, Any]]:
    """An API server whose list of pods is `lists["items"]` at `lists["version"]`."""
    state: dict[str, Any] = {"items": [], "version": "100"}

    async def pods(_request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": state["version"]}, "items": state["items"]})

    app = web.Application()
    app.router.add_get(POD.path(), pods)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    await runner.cleanup()


async def test_a_list_that_starts_over_tells_what_vanished(simulation: Simulation, lists: dict[str, Any]) -> None:
    """Kopf says nothing of it; the job is looked at, and the caller still reads the whole answer."""
    freshness = Freshness(simulation.controller)
    async with make_session(Configuration(host=lists["url"]), freshness.middleware) as session:
        for expected in (0, 1):
            async with session.get(f"{lists['url']}{POD.path()}") as response:
                assert (await response.json())["items"] == []
            assert len(simulation.controller.queue) == expected
    assert simulation.store.children("uid-bot", POD) == []
    assert "pods" in freshness.seen


async def test_a_watch_that_is_silent_for_too_long_makes_the_operator_unhealthy(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each watch is renewed long before; a list or an event counts as life too."""
    now = 1000.0
    monkeypatch.setattr(handlers.time, "monotonic", lambda: now)
    freshness = Freshness(simulation.controller, _began=now)
    for kind in WATCHED:
        freshness.alive(kind)
    now += STALE_AFTER - 1
    assert freshness.stale() == []
    freshness.alive(FINE_TUNE_JOB)
    now += 2
    assert freshness.stale() == sorted(kind.plural for kind in WATCHED if kind != FINE_TUNE_JOB)


async def test_a_watch_that_never_began_is_stale_too(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for jobs; an engine that is not installed is no illness."""
    monkeypatch.setattr(handlers.time, "monotonic", lambda: 10_000.0)
    assert Freshness(simulation.controller, _began=0.0).stale() == [kind.plural for kind in JOB_KINDS]


async def test_health_and_metrics_pages(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the name of what is stale; metrics hold phases, queue, watches, requests and the process."""
    freshness = Freshness(simulation.controller)
    runner = await health.serve(health.application(simulation.controller, freshness), 0)
    port = next(address[1] for address in runner.addresses if "." in address[0])
    url = f"http://127.0.0.1:{port}"
    async with make_session(Configuration(host=url)) as session:
        async with session.get(f"{url}/healthz") as response:
            assert response.status == 200
        async with session.get(f"{url}/metrics") as response:
            page = await response.text()
        monkeypatch.setattr(freshness, "stale", lambda: ["pods"])
        async with session.get(f"{url}/healthz") as response:
            assert (response.status, "pods" in await response.text()) == (503, True)
    await runner.cleanup()
    for name in (
        'anneal_jobs{phase="Pending"} 1.0',
        "anneal_queue_depth",
        "anneal_watch_age_seconds{",
        "process_resident",
    ):
        assert name in page


def test_kopf_adds_nothing_to_objects() -> None:
    """No finalizers, no annotations, no peering, no Events: it has no handler that would need them."""
    settings = kopf.OperatorSettings()
    configure(settings)
    assert settings.peering.standalone
    assert not settings.posting.enabled
    simulation = Simulation()
    registry = registry_for(simulation.controller, Freshness(simulation.controller), object)
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)


def test_only_our_children_are_watched() -> None:
    """By label, at the server: other people's pods never travel here."""
    settings = kopf.OperatorSettings()
    configure(settings)
    for kind in WATCHED:
        resource = kopf.Resource(kind.group, kind.version, kind.plural)
        expected = [] if kind in JOB_KINDS else ["app.kubernetes.io/managed-by=anneal"]
        assert settings.watching.label_selectors.collect(resource) == expected


async def test_a_process_that_no_longer_watches_ends(simulation: Simulation) -> None:
    """When kopf begins to end, the process is given seconds, whatever hangs in it."""
    called: list[str] = []
    registry = registry_for(
        simulation.controller, Freshness(simulation.controller), object, lambda: called.append("ending")
    )
    [cleanup] = [each for each in registry._activities.get_all_handlers() if each.activity.value == "cleanup"]
    await cleanup.fn()
    assert called == ["ending"]
    hang = (
        "import time; from anneal_operator import __main__ as m; m.ENDING_SECONDS = 0.1; m.end_soon(); time.sleep(60)"
    )
    ended = subprocess.run([sys.executable, "-c", hang], timeout=30, check=False)  # noqa: ASYNC221
    assert ended.returncode == 1


async def test_a_type_that_was_removed_is_no_silent_watch(simulation: Simulation, lists: dict[str, Any]) -> None:
    """Kueue was uninstalled, say: the operator must not be restarted for that."""
    freshness = Freshness(simulation.controller)
    freshness.alive(WORKLOAD)
    session = make_session(Configuration(host=lists["url"]), freshness.middleware)
    async with session, session.get(f"{lists['url']}{WORKLOAD.path()}") as response:
        assert response.status == 404
    assert "workloads" not in freshness.seen
