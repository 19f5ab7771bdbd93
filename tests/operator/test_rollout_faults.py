"""Servers and what goes wrong around them: nothing spins, nothing is held for nobody, and the status says why."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from anneal_api.meta import ROLE_LABEL, ROLE_TRAINER
from anneal_operator.errors import ApiError
from anneal_operator.kinds import (
    CLUSTER_QUEUE,
    DEPLOYMENT,
    LOCAL_QUEUE,
    POD,
    PYTORCH_JOB,
    RESOURCE_FLAVOR,
    SERVICE,
    WORKLOAD,
    Obj,
    format_time,
    labels_of,
    meta,
)
from anneal_operator.servers import turned_away
from simulated.builders import make_grpo_job, make_pod, stamp
from simulated.machinery import TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.queueing import Kueue
from simulated.serving import Load

GPUS: dict[str, Any] = {"compute": {"gpusPerNode": 1, "pool": "h100"}}
LONG = [[Run(5000, words=TRAINED.words)]]


async def loading(*loads: Load, **spec: Any) -> Simulation:
    """A job of which the servers have been made and load the model."""
    simulation = Simulation()
    simulation.machinery.servers.loads = list(loads)
    simulation.add(make_grpo_job(**spec))
    await until_there_are_servers(simulation)
    return simulation


async def until_there_are_servers(simulation: Simulation) -> None:
    """Let time pass until there are pods."""
    while not simulation.machinery.servers.pods():
        await simulation.run(1)


def message(simulation: Simulation, kind: str) -> str:
    """What a condition says."""
    return next(str(each["message"]) for each in simulation.status()["conditions"] if each["type"] == kind)


async def test_a_service_that_is_refused_is_told_and_tried_again_in_a_while() -> None:
    """Somebody removed it, and a quota keeps it from being made again: no trainer looks for servers in vain."""
    simulation = await loading(Load(30))
    simulation.api.remove(SERVICE, simulation.api.of(SERVICE)[0])
    simulation.api.refuse = lambda obj: ApiError(403, "Forbidden", "exceeded quota") if _is(SERVICE.name, obj) else None
    await simulation.run(60)
    assert conditions(simulation.status())["RolloutReady"] == ("False", "PodRejected")
    assert "exceeded quota" in simulation.status()["message"]
    assert not simulation.api.of(PYTORCH_JOB)
    simulation.api.refuse = lambda _obj: None
    await simulation.until("Running")
    assert simulation.api.of(SERVICE)


def _is(name: str, obj: Obj) -> bool:
    return bool(obj["kind"] == name)


async def test_servers_that_were_scaled_away_are_made_anew_before_an_attempt() -> None:
    """Otherwise the job would wait for ever for pods that nobody makes."""
    simulation = await loading(Load(30), Load())
    scale(simulation, 0)
    await simulation.until("Succeeded")


async def test_servers_that_were_scaled_away_under_an_attempt_are_told() -> None:
    """The sentence says what to do; the trainer goes on when it was done."""
    simulation = Simulation()
    simulation.machinery.training = LONG
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    scale(simulation, 0)
    await simulation.run(5)
    assert "was scaled to 0: scale it to 1" in message(simulation, "RolloutReady")
    scale(simulation, 1)
    await simulation.run(15)
    assert conditions(simulation.status())["RolloutReady"] == ("True", "RolloutServing")
    assert len(simulation.status()["attempts"]) == 1


def scale(simulation: Simulation, replicas: int) -> None:
    """`kubectl scale`."""
    (made,) = simulation.api.of(DEPLOYMENT)
    simulation.api.update({**made, "spec": {**made["spec"], "replicas": replicas}})
    for pod in simulation.machinery.servers.pods()[replicas:]:
        simulation.api.remove(POD, pod)


async def test_servers_do_not_wait_for_a_trainer_on_a_node_that_is_off() -> None:
    """Its pod never ends until somebody removes the node; they have had their time to serve its last step."""
    simulation = Simulation()
    simulation.machinery.training = LONG
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    switch_off(simulation, trainer_of(simulation))
    await simulation.run(45)
    assert simulation.machinery.servers.ready()
    await simulation.run(30)
    assert not simulation.machinery.servers.pods()
    assert conditions(simulation.status())["RolloutReady"] == ("False", "RolloutStopped")
    assert "if node node-1 is off for good" in simulation.status()["message"]


async def test_a_server_on_a_node_that_is_off_holds_up_what_follows_and_is_told_with_a_remedy() -> None:
    """A job is suspended only when nothing of it can run; and none of its servers is made beside one that may."""
    simulation = Simulation()
    simulation.machinery.training = LONG
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    switch_off(simulation, simulation.machinery.servers.pods()[0])
    simulation.edit(runPolicy={"suspend": True})
    await simulation.run(30)
    status = simulation.status()
    assert status["phase"] != "Suspended"
    assert "to end; if node node-2 is off for good, delete the node, or the pod with --force" in status["message"]
    simulation.edit(runPolicy={"suspend": False})
    await simulation.run(30)
    assert not simulation.api.of(DEPLOYMENT)
    assert "has ended; if node node-2 is off for good" in message(simulation, "RolloutReady")


async def test_a_server_on_a_node_that_is_off_has_no_place() -> None:
    """The one that is made for it finds none: the other one does not hold its GPUs for ever."""
    limit = {"schedulingTimeoutSeconds": 20}
    simulation = await loading(Load(100), rollout={"replicas": 2}, runPolicy=limit)
    simulation.machinery.servers.places = 2
    await simulation.run(5)
    switch_off(simulation, simulation.machinery.servers.pods()[0])
    await simulation.run(40)
    assert conditions(simulation.status())["RolloutReady"] == ("False", "SchedulingTimeout")
    assert "1 of 2 servers has held a place" in message(simulation, "RolloutReady")
    assert not simulation.api.of(DEPLOYMENT)


async def test_servers_that_their_nodes_end_again_and_again_are_given_up() -> None:
    """Their controller makes one pod after the other for ever, and each of them stays, ended, until it is deleted."""
    simulation = Simulation()
    simulation.machinery.servers.rejects = "The node was low on resource: ephemeral-storage."
    simulation.add(make_grpo_job(rollout={"replicas": 2}))
    status = await simulation.until("Failed")
    assert conditions(status)["RolloutReady"] == ("False", "RolloutFailed")
    assert "nodes have ended 6 pods of servers" in status["message"]
    assert "on node-2 (Evicted): The node was low on resource: ephemeral-storage." in status["message"]
    await simulation.run(5)
    assert not simulation.machinery.servers.pods()


def test_only_pods_of_the_present_deployment_count_as_turned_away() -> None:
    """Those of one that was deleted go a little later than it does, and have the same make."""
    labels = {ROLE_LABEL: "rollout", "anneal.dev/servers": "made"}
    made = {"metadata": {"labels": labels, "creationTimestamp": stamp(10)}}
    pods = [make_pod(f"s-{at}", phase="Failed", created=at) for at in (8, 9, 11, 12)]
    for pod in pods:
        pod["metadata"]["labels"] |= labels
    assert not turned_away(pods, made, wanted=1)
    assert turned_away([*pods, pods[-1]], made, wanted=1)


def trainer_of(simulation: Simulation) -> Obj:
    """The pod that trains."""
    (pod,) = [each for each in simulation.api.of(POD) if labels_of(each)[ROLE_LABEL] == ROLE_TRAINER]
    return pod


def switch_off(simulation: Simulation, pod: Obj) -> None:
    """The node of a pod answers no more, and the pod is deleted; the kubelet there never says that it ended."""
    keep, acts, off = simulation.machinery.servers._keep, simulation.machinery._kubelet, meta(pod)["uid"]

    def beside(others: Callable[[Obj], None]) -> Callable[[Obj], None]:
        return lambda each: None if meta(each)["uid"] == off else others(each)

    simulation.machinery._kubelet = beside(acts)  # type: ignore[method-assign]
    simulation.machinery.servers._keep = beside(keep)  # type: ignore[method-assign]
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    metadata = {**meta(pod), "deletionTimestamp": format_time(simulation.now)}
    simulation.api.update({**pod, "metadata": metadata, "status": {**pod["status"], "conditions": [lost]}})


async def test_without_kueue_servers_alone_do_not_make_an_attempt_begin() -> None:
    """Only an attempt that is under way goes on; what holds GPUs for one to come gives them back."""
    simulation = Simulation()
    kueue = simulation.machinery.kueue = Kueue(simulation.api, nodes=2)
    kueue.install("team-a")
    (flavor,) = simulation.api.of(RESOURCE_FLAVOR)
    simulation.api.update({**flavor, "spec": {}})
    simulation.machinery.servers.loads = [Load(30)]
    simulation.add(make_grpo_job(queue="team-a"))
    await until_there_are_servers(simulation)
    simulation.machinery.kueue = None
    simulation.api.unknown_kinds |= {LOCAL_QUEUE, CLUSTER_QUEUE, WORKLOAD}
    await simulation.run(60)
    assert conditions(simulation.status())["Admitted"] == ("False", "WaitingForKueue")
    assert not simulation.machinery.servers.pods()
    assert not simulation.api.of(PYTORCH_JOB)


async def test_servers_whose_pool_is_gone_get_no_pods_elsewhere() -> None:
    """The attempt that was recorded holds nothing then, and waits for the pool."""
    simulation = Simulation()
    simulation.machinery.places = 0
    on_gpus = {"pool": "h100", "gpus": 1}
    simulation.add(make_grpo_job(rollout=on_gpus, runPolicy={"schedulingTimeoutSeconds": 20}))
    while not (simulation.status().get("attempts") or [{}])[-1].get("retryTime"):
        await simulation.run(1)
    await simulation.run(5)
    pools = {name: pool for name, pool in simulation.settings.pools.items() if name != "h100"}
    simulation.settings = simulation.settings.model_copy(update={"pools": pools})
    simulation.start()
    before = len(simulation.api.created)
    await simulation.run(200)
    assert DEPLOYMENT not in {kind for kind, _, _ in simulation.api.created[before:]}
    assert "spec.rollout.pool: 'h100' is not a pool of this cluster" in simulation.status()["message"]


async def test_gpu_hours_of_servers_that_never_served_are_counted() -> None:
    """They held their GPUs, though the job failed before it trained."""
    simulation = await loading(Load(10_000), rollout={"startTimeoutSeconds": 360}, **GPUS)
    status = await simulation.until("Failed")
    await simulation.run(5)
    status = simulation.status()
    assert status["gpuHours"] == pytest.approx(0.1, rel=0.05)
    assert status["rollout"]["gpuHours"] == pytest.approx(status["gpuHours"], rel=0.05)


async def test_gpu_hours_stop_while_no_server_has_a_place() -> None:
    """Those that were deleted had theirs; the ones that are made for them wait."""
    simulation = Simulation()
    simulation.machinery.training = LONG
    simulation.add(make_grpo_job(**GPUS))
    await simulation.until("Running")
    simulation.machinery.servers.places = 0
    simulation.api.remove(DEPLOYMENT, simulation.api.of(DEPLOYMENT)[0])
    await simulation.run(60)
    report = simulation.status()["rollout"]
    assert "since" not in report
    assert 0 < report["gpuHours"] < timedelta(seconds=30) / timedelta(hours=1)
    simulation.machinery.servers.places = 1
    await simulation.run(20)
    again = simulation.status()["rollout"]
    assert (again["gpuHours"], again["ready"]) == (report["gpuHours"], 1)
    assert again["since"]
