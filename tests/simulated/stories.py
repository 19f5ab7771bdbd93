"""Whole lives of jobs: what is in the cluster, what happens, and the end that each must come to.

The same stories are told straight, with the operator dying after every single effect, and with events late and repeated.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anneal_api.conditions import Outcome
from anneal_api.meta import ROLE_LABEL, ROLE_TRAINER
from anneal_api.progress import TerminationMessage
from anneal_operator.kinds import POD, PYTORCH_JOB, labels_of
from simulated.builders import make_job
from simulated.machinery import PREPARED, TRAINED, Run
from simulated.process import Simulation

MANY = 2
USER_ERROR = Run(
    3, 65, TerminationMessage(outcome=Outcome.USER_ERROR, message="train.jsonl:7: no column messages", exit_code=65)
)
KILLED = Run(8, 137)
OUT_OF_MEMORY = Run(
    8, 79, TerminationMessage(outcome=Outcome.OUT_OF_MEMORY, message="CUDA out of memory at step 3", exit_code=79)
)
STALE = Run(2, 75, TerminationMessage(outcome=Outcome.PREPARED_DATA_STALE, message="train.jsonl changed", exit_code=75))
EVICTED = Run(8, 143, disrupted="EvictionByEvictionAPI")
NODE_LOST = Run(8, 143, disrupted="DeletionByTaintManager")


@dataclass(frozen=True)
class Story:
    """One life; `outcomes` are those of its attempts."""

    name: str
    tell: Callable[[Simulation], Awaitable[None]]
    phase: str
    reason: str
    outcomes: tuple[str, ...]
    # Has so many effects that cutting it off after each is for the soak.
    long: bool = False


async def _straight(simulation: Simulation) -> None:
    await simulation.run(120)


def _story(  # noqa: PLR0913  a life can be many things
    name: str, phase: str, reason: str, outcomes: tuple[str, ...], *, training: list[list[Run]] | None = None,
    preparing: list[Run] | None = None, then: Callable[[Simulation], Awaitable[None]] = _straight,
    places: int | None = None, long: bool = False, **spec: object,
) -> Story:  # fmt: skip
    async def tell(simulation: Simulation) -> None:
        simulation.machinery.training = training or [[TRAINED]]
        simulation.machinery.preparing = preparing or [PREPARED]
        simulation.machinery.places = places
        simulation.add(make_job(**spec))
        await then(simulation)

    return Story(name, tell, phase, reason, outcomes, long=long or len(outcomes) > MANY)


async def _suspend_while_running(simulation: Simulation) -> None:
    await simulation.until("Running")
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    await simulation.run(30)
    assert not [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] in {"Pending", "Running"}]
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(80)


async def _suspend_while_preparing(simulation: Simulation) -> None:
    await simulation.until("Preparing")
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    await simulation.run(10)
    assert not simulation.api.of(POD)
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(80)


async def _pod_deleted(simulation: Simulation) -> None:
    await simulation.until("Running")
    await simulation.run(3)
    (pod,) = [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] == "Running"]
    simulation.api.remove(POD, pod)
    await simulation.run(100)


async def _pod_gone_at_once(simulation: Simulation) -> None:
    """Forced: no time to end, no last state; the engine makes another pod of the same name."""
    await simulation.until("Running")
    await simulation.run(3)
    (pod,) = [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] == "Running"]
    simulation.api.vanish(POD, pod)
    await simulation.run(100)


async def _pytorch_job_deleted(simulation: Simulation) -> None:
    await simulation.until("Running")
    await simulation.run(3)
    (pytorch_job,) = simulation.api.of(PYTORCH_JOB)
    simulation.api.remove(PYTORCH_JOB, pytorch_job)
    await simulation.run(100)


async def _half_of_the_places_each(simulation: Simulation) -> None:
    """Two jobs of two pods find a place for one pod each, and neither can go on."""
    simulation.add(make_job("other", compute={"nodes": 2}, runPolicy={"schedulingTimeoutSeconds": 20}))
    while len([pod for pod in simulation.api.of(POD) if labels_of(pod)[ROLE_LABEL] == ROLE_TRAINER]) < 2 * MANY:
        await simulation.run(1)
    simulation.machinery.places = MANY
    for name in ("bot", "other"):
        status = await simulation.until("Succeeded", name)
        assert [attempt["outcome"] for attempt in status["attempts"]] == ["Succeeded"]
    assert any(simulation.status(name)["attempts"][0].get("unplaced") for name in ("bot", "other"))


async def _suspended_while_given_back(simulation: Simulation) -> None:
    while not any(attempt.get("retryTime") for attempt in simulation.status().get("attempts", [])):
        await simulation.run(1)
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    assert not simulation.api.of(PYTORCH_JOB)
    simulation.machinery.places = MANY
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(80)


async def _places_come_later(simulation: Simulation) -> None:
    while not any(attempt.get("unplaced") for attempt in simulation.status().get("attempts", [])):
        await simulation.run(1)
    simulation.machinery.places = MANY
    await simulation.run(150)


DONE = ("Succeeded",)
# Room for one of two pods.
HALF: dict[str, object] = {"compute": {"nodes": 2}, "runPolicy": {"schedulingTimeoutSeconds": 20}}
BOTH = [[TRAINED, Run(20, 0)]]
STORIES = (
    _story("success", "Succeeded", "Completed", DONE),
    _story(
        "two-nodes", "Succeeded", "Completed", DONE, compute={"nodes": 2}, training=[[TRAINED, Run(20, 0)]]
    ),
    _story(
        "killed", "Succeeded", "Completed", ("Infrastructure", "Succeeded"), training=[[KILLED], [TRAINED]]
    ),
    _story(
        "worker-killed", "Succeeded", "Completed", ("Infrastructure", "Succeeded"),
        compute={"nodes": 2}, training=[[Run(60, 1), KILLED], [TRAINED, Run(20, 0)]],
    ),
    _story(
        "worker-dies-of-rank-zero", "Failed", "UserError", ("UserError",),
        compute={"nodes": 2}, training=[[Run(9, 65, USER_ERROR.words), Run(8, 1)]],
    ),
    _story(
        "user-error", "Failed", "UserError", ("UserError",), training=[[USER_ERROR]]
    ),
    _story("bad-data", "Failed", "UserError", (), preparing=[USER_ERROR]),
    _story(
        "prepare-recovers", "Succeeded", "Completed", DONE, preparing=[Run(1, 1), Run(1, 137), PREPARED]
    ),
    _story(
        "retries-exhausted", "Failed", "RetriesExhausted", ("Infrastructure",) * 2,
        training=[[KILLED]], runPolicy={"maxRetries": 1},
    ),
    _story(
        "out-of-memory", "Succeeded", "Completed", ("OutOfMemory", "OutOfMemory", "Succeeded"),
        training=[[OUT_OF_MEMORY], [Run(5, 137, reason="OOMKilled")], [TRAINED]],
    ),
    _story(
        "out-of-memory-for-good", "Failed", "OutOfMemory", ("OutOfMemory",) * 3, training=[[OUT_OF_MEMORY]]
    ),
    _story(
        "evicted", "Succeeded", "Completed", ("Preempted", "Succeeded"),
        training=[[EVICTED], [TRAINED]], runPolicy={"maxRetries": 0},
    ),
    _story(
        "node-lost", "Succeeded", "Completed", ("NodeLost", "Succeeded"),
        training=[[NODE_LOST], [TRAINED]], runPolicy={"maxRetries": 0},
    ),
    _story(
        "stale", "Succeeded", "Completed", ("PreparedDataStale", "Succeeded"), training=[[STALE], [TRAINED]]
    ),
    _story(
        "stale-for-ever", "Failed", "PreparedDataStale", ("PreparedDataStale",) * 4, training=[[STALE]]
    ),
    _story(
        "deadline", "Failed", "DeadlineExceeded", ("DeadlineExceeded",),
        training=[[Run(1000)]], runPolicy={"activeDeadlineSeconds": 10},
    ),
    _story(
        "suspended", "Succeeded", "Completed", ("Suspended", "Succeeded"), then=_suspend_while_running
    ),
    _story("suspended-early", "Succeeded", "Completed", DONE, then=_suspend_while_preparing),
    _story(
        "pod-deleted", "Succeeded", "Completed", ("Infrastructure", "Succeeded"), then=_pod_deleted
    ),
    _story(
        "pod-forced", "Succeeded", "Completed", ("Infrastructure", "Succeeded"), then=_pod_gone_at_once,
    ),
    _story(
        "given-back", "Succeeded", "Completed", DONE, training=BOTH, places=1, then=_places_come_later, **HALF
    ),
    _story(
        "given-back-two-jobs", "Succeeded", "Completed", DONE,
        training=BOTH, places=0, then=_half_of_the_places_each, long=True, **HALF,
    ),
    _story(
        "given-back-suspended", "Succeeded", "Completed", ("Suspended", "Succeeded"),
        training=BOTH, places=1, then=_suspended_while_given_back, **HALF,
    ),
    _story(
        "pytorchjob-deleted", "Succeeded", "Completed", ("Infrastructure", "Succeeded"), then=_pytorch_job_deleted,
    ),
)  # fmt: skip
