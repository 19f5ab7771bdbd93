"""A trainer and its servers find places together or give them back, whichever side it is that finds none."""

from typing import Any

from anneal_operator.kinds import DEPLOYMENT, POD, PYTORCH_JOB, Obj
from simulated.builders import make_grpo_job
from simulated.process import Simulation, conditions
from simulated.queueing import Kueue

LIMIT = {"schedulingTimeoutSeconds": 20}


def online(*, servers: int | None = None, trainers: int | None = None, **spec: Any) -> Simulation:
    """A job with two servers, and nodes with room for so many of its pods."""
    simulation = Simulation()
    simulation.machinery.servers.places, simulation.machinery.places = servers, trainers
    simulation.add(make_grpo_job(rollout={"replicas": 2}, **{"runPolicy": LIMIT, **spec}))
    return simulation


def alive(simulation: Simulation) -> list[Obj]:
    """Pods that hold something or would, but for those that prepare."""
    pods = [pod for pod in simulation.api.of(POD) if pod["status"]["phase"] in {"Pending", "Running"}]
    return [pod for pod in pods if pod["metadata"]["labels"]["anneal.dev/role"] != "prepare"]


async def until_given_back(simulation: Simulation) -> dict[str, Any]:
    """The status when nothing of the job is left."""
    for _ in range(300):
        await simulation.run(1)
        status = simulation.status()
        reasons = {reason for _, reason in conditions(status).values()}
        if "SchedulingTimeout" in reasons and not alive(simulation) and not simulation.api.of(DEPLOYMENT):
            return status
    raise AssertionError(f"not given back: {simulation.status()}")


async def test_servers_of_which_one_finds_no_place_are_given_back_and_made_again() -> None:
    """No attempt is recorded, so none is lost; the sentence says what was held and when it goes on."""
    simulation = online(servers=1)
    status = await until_given_back(simulation)
    assert conditions(status)["RolloutReady"] == ("False", "SchedulingTimeout")
    assert "1 of 2 servers has held a place for 20 s" in status["message"]
    assert f"made again at {status['rollout']['retryTime']}" in status["message"]
    assert not status["attempts"]
    simulation.machinery.servers.places = 2
    status = await simulation.until("Succeeded")
    assert status["rollout"]["unplaced"] == 1
    assert "retryTime" not in status["rollout"]


async def test_before_the_limit_servers_say_what_will_happen() -> None:
    """Beside why the other one waits."""
    simulation = online(servers=1)
    for _ in range(60):
        await simulation.run(1)
        if "has a place" in str(simulation.status().get("message")):
            break
    words = simulation.status()["message"]
    assert "Insufficient nvidia.com/gpu" in words
    assert "1 of 2 servers has a place; unless the others find one, all are given back at" in words


async def test_servers_of_which_none_has_a_place_keep_waiting() -> None:
    """They hold nothing, and an autoscaler looks for such pods."""
    simulation = online(servers=0)
    await simulation.run(200)
    assert len(alive(simulation)) == 2
    assert conditions(simulation.status())["RolloutReady"] == ("False", "WaitingForNode")


async def test_servers_that_serve_a_trainer_without_a_place_are_given_back_with_it() -> None:
    """They hold GPUs that nobody uses; all come back together, under the same number of attempt."""
    simulation = online(trainers=0)
    status = await until_given_back(simulation)
    assert conditions(status)["Running"] == ("False", "SchedulingTimeout")
    assert "2 of 3 pods have held a place for 20 s" in status["message"]
    assert not simulation.api.of(PYTORCH_JOB)
    simulation.machinery.places = None
    status = await simulation.until("Succeeded")
    assert [(each["number"], each["unplaced"]) for each in status["attempts"]] == [(1, 1)]


async def test_a_trainer_has_its_time_to_find_a_place_after_the_servers_have_loaded() -> None:
    """What the servers took to load does not count."""
    simulation = online(trainers=0, runPolicy={"schedulingTimeoutSeconds": 60})
    await simulation.until("Starting")
    while not simulation.api.of(PYTORCH_JOB):
        await simulation.run(1)
    begun = simulation.now
    await until_given_back(simulation)
    assert 60 <= (simulation.now - begun).total_seconds() <= 75


async def test_a_job_whose_servers_were_given_back_holds_no_quota_while_it_waits_for_long() -> None:
    """Others may have it meanwhile."""
    simulation = Simulation()
    simulation.machinery.kueue = Kueue(simulation.api, nodes=3)
    simulation.machinery.kueue.install("team-a")
    simulation.machinery.servers.places = 1
    simulation.add(make_grpo_job(rollout={"replicas": 2}, runPolicy=LIMIT, queue="team-a"))
    await until_given_back(simulation)
    await simulation.run(5)
    assert conditions(simulation.status())["Admitted"] == ("False", "BackingOff")
    simulation.machinery.servers.places = 2
    assert (await simulation.until("Succeeded"))["attempts"][0]["outcome"] == "Succeeded"
