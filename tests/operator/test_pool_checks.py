"""What is refused against the chart's pools, what is only said against the nodes that there are, and how nodes are read."""

from typing import Any

import pytest

from anneal_api.conditions import ConditionType
from anneal_operator.errors import ApiError
from anneal_operator.kinds import NODE, PYTORCH_JOB, Obj
from anneal_operator.pools import discover
from anneal_operator.reconcile import reconcile
from anneal_operator.settings import Pool
from anneal_operator.world import Decision, StorageFacts, World
from simulated.builders import at, make_job, make_node, make_settings
from simulated.machinery import Run
from simulated.process import Simulation, conditions

H100, L4 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L4"
LARGE = {"globalBatchSize": 1024, "microBatchSize": 1}
POOLS = {
    "big": {"gpuType": H100, "gpusPerNode": 8, "nodes": 4, "nodeSelector": {"nvidia.com/gpu.product": H100}},
    "cpu": {"resourceName": ""},
    "far": {"nodeSelector": {"gpu": "b200"}, "gpuType": "NVIDIA-B200"},
}


def decide(*nodes: Obj, pools: dict[str, Any] | None = None, **compute: Any) -> Decision:
    """One pass over a job with this compute, in a cluster with these nodes."""
    declared = {name: Pool.model_validate(each) for name, each in (POOLS if pools is None else pools).items()}
    asked = {"gpusPerNode": 1, "cpu": "1", "memory": "1Gi", **compute}
    queue = {"queue": "team"} if "minNodes" in compute else {}
    job = make_job(compute=asked, training=LARGE, **queue)
    settings = make_settings(pools=declared)
    return reconcile(World(job, settings, at(0), node_groups=discover(nodes, declared)))


def accepted(decision: Decision) -> tuple[str, str, str]:
    """Status, reason and message of Accepted."""
    assert decision.status is not None
    found = {each["type"]: each for each in decision.status["conditions"]}[ConditionType.ACCEPTED]
    return found["status"], found["reason"], found["message"]


REFUSED: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "gpus": ({"pool": "big", "gpusPerNode": 16}, "DoesNotFitPool", ["gpusPerNode: 16", "a node of pool 'big' has 8"]),
    "nodes": (
        {"pool": "big", "gpusPerNode": 8, "nodes": 8}, "DoesNotFitPool",
        ["spec.compute.nodes: 8", "4 nodes", "room for 4 pods of 8 GPUs"],
    ),
    "unknown-pool": (
        {"pool": "bigg"}, "UnknownPool", ["'bigg'", "did you mean big?", "big, cpu, far", "nodes have: nvidia-l4"],
    ),
    "unknown-type": (
        {"gpuType": "h10"}, "UnknownPool",
        ["spec.compute.gpuType: 'h10'", f"did you mean {H100}?", f"pools have NVIDIA-B200, {H100}", f"nodes have {L4}", "declare a pool"],
    ),
    "type-of-a-pool-that-is-too-small": ({"gpuType": "h100", "gpusPerNode": 16}, "DoesNotFitPool", ["pool 'big' has 8"]),
}  # fmt: skip


@pytest.mark.parametrize(("compute", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_pool_can_ever_have_is_refused_with_the_numbers(
    compute: dict[str, Any], reason: str, words: list[str]
) -> None:
    """Whatever nodes there are now; the job is looked at again, as nodes and pools come."""
    decision = decide(make_node(product=L4), **compute)
    found = accepted(decision)
    assert found[:2] == ("False", reason)
    assert not [word for word in words if word not in found[2]], found[2]
    assert decision.wake == at(30)


def test_without_any_node_the_refusal_of_a_kind_of_gpu_says_so() -> None:
    """And what to do where nodes are made on demand."""
    _, reason, message = accepted(decide(pools={}, gpuType="h100"))
    assert reason == "UnknownPool"
    assert "pools have none; nodes have none" in message


def test_all_objections_are_told_at_once() -> None:
    """With the reason of the first."""
    one_node_at_a_time = StorageFacts(known=True, claim={"spec": {"accessModes": ["ReadWriteOnce"]}})
    job = make_job(compute={"pool": "cpu", "gpusPerNode": 2, "nodes": 2}, training=LARGE)
    found = accepted(reconcile(World(job, make_settings(), at(0), storage=one_node_at_a_time)))
    assert found[1] == "InvalidSpec"
    assert "pool 'cpu' has no GPUs" in found[2]
    assert "ReadWriteMany" in found[2]


EIGHT = make_node(product=H100)
WARNED: dict[str, tuple[list[Obj], dict[str, Any], list[str]]] = {
    "gpus": ([make_node(product=L4, gpus=1)], {"gpuType": "l4", "gpusPerNode": 2}, ["no node of pool nvidia-l4", "1 GPU now"]),
    "nodes": ([EIGHT], {"pool": "big", "gpusPerNode": 8, "nodes": 2}, ["nodes is 2", "1 node now", "1 pod of 8 GPUs"]),
    "cordoned": ([make_node(product=H100, cordoned=True)], {"pool": "big"}, ["0 nodes now"]),
    "min-nodes": (
        [EIGHT], {"pool": "big", "gpusPerNode": 8, "nodes": 4, "minNodes": 2}, ["minNodes is 2"],
    ),
    "cpu": ([EIGHT], {"pool": "big", "cpu": "96"}, ["cpu is 96", "more than 95.69"]),
    "memory": ([EIGHT], {"pool": "big", "memory": "1007Gi"}, ["1009.0 GiB together", "more than 1007.3 GiB"]),
    "no-node-of-the-pool": ([EIGHT], {"pool": "far"}, ["pool far has no node with GPUs now"]),
    "no-pool": ([EIGHT], {"gpusPerNode": 16}, ["no node of this cluster has more than 8 GPUs now"]),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "compute", "words"), WARNED.values(), ids=WARNED)
def test_what_nodes_lack_now_is_said_and_waited_for(
    nodes: list[Obj], compute: dict[str, Any], words: list[str]
) -> None:
    """The job goes on, with one warning Event: nodes may be added."""
    decision = decide(*nodes, **compute)
    found = accepted(decision)
    assert found[:2] == ("True", "Valid")
    assert not [word for word in words if word not in found[2]], found[2]
    assert [(note.reason, note.warning) for note in decision.events if note.warning] == [("WaitsForNodes", True)]
    assert decision.apply


@pytest.mark.parametrize(
    ("nodes", "compute"),
    [
        ([], {"pool": "big", "gpusPerNode": 8}),
        ([EIGHT], {"pool": "big", "gpusPerNode": 4, "nodes": 2}),
        ([EIGHT], {"pool": "big", "gpusPerNode": 8, "nodes": 4, "minNodes": 1}),
        ([EIGHT], {"pool": "cpu", "gpusPerNode": 0, "cpu": "500"}),
    ],
    ids=["nodes-unknown", "two-pods-on-one-node", "fewest", "cpu-job"],
)
def test_nothing_is_said_where_nodes_suffice_or_are_not_known(nodes: list[Obj], compute: dict[str, Any]) -> None:
    """A warning that is always there is read by nobody."""
    decision = decide(*nodes, **compute)
    assert accepted(decision) == ("True", "Valid", "the job can be carried out")
    assert not [note for note in decision.events if note.warning]


async def test_nodes_are_listed_once_a_minute_for_all_jobs_with_gpus() -> None:
    """However many passes there are; jobs on CPUs never ask."""
    simulation = Simulation()
    simulation.api.insert(make_node(product=L4, gpus=4))
    simulation.add(make_job("cpu", compute={"pool": "cpu"}))
    await simulation.run(5)
    assert simulation.api.calls["list nodes"] == 0
    for number in range(20):
        simulation.add(make_job(f"gpu-{number}", compute={"gpuType": "l4", "gpusPerNode": 2}, output={"path": f"o{number}"}))  # fmt: skip
    simulation.machinery.training = [[Run(seconds=100)]]
    await simulation.run(50)
    assert simulation.api.calls["list nodes"] == 1
    assert {simulation.status(f"gpu-{number}")["pool"] for number in range(20)} == {"nvidia-l4"}
    await simulation.run(100)
    assert {simulation.status(f"gpu-{number}")["phase"] for number in range(20)} == {"Succeeded"}
    assert simulation.api.calls["list nodes"] == 2


async def test_a_job_is_warned_once_and_the_warning_goes_when_nodes_come() -> None:
    """The sentence is in the condition for as long as it is so; the Event comes once."""
    simulation = Simulation()
    simulation.api.insert(make_node(product=L4, gpus=1))
    simulation.machinery.preparing = [Run(seconds=300)]
    simulation.add(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}))
    await simulation.run(120)
    assert "no node of pool nvidia-l4" in condition(simulation)["message"]
    simulation.api.insert(make_node("better", product=L4, gpus=4))
    await simulation.run(90)
    assert condition(simulation)["message"] == "the job can be carried out"
    waiting = simulation.controller.recorder._waiting
    told = [waiting.get_nowait()["reason"] for _ in range(waiting.qsize())]
    assert told.count("WaitsForNodes") == 1


def condition(simulation: Simulation) -> dict[str, Any]:
    """The Accepted condition."""
    (found,) = [each for each in simulation.status()["conditions"] if each["type"] == "Accepted"]
    return dict(found)


async def test_a_job_that_asks_for_gpus_that_are_not_there_yet_goes_on_when_they_are() -> None:
    """It is refused with what there is, and looked at again."""
    simulation = Simulation()
    simulation.add(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}))
    await simulation.run(10)
    assert conditions(simulation.status())["Accepted"] == ("False", "UnknownPool")
    simulation.api.insert(make_node(product=L4, gpus=4))
    await simulation.until("Succeeded")
    assert simulation.status()["pool"] == "nvidia-l4"
    assert [each["pool"] for each in simulation.status()["attempts"]] == ["nvidia-l4"]


async def test_an_operator_that_may_not_list_nodes_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    """Declared pools work as ever; it is logged once."""
    simulation = Simulation(settings=make_settings(pools={"h100": Pool(), **make_settings().pools}))
    simulation.api.nodes_error = ApiError(403, "Forbidden", "nodes is forbidden")
    simulation.add(make_job(compute={"pool": "h100", "gpusPerNode": 2}))
    await simulation.until("Succeeded")
    await simulation.run(1)
    assert simulation.api.calls["list nodes"] >= 1
    assert len([each for each in caplog.records if "nodes may not be listed" in each.message]) == 1


async def test_nodes_stay_known_while_the_api_server_does_not_answer() -> None:
    """A passing error refuses no job; without any answer yet the pass is tried again."""
    simulation = Simulation()
    simulation.api.insert(make_node(product=L4, gpus=4))
    simulation.api.nodes_error = ApiError(500, "InternalError", "etcd is away")
    simulation.add(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}))
    await simulation.run(5)
    assert simulation.status() == {}
    simulation.api.nodes_error = None
    await simulation.run(5)
    assert conditions(simulation.status())["Accepted"] == ("True", "Valid")
    simulation.api.nodes_error = TimeoutError()
    await simulation.run(70)
    assert conditions(simulation.status())["Accepted"] == ("True", "Valid")


async def test_a_kind_of_gpu_stays_known_after_its_last_node_went() -> None:
    """Nodes are scaled down while a job prepares or queues: it waits for them, and its pool stays the same."""
    simulation = Simulation()
    node = simulation.api.insert(make_node(product=L4, gpus=4))
    simulation.machinery.preparing = [Run(300)]
    simulation.add(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}))
    await simulation.run(5)
    simulation.api.vanish(NODE, node)
    await simulation.run(70)
    simulation.edit(runPolicy={"maxRetries": 1})
    await simulation.run(5)
    assert (condition(simulation)["status"], simulation.status()["pool"]) == ("True", "nvidia-l4")
    assert "pool nvidia-l4 has 0 nodes now" in condition(simulation)["message"]


async def test_pods_that_were_given_back_are_not_made_elsewhere_when_their_pool_is_not_known_any_more() -> None:
    """A restarted operator does not know nodes that were scaled down: without them the pods would select none."""
    simulation = Simulation()
    node = simulation.api.insert(make_node(product=L4, gpus=4))
    simulation.api.unknown_kinds.add(PYTORCH_JOB)
    simulation.add(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}))
    await simulation.until("Starting")
    assert len(simulation.status()["attempts"]) == 1
    simulation.api.vanish(NODE, node)
    simulation.api.unknown_kinds.clear()
    simulation.start()
    await simulation.run(60)
    assert not simulation.api.of(PYTORCH_JOB)
    assert conditions(simulation.status())["Accepted"] == ("False", "UnknownPool")
    simulation.api.insert(make_node(product=L4, gpus=4))
    await simulation.until("Succeeded")
    (made,) = simulation.api.of(PYTORCH_JOB)
    spec = made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": L4}
