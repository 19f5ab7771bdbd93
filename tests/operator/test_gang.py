"""All pods of an attempt or none: when a part gives back what it holds, and what is seen meanwhile."""

from itertools import pairwise
from typing import Any

import pytest

from anneal_operator import gang
from anneal_operator.kinds import FINE_TUNE_JOB, POD, PYTORCH_JOB, Obj
from anneal_operator.pods import PodView, view
from simulated.builders import at, make_job, make_pod, stamp
from simulated.machinery import TRAINED, Run
from simulated.process import Simulation, conditions

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def placed(index: int, *, scheduled: float | None = 30, **changes: Any) -> PodView:
    """A pod with a node."""
    known = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(scheduled or 0)}
    return view(make_pod(f"w-{index}", index=index, conditions=[known] if scheduled else [], created=5, **changes))


def unplaced(index: int) -> PodView:
    """A pod that the scheduler found no node for."""
    known = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
    return view(make_pod(f"w-{index}", index=index, phase="Pending", node=None, conditions=[known], created=5))


CASES = {
    "all placed": ([placed(0), placed(1)], 2, None),
    "one node": ([placed(0)], 1, None),
    "one node without a place": ([unplaced(0)], 1, None),
    "none placed": ([unplaced(0), unplaced(1)], 2, None),
    "none made": ([], 2, None),
    "one placed": ([placed(0), unplaced(1)], 2, 130),
    "one placed, one not looked at": ([placed(0), view(make_pod("w-1", phase="Pending", node=None))], 2, 130),
    "one placed, one not made": ([placed(0)], 2, 130),
    "the first one counts": ([placed(0, scheduled=40), placed(1, scheduled=20), unplaced(2)], 3, 120),
    "from its creation if nothing else is said": ([placed(0, scheduled=None), unplaced(1)], 2, 105),
    "a pod that ended holds nothing": ([placed(0, exit_code=1), unplaced(1)], 2, None),
}


@pytest.mark.parametrize(("pods", "wanted", "seconds"), CASES.values(), ids=CASES)
def test_only_a_part_is_given_back(pods: list[PodView], wanted: int, seconds: int | None) -> None:
    """The limit runs from the first place that was found, and only while others are lacking."""
    due = gang.due(gang.standing(pods, wanted), 100)
    assert due == (None if seconds is None else at(seconds))


def test_waits_grow_to_a_limit_and_differ_between_jobs() -> None:
    """A minute, two and so on up to fifteen, each longer by up to a half that is the job's own."""
    for times, base in ((1, 60), (2, 120), (3, 240), (4, 480), (5, 900), (6, 900), (5000, 900)):
        waits = [gang.retry_after(f"uid-{number}", times).total_seconds() for number in range(50)]
        assert base <= min(waits) < max(waits) <= 1.5 * base
        assert len(set(waits)) > 15
        assert waits == [gang.retry_after(f"uid-{number}", times).total_seconds() for number in range(50)]


async def half_placed(*, limit: int = 20, places: int = 1) -> Simulation:
    """A job of two nodes in a cluster with room for one, at the moment when one of its pods runs."""
    simulation = Simulation()
    simulation.machinery.training = [[TRAINED, Run(20, 0)]]
    simulation.machinery.places = places
    simulation.add(make_job(compute={"nodes": 2}, runPolicy={"schedulingTimeoutSeconds": limit}))
    while not [pod for pod in trainers(simulation) if pod["status"].get("conditions")]:
        await simulation.run(1)
    await simulation.run(3)
    return simulation


def trainers(simulation: Simulation) -> list[Obj]:
    """The training pods that are there."""
    return [pod for pod in simulation.api.of(POD) if pod["metadata"]["labels"]["anneal.dev/role"] == "trainer"]


def told(simulation: Simulation) -> list[str]:
    """Reasons of the Events that were told."""
    waiting = simulation.controller.recorder._waiting
    return [waiting.get_nowait()["reason"] for _ in range(waiting.qsize())]


async def given_back(simulation: Simulation, times: int) -> dict[str, Any]:
    """The attempt when it has been given back that often."""
    for _ in range(4000):
        attempt: dict[str, Any] = simulation.status()["attempts"][-1]
        if attempt.get("unplaced") == times and "retryTime" in attempt:
            return attempt
        await simulation.run(1)
    raise AssertionError(f"not given back {times} times: {simulation.status()}")


async def test_before_the_limit_the_scheduler_is_quoted_and_the_limit_named() -> None:
    """The pod without a place is the one to tell about, though the other one starts too."""
    status = (await half_placed()).status()
    assert (status["phase"], conditions(status)["Running"]) == ("Starting", ("False", "WaitingForNode"))
    for words in (NO_GPU.rstrip("."), "1 of 2 pods has a place", "given back at"):
        assert words in status["message"]


async def test_what_is_given_back_is_told_once_and_costs_no_attempt() -> None:
    """Phase, condition and Event say what was held, what the scheduler said, and when it tries again."""
    simulation = await half_placed()
    told(simulation)
    waits = []
    for times in (1, 2, 3):
        attempt = await given_back(simulation, times)
        await simulation.run(5)
        status = simulation.status()
        assert (status["phase"], conditions(status)["Running"]) == ("Starting", ("False", "SchedulingTimeout"))
        for words in ("1 of 2 pods has held a place for 20 s", NO_GPU.rstrip("."), f"again at {attempt['retryTime']}"):
            assert words in status["message"]
        assert not simulation.api.of(PYTORCH_JOB)
        assert not trainers(simulation)
        assert told(simulation) == ["SchedulingTimeout"]
        begun = simulation.now
        while "retryTime" in simulation.status()["attempts"][-1]:
            await simulation.run(1)
        waits.append((simulation.now - begun).total_seconds())
    assert all(later > 1.3 * earlier for earlier, later in pairwise(waits))
    assert [attempt["number"] for attempt in simulation.status()["attempts"]] == [1]
    simulation.machinery.places = 2
    status = await simulation.until("Succeeded")
    assert [attempt["unplaced"] for attempt in status["attempts"]] == [3]
    assert "retryTime" not in status["attempts"][0]


async def test_a_job_of_which_no_pod_has_a_place_keeps_waiting() -> None:
    """Its pending pods are what a cluster autoscaler goes by."""
    simulation = await half_placed(places=0)
    before = trainers(simulation)
    await simulation.run(200)
    assert trainers(simulation) == before
    assert conditions(simulation.status())["Running"] == ("False", "WaitingForNode")
    assert "unplaced" not in simulation.status()["attempts"][0]


async def test_a_place_that_is_found_before_anything_is_deleted_is_kept() -> None:
    """The operator dies with its intention on record; when it is back all pods run."""
    simulation = await half_placed(limit=900)
    status, (obj,) = simulation.status(), simulation.api.of(PYTORCH_JOB)
    (attempt,) = status["attempts"]
    intended = {**status, "attempts": [{**attempt, "unplaced": 1, "retryTime": stamp(300)}]}
    simulation.api.update({**simulation.job(), "status": intended})
    simulation.machinery.places = 2
    for _ in range(3):
        simulation.machinery.tick()
    simulation.start()
    status = await simulation.until("Succeeded")
    assert simulation.api.of(PYTORCH_JOB)[0]["metadata"]["uid"] == obj["metadata"]["uid"]
    assert "unplaced" not in status["attempts"][0]
    assert "retryTime" not in status["attempts"][0]


async def test_a_job_that_is_deleted_while_it_waits_leaves_nothing() -> None:
    """Nothing of it is made at the time at which it would have tried again."""
    simulation = await half_placed()
    await given_back(simulation, 1)
    simulation.api.remove(FINE_TUNE_JOB, simulation.job())
    await simulation.run(150)
    assert not simulation.api.of(PYTORCH_JOB)
    assert not simulation.api.of(POD)


async def test_the_deadline_does_not_run_while_places_are_waited_for() -> None:
    """Only training counts."""
    simulation = await half_placed()
    simulation.edit(runPolicy={"schedulingTimeoutSeconds": 20, "activeDeadlineSeconds": 40})
    await given_back(simulation, 2)
    simulation.machinery.places = 2
    status = await simulation.until("Succeeded")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Succeeded"]
