"""From Kueue's admission of a job to its PyTorchJob, while many jobs wait: the operator's real process.

The API server is the simulated one over HTTP, and Kueue is simulated too: it admits the Workloads that the operator has
made, all within ten seconds, and answers who waits. So what is measured is the operator's own part: from the watch
event that says Admitted to the request that creates the PyTorchJob, on one clock. Data is ready: the jobs share what
one before them has prepared. Reference of the same run: a bare create of a ConfigMap on that server. The operator's CPU
time is given too, since it hardly depends on what else the machine does.
"""

import asyncio
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from table import Row, report

from anneal_operator.kinds import (
    PENDING_WORKLOADS,
    PYTORCH_JOB,
    WORKLOAD,
    Kind,
    Obj,
    format_time,
    name_of,
    true_condition,
)
from anneal_operator.store import owner_uid
from simulated.builders import SETTINGS, make_job
from simulated.process import Simulation
from simulated.queueing import Kueue
from simulated.served import Served

JOBS = 200
SECONDS = 10
PATIENCE = 120


def now() -> datetime:
    """The server's time."""
    return datetime.now(UTC)


async def prepared_cluster() -> Simulation:
    """One job has prepared the data and is over."""
    simulation = Simulation()
    simulation.add(make_job("prepares-the-data"))
    await simulation.until("Succeeded", "prepares-the-data")
    simulation.api.clock = now
    return simulation


def waiting(simulation: Simulation) -> list[Obj]:
    """Workloads that are not admitted."""
    return [obj for obj in simulation.api.of(WORKLOAD) if true_condition(obj, "Admitted") is None]


def pending(simulation: Simulation) -> Obj:
    """Kueue's page of who waits in the queue."""
    items = [
        {
            "metadata": {"name": name_of(obj), "namespace": "team"},
            "positionInLocalQueue": number,
            "positionInClusterQueue": number,
        }
        for number, obj in enumerate(waiting(simulation))
    ]
    return {"items": items}


async def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something of the operator."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE} s: {what}")
        await asyncio.sleep(0.01)


async def operator(url: str, directory: Path) -> asyncio.subprocess.Process:
    """The operator's process."""
    (directory / "settings.yaml").write_text(SETTINGS)
    cluster = {"name": "c", "cluster": {"server": url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
    config |= {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    (directory / "kubeconfig").write_text(yaml.safe_dump(config))
    environment = {
        "KUBECONFIG": str(directory / "kubeconfig"),
        "ANNEAL_SETTINGS": str(directory / "settings.yaml"),
        "ANNEAL_HTTP_PORT": "0",
    }
    with (directory / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anneal_operator", env={**os.environ, **environment}, stdout=log, stderr=log
        )


async def queued(simulation: Simulation) -> Kueue:
    """All jobs wait, and the operator has written what it knows of them."""
    kueue = Kueue(simulation.api, nodes=0)
    kueue.install("queue")
    for number in range(JOBS):
        job = make_job(f"queued-{number}", queue="queue", training={"learningRate": 1e-4 + number * 1e-7})
        simulation.add({**job, "metadata": {**job["metadata"], "creationTimestamp": format_time(now())}})
    await until(lambda: len(simulation.api.of(WORKLOAD)) == JOBS, f"a Workload for each of {JOBS} jobs")
    kueue.tick()  # says to each what is short
    await asyncio.sleep(5)
    return kueue


async def admitted(kueue: Kueue, made: dict[str, float]) -> None:
    """One after the other is admitted, and gets its PyTorchJob."""
    kueue.nodes = JOBS
    begun = time.monotonic()
    for number in range(JOBS):
        await asyncio.sleep(max(0.0, begun + number * SECONDS / JOBS - time.monotonic()))
        kueue.tick()
    await until(lambda: len(made) == JOBS, f"a PyTorchJob for each of {JOBS} jobs")


async def bare(url: str) -> list[float]:
    """Seconds that one create takes, one after the other."""
    times = []
    async with aiohttp.ClientSession() as session:
        for number in range(JOBS):
            metadata = {"name": f"bare-{number}", "namespace": "team"}
            begun = time.perf_counter()
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
            async with session.post(f"{url}/api/v1/namespaces/team/configmaps", json=body) as response:
                response.raise_for_status()
                await response.read()
            times.append(time.perf_counter() - begun)
    return sorted(times)


def cpu_seconds(process: int) -> float:
    """What a process has used so far."""
    used = psutil.Process(process).cpu_times()
    return float(used.user + used.system)


def p99(times: list[float]) -> float:
    """The value that 99 % of sorted `times` do not exceed."""
    return times[math.ceil(0.99 * len(times)) - 1]


async def measured() -> list[Row]:
    """Every row."""
    simulation = await prepared_cluster()
    told: dict[str, float] = {}
    made: dict[str, float] = {}

    def sending(kind: Kind, obj: Obj) -> None:
        if kind == WORKLOAD and true_condition(obj, "Admitted"):
            told.setdefault(owner_uid(obj), time.perf_counter())

    def creating(obj: Obj) -> None:
        if obj["kind"] == PYTORCH_JOB.name:
            made.setdefault(owner_uid(obj), time.perf_counter())

    simulation.api.refuse = creating  # asked before anything is created; it refuses nothing
    pages = {PENDING_WORKLOADS.path("team", "queue"): lambda: pending(simulation)}
    served = Served(simulation.api, pages=pages, sending=sending)
    await served.start()
    with tempfile.TemporaryDirectory() as directory:
        process = await operator(served.url, Path(directory))
        try:
            kueue = await queued(simulation)
            before = cpu_seconds(process.pid)
            await admitted(kueue, made)
            busy = cpu_seconds(process.pid) - before
            alone = await bare(served.url)
        except BaseException:
            print((Path(directory) / "log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            await served.stop()
    times = sorted(made[owner] - told[owner] for owner in told)
    what = f"admission to PyTorchJob created, {JOBS} queued jobs"
    return [
        Row(f"{what}, p50", 1000 * statistics.median(times), 1000 * statistics.median(alone), "ms", "-"),
        Row(f"{what}, p99", 1000 * p99(times), 1000 * p99(alone), "ms", "< 1000 ms"),
        Row("the operator's CPU time for each of them", 1000 * busy / JOBS, None, "ms", "-"),
    ]


def main() -> None:
    """Measure and report."""
    report("admission", asyncio.run(measured()))


if __name__ == "__main__":
    main()
