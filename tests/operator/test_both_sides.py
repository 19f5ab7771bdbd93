"""A job with servers queues as one: both sides have quota or neither, where each has it, and give it back together."""

from typing import Any

import pytest

from anneal_operator.kinds import CLUSTER_QUEUE, DEPLOYMENT, PYTORCH_JOB, WORKLOAD, Obj
from simulated.builders import make_grpo_job, make_job
from simulated.process import Simulation, conditions
from simulated.queueing import Kueue, workload_of
from simulated.serving import Load


def message(simulation: Simulation, kind: str = "Admitted") -> str:
    """What a condition says."""
    return next(str(each["message"]) for each in simulation.status()["conditions"] if each["type"] == kind)


def drawing(*, nodes: int, **spec: Any) -> Simulation:
    """A queued job with one training pod and two servers, and quota for so many pods."""
    simulation = Simulation()
    simulation.machinery.kueue = Kueue(simulation.api, nodes=nodes)
    simulation.machinery.kueue.install("team-a", "team-b", priorities={"high": 100})
    simulation.add(make_grpo_job(**{"queue": "team-a", "rollout": {"replicas": 2}, **spec}))
    return simulation


@pytest.mark.parametrize("nodes", [1, 2], ids=["trainer alone", "servers alone"])
async def test_quota_for_one_side_admits_neither(nodes: int) -> None:
    """No pod of either is made; the message tells what both sides need."""
    simulation = drawing(nodes=nodes)
    await simulation.until("Queued")
    await simulation.run(60)
    assert not simulation.api.of(PYTORCH_JOB)
    assert not simulation.api.of(DEPLOYMENT)
    assert "needs 1 training pod + 2 servers, admitted together: insufficient unused quota" in message(simulation)
    simulation.machinery.kueue.nodes = 3  # type: ignore[union-attr]
    await simulation.until("Succeeded")


async def test_both_sides_are_one_request_and_go_where_their_flavors_are() -> None:
    """Two pod sets, of which the trainer alone may be smaller; status has the flavors of both."""
    simulation = drawing(nodes=3)
    await simulation.until("Running")
    found = workload_of(simulation.api, simulation.job())
    counts = {each["name"]: each["count"] for each in found["spec"]["podSets"]}
    assert counts == {"trainer": 1, "rollout": 2}
    (made,) = simulation.api.of(DEPLOYMENT)
    spec = made["spec"]["template"]["spec"]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"gpu": "h100"}, [{"key": "gpu"}])
    queue = simulation.status()["queue"]
    assert queue["flavors"] == queue["rolloutFlavors"] == {"cpu": "h100", "memory": "h100"}
    await simulation.until("Succeeded")


async def test_pods_are_ready_for_kueue_when_both_sides_are() -> None:
    """It might take the quota of a job that stays half ready."""
    simulation = drawing(nodes=3)
    simulation.machinery.servers.loads = [Load(seconds=20)]
    while "admission" not in workload_of_or_none(simulation):
        await simulation.run(1)
    await simulation.run(10)
    assert pods_ready(simulation) == "False"
    await simulation.until("Running")
    await simulation.run(3)
    assert pods_ready(simulation) == "True"


def workload_of_or_none(simulation: Simulation) -> Obj:
    """The status of the job's Workload, empty while there is none."""
    found = simulation.api.of(WORKLOAD)
    return dict(found[0].get("status") or {}) if found else {}


def pods_ready(simulation: Simulation) -> str:
    """What Kueue knows of the pods."""
    found = workload_of_or_none(simulation)["conditions"]
    return next(each["status"] for each in found if each["type"] == "PodsReady")


async def test_eviction_stops_both_sides_before_quota_is_given_back() -> None:
    """Also while the servers load and no attempt has begun."""
    simulation = drawing(nodes=3)
    simulation.machinery.servers.loads = [Load(seconds=60)]
    while not simulation.machinery.servers.pods():
        await simulation.run(1)
    simulation.add(make_job("boss", uid="uid-boss", queue="team-a", priorityClass="high", output={"path": "boss"}))
    await simulation.until("Succeeded", "boss")
    assert not simulation.machinery.pods_without_quota
    simulation.machinery.servers.loads = [Load()]
    await simulation.until("Succeeded")
    assert not simulation.machinery.pods_without_quota


async def test_a_change_of_the_servers_is_another_request() -> None:
    """Also after quota was had for others, as long as no attempt has begun: these go first."""
    simulation = drawing(nodes=3)
    simulation.machinery.servers.loads = [Load(seconds=60)]
    while not simulation.machinery.servers.pods():
        await simulation.run(1)
    before = workload_of(simulation.api, simulation.job())["metadata"]["uid"]
    simulation.edit(rollout={"replicas": 1})
    simulation.machinery.servers.loads = [Load()]
    await simulation.until("Running")
    found = workload_of(simulation.api, simulation.job())
    assert found["metadata"]["uid"] != before
    assert [each["count"] for each in found["spec"]["podSets"]] == [1, 1]
    assert not simulation.machinery.pods_without_quota


async def test_a_queue_without_the_servers_gpus_is_refused() -> None:
    """The trainer needs none, its servers do: it is told of which."""
    simulation = drawing(nodes=3, rollout={"gpus": 1, "pool": "h100"})
    (behind,) = simulation.api.of(CLUSTER_QUEUE)
    groups = [{"coveredResources": ["cpu", "memory"]}]
    simulation.api.update({**behind, "spec": {"resourceGroups": groups}})
    await simulation.run(10)
    assert conditions(simulation.status())["Accepted"] == ("False", "QueueLacksResource")
    assert "its rollout asks for nvidia.com/gpu" in message(simulation, "Accepted")
