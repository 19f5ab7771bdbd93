"""Lives of jobs with servers: answers are drawn as long as there is training, and nothing holds a GPU beyond it."""

from collections.abc import Awaitable, Callable

from anneal_operator.kinds import DEPLOYMENT, POD, SERVICE
from simulated.builders import make_grpo_job
from simulated.machinery import PREPARED, TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.queueing import Kueue
from simulated.serving import SERVES, Load
from simulated.stories import KILLED, USER_ERROR, Story

Tale = Callable[[Simulation], Awaitable[None]]
DONE = ("Succeeded",)
TWO: dict[str, object] = {"rollout": {"replicas": 2}}
CANNOT_START = Load(2, 1, "ValueError: max_model_len (4096) is greater than the model's")


def _online(
    name: str, outcomes: tuple[str, ...], then: Tale, *, end: tuple[str, str] = ("Succeeded", "Completed"),
    training: list[list[Run]] | None = None, loads: list[Load] | None = None, queue: bool = False, long: bool = False,
    **spec: object,
) -> Story:  # fmt: skip
    async def tell(simulation: Simulation) -> None:
        machinery = simulation.machinery
        machinery.training, machinery.preparing = training or [[TRAINED]], [PREPARED]
        machinery.servers.loads = loads or [SERVES]
        if queue:
            # One job's: its trainer and its server.
            machinery.kueue = Kueue(simulation.api, nodes=2)
            machinery.kueue.install("team-a", "team-b", priorities={"high": 100})
            spec["queue"] = "team-a"
        simulation.add(make_grpo_job(**spec))
        await then(simulation)
        assert not machinery.servers.pods()
        assert not simulation.api.of(DEPLOYMENT)
        assert machinery.servers.most_kinds <= 1
        assert not machinery.without_servers
        assert not machinery.pods_without_quota

    return Story(f"online-{name}", tell, *end, outcomes, long=long)


async def _straight(simulation: Simulation) -> None:
    await simulation.run(150)
    (service,) = simulation.api.of(SERVICE)
    assert service["spec"]["clusterIP"] == "None"


async def _server_dies(simulation: Simulation) -> None:
    """The trainer goes on, and the condition says what is wrong until the server is back."""
    await simulation.until("Running")
    await simulation.run(3)
    first, *_others = simulation.machinery.servers.ready()
    simulation.machinery.servers.end(first, 137, "killed", reason="OOMKilled")
    seen = set()
    for _ in range(20):
        await simulation.run(1)
        seen.add(conditions(simulation.status())["RolloutReady"])
    assert {("False", "RolloutDegraded"), ("True", "RolloutServing")} <= seen
    await simulation.run(150)


async def _server_pod_deleted(simulation: Simulation) -> None:
    await simulation.until("Running")
    await simulation.run(3)
    simulation.api.remove(POD, simulation.machinery.servers.ready()[0])
    await simulation.run(150)


async def _deployment_deleted(simulation: Simulation) -> None:
    """It is made again while the trainer waits."""
    await simulation.until("Running")
    await simulation.run(3)
    simulation.api.remove(DEPLOYMENT, simulation.api.of(DEPLOYMENT)[0])
    await simulation.run(12)
    assert simulation.api.of(DEPLOYMENT)
    await simulation.run(150)


async def _suspended(simulation: Simulation) -> None:
    await simulation.until("Running")
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    assert not [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] in {"Pending", "Running"}]
    await simulation.run(30)
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(150)


async def _others_after_a_break(simulation: Simulation) -> None:
    """The servers of the second attempt are on another node, say, where none can start."""
    await simulation.until("Running")
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    simulation.edit(runPolicy={"suspend": False, "maxRetries": 1})
    await simulation.run(300)


async def _lost_for_good(simulation: Simulation) -> None:
    """The trainer has waited for one that does not come back, which costs one retry."""
    await simulation.until("Running")
    simulation.api.remove(POD, simulation.machinery.servers.ready()[0])
    await simulation.run(300)


async def _suspended_while_starting(simulation: Simulation) -> None:
    while not simulation.machinery.servers.pods():
        await simulation.run(1)
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    assert not simulation.machinery.servers.pods()
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(150)


async def _edited_while_starting(simulation: Simulation) -> None:
    """Other servers are made, after the first ones have gone."""
    while not simulation.machinery.servers.pods():
        await simulation.run(1)
    simulation.edit(rollout={"replicas": 2})
    await simulation.run(150)


async def _preempted(simulation: Simulation) -> None:
    await simulation.until("Running")
    await simulation.run(3)
    simulation.add(make_grpo_job("urgent", queue="team-b", priorityClass="high", output={"path": "urgent"}))
    await simulation.run(250)
    assert simulation.status("urgent")["phase"] == "Succeeded"


async def _evicted_while_starting(simulation: Simulation) -> None:
    while not simulation.machinery.servers.pods():
        await simulation.run(1)
    simulation.add(make_grpo_job("urgent", queue="team-b", priorityClass="high", output={"path": "urgent"}))
    await simulation.run(250)
    assert simulation.status("urgent")["phase"] == "Succeeded"


async def _kept_between_attempts(simulation: Simulation) -> None:
    """The same servers serve the next attempt."""
    await simulation.run(200)
    made = [place for place in simulation.api.created if place[0] == DEPLOYMENT]
    assert len(made) == 1


async def _places_come_later(simulation: Simulation) -> None:
    """One of two servers has a place: it is given back, and both are made when there is room."""
    simulation.machinery.servers.places = 1
    while not (simulation.status().get("rollout") or {}).get("retryTime"):
        await simulation.run(1)
    await simulation.run(3)
    assert not simulation.machinery.servers.pods()
    assert conditions(simulation.status())["RolloutReady"] == ("False", "SchedulingTimeout")
    simulation.machinery.servers.places = 2
    await simulation.run(240)
    assert simulation.status()["rollout"]["unplaced"] == 1


ROLLOUT_STORIES = (
    _online("success", DONE, _straight, **TWO),
    _online("killed", ("Infrastructure", "Succeeded"), _kept_between_attempts, training=[[KILLED], [TRAINED]]),
    _online(
        "user-error", ("UserError",), _straight, end=("Failed", "UserError"), training=[[USER_ERROR]]
    ),
    _online("server-dies", DONE, _server_dies, training=[[Run(60, words=TRAINED.words)]], **TWO),
    _online("server-deleted", DONE, _server_pod_deleted, training=[[Run(60, words=TRAINED.words)]]),
    _online("deployment-deleted", DONE, _deployment_deleted, training=[[Run(60, words=TRAINED.words)]]),
    _online("never-starts", (), _straight, end=("Failed", "RolloutFailed"), loads=[CANNOT_START]),
    _online(
        "never-ready", (), _straight, end=("Failed", "RolloutFailed"), loads=[Load(10_000)],
        rollout={"startTimeoutSeconds": 30},
    ),
    _online("one-of-two-fails", (), _straight, end=("Failed", "RolloutFailed"), loads=[SERVES, CANNOT_START], **TWO),
    _online("suspended", ("Suspended", "Succeeded"), _suspended),
    _online(
        "given-back", DONE, _places_come_later, long=True, runPolicy={"schedulingTimeoutSeconds": 20}, **TWO
    ),
    _online(
        "broken-later", ("Suspended", "Infrastructure", "Succeeded"), _others_after_a_break,
        loads=[SERVES, CANNOT_START, SERVES],
    ),
    _online(
        "broken-for-good", ("Suspended", "Infrastructure", "Infrastructure"), _others_after_a_break,
        end=("Failed", "RetriesExhausted"), loads=[SERVES, CANNOT_START],
    ),
    _online(
        "lost-for-good", ("Infrastructure", "Succeeded"), _lost_for_good, training=[[Run(60, 75)], [TRAINED]],
        loads=[SERVES, Load(10_000), SERVES], rollout={"startTimeoutSeconds": 30}, runPolicy={"maxRetries": 1},
    ),
    _online("suspended-while-starting", DONE, _suspended_while_starting),
    _online("edited-while-starting", DONE, _edited_while_starting),
    _online(
        "preempted", ("Evicted", "Succeeded"), _preempted, queue=True, long=True,
        training=[[Run(60, words=TRAINED.words)], [TRAINED]],
    ),
    _online("evicted-while-starting", DONE, _evicted_while_starting, queue=True, long=True, loads=[Load(20)]),
)  # fmt: skip
