"""Lives of jobs that queue: each must come to its end, and hold a pod only while quota is reserved for it."""

from collections.abc import Awaitable, Callable

from anneal_operator.kinds import POD, PYTORCH_JOB, WORKLOAD, Obj
from simulated.builders import make_job
from simulated.machinery import PREPARED, TRAINED, Run
from simulated.process import Simulation
from simulated.queueing import Kueue, reserved, workload_of
from simulated.stories import KILLED, Story

Tale = Callable[[Simulation], Awaitable[None]]
DONE = ("Succeeded",)
AGAIN = ("Evicted", "Succeeded")


def _queued(
    name: str, outcomes: tuple[str, ...], then: Tale, *, nodes: int = 1, training: list[list[Run]] | None = None,
    long: bool = False, **spec: object,
) -> Story:  # fmt: skip
    async def tell(simulation: Simulation) -> None:
        machinery = simulation.machinery
        machinery.training, machinery.preparing = training or [[TRAINED]], [PREPARED]
        machinery.kueue = Kueue(simulation.api, nodes=nodes)
        machinery.kueue.install("team-a", "team-b", priorities={"high": 100})
        simulation.add(make_job(queue="team-a", **spec))
        await then(simulation)
        assert machinery.kueue.most_reserved <= machinery.kueue.nodes
        assert not machinery.pods_without_quota

    return Story(f"queued-{name}", tell, "Succeeded", "Completed", outcomes, long=long)


async def _straight(simulation: Simulation) -> None:
    await simulation.run(150)


async def _behind_another(simulation: Simulation) -> None:
    simulation.add(make_job("later", uid="uid-later", created=1, queue="team-b", output={"path": "later"}))
    await simulation.run(200)
    assert simulation.status("later")["phase"] == "Succeeded"


async def _preempted(simulation: Simulation) -> None:
    await simulation.until("Running")
    await simulation.run(3)
    simulation.add(
        make_job("urgent", uid="uid-urgent", queue="team-b", priorityClass="high", output={"path": "urgent"})
    )
    await simulation.run(200)
    assert simulation.status("urgent")["phase"] == "Succeeded"
    assert len(simulation.status("urgent")["attempts"]) == 1


async def _workload_deleted(simulation: Simulation) -> None:
    await simulation.until("Running")
    simulation.api.vanish(WORKLOAD, workload_of(simulation.api, simulation.job()))
    await simulation.run(150)


async def _deactivated(simulation: Simulation) -> None:
    await simulation.until("Running")
    _set_active(simulation, active=False)
    await simulation.run(60)
    assert not _pods_alive(simulation)
    assert not reserved(workload_of(simulation.api, simulation.job()))
    _set_active(simulation, active=True)
    await simulation.run(100)


def _set_active(simulation: Simulation, *, active: bool) -> None:
    workload = workload_of(simulation.api, simulation.job())
    simulation.api.update({**workload, "spec": {**workload["spec"], "active": active}})


def _pods_alive(simulation: Simulation) -> list[Obj]:
    return [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] in {"Pending", "Running"}]


async def _suspended(simulation: Simulation) -> None:
    await simulation.until("Running")
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    await simulation.run(30)
    assert not any(map(reserved, simulation.api.of(WORKLOAD)))
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(120)


async def _fewer_nodes(simulation: Simulation) -> None:
    await simulation.run(150)
    (made,) = simulation.api.of(PYTORCH_JOB)
    assert made["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] == 1
    assert simulation.status()["attempts"][0]["nodes"] == 1


async def _moved(simulation: Simulation) -> None:
    """Without quota for it in one queue, it moves to another."""
    await simulation.until("Queued")
    simulation.edit(queue="team-b")
    await simulation.run(40)
    assert workload_of(simulation.api, simulation.job())["spec"]["queueName"] == "team-b"
    assert simulation.machinery.kueue is not None
    simulation.machinery.kueue.nodes = 1
    await simulation.run(100)


async def _long_back_off(simulation: Simulation) -> None:
    """After the fifth failure in a row the next attempt is 80 s away, and another job may have the quota."""
    free = False
    for _ in range(450):
        await simulation.run(1)
        failed = len(simulation.status().get("attempts") or []) == simulation.machinery.training.index([TRAINED])
        free = free or (failed and not any(map(reserved, simulation.api.of(WORKLOAD))))
    assert free


async def _given_back(simulation: Simulation) -> None:
    """Admitted, but there is room for one of two pods: it holds no quota until it tries again."""
    simulation.machinery.places = 1
    free = False
    while not any(attempt.get("unplaced") == 2 for attempt in simulation.status().get("attempts") or []):
        await simulation.run(1)
        waits = any("retryTime" in attempt for attempt in simulation.status().get("attempts") or [])
        free = free or (waits and not any(map(reserved, simulation.api.of(WORKLOAD))))
    assert free
    simulation.machinery.places = 2
    await simulation.run(240)
    (attempt,) = simulation.status()["attempts"]
    assert attempt["unplaced"] == 2


QUEUE_STORIES = (
    _queued("alone", DONE, _straight),
    _queued("before-another", DONE, _behind_another),
    _queued("preempted", AGAIN, _preempted),
    _queued(
        "workload-deleted", AGAIN, _workload_deleted, training=[[Run(60, words=TRAINED.words)], [TRAINED]]
    ),
    _queued("deactivated", AGAIN, _deactivated),
    _queued("suspended", ("Suspended", "Succeeded"), _suspended),
    _queued(
        "fewer-nodes", DONE, _fewer_nodes, compute={"nodes": 2, "minNodes": 1}, training=[[TRAINED, Run(20, 0)]]
    ),
    _queued("moved", DONE, _moved, nodes=0),
    _queued(
        "given-back", DONE, _given_back, nodes=2, long=True, training=[[TRAINED, Run(20, 0)]],
        compute={"nodes": 2}, runPolicy={"schedulingTimeoutSeconds": 20},
    ),
    _queued(
        "killed-often", ("Infrastructure",) * 5 + DONE, _long_back_off, long=True,
        training=[[KILLED]] * 5 + [[TRAINED]], runPolicy={"maxRetries": 9},
    ),
)  # fmt: skip
