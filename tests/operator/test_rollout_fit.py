"""What a job's servers need of pools, storage and GPUs is refused with the numbers before it queues, or only said."""

from typing import Any

import pytest

from anneal_api import Outcome
from anneal_api.conditions import ConditionType
from anneal_api.modelrecord import record_of
from anneal_api.progress import TerminationMessage
from anneal_operator.kinds import DEPLOYMENT, PYTORCH_JOB, Obj
from anneal_operator.pools import discover
from anneal_operator.reconcile import reconcile
from anneal_operator.settings import Pool
from anneal_operator.world import Decision, StorageFacts, World
from api.llama import shape
from simulated.builders import at, make_grpo_job, make_node, make_settings
from simulated.machinery import DATASET, Run
from simulated.process import Simulation, conditions

L4 = "NVIDIA-L4"
POOLS = {
    "big": {"gpusPerNode": 8, "nodes": 2, "memoryGiB": 80, "nodeSelector": {"gpu": "h100"}},
    "far": {"gpusPerNode": 4, "nodes": 1, "memoryGiB": 0.5, "nodeSelector": {"gpu": "l4"}},
    "open": {"memoryGiB": 80},
}


def job(rollout: dict[str, Any], *, gpus: int = 8, pool: str = "big", **spec: Any) -> Obj:
    """A job of one node with GPUs, and servers."""
    compute = {"pool": pool, "gpusPerNode": gpus, "cpu": "1", "memory": "1Gi", **spec.pop("compute", {})}
    return make_grpo_job(compute=compute, rollout=rollout, training={"globalBatchSize": 1280}, **spec)


def accepted(made: Obj, *nodes: Obj, claim: str = "ReadWriteMany") -> tuple[str, str, str]:
    """Status, reason and message of Accepted, after one pass."""
    declared = {name: Pool.model_validate(each) for name, each in POOLS.items()}
    facts = StorageFacts(known=True, claim={"spec": {"accessModes": [claim]}})
    world = World(made, make_settings(pools=declared), at(0), storage=facts, node_groups=discover(nodes, declared))
    decision: Decision = reconcile(world)
    assert decision.status is not None
    found = {each["type"]: each for each in decision.status["conditions"]}[ConditionType.ACCEPTED]
    return found["status"], found["reason"], found["message"]


TOO_MUCH: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "together": (
        {"replicas": 3, "tensorParallel": 4}, "DoesNotFitPool",
        ["spec.rollout.replicas: 1 training pod of 8 GPUs and 3 servers of 4 GPUs", "2 nodes of 8 GPUs", "mode: colocate"],
    ),
    "a server on no node": (
        {"tensorParallel": 16}, "DoesNotFitPool", ["spec.rollout.tensorParallel: 16", "a node of pool 'big' has 8", "replicas"],
    ),
    "servers in their own pool": (
        {"pool": "far", "replicas": 5}, "DoesNotFitPool", ["spec.rollout.replicas: 5", "pool 'far' has 1 node", "4 pods of 1 GPU"],
    ),
    "unknown pool": ({"pool": "fars"}, "UnknownPool", ["spec.rollout.pool: 'fars'", "did you mean far"]),
    "unknown type": ({"gpuType": "b300"}, "UnknownPool", ["spec.rollout.gpuType: 'b300'"]),
}  # fmt: skip


@pytest.mark.parametrize(("rollout", "reason", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_pools_can_never_have_is_refused_with_the_numbers(
    rollout: dict[str, Any], reason: str, words: list[str]
) -> None:
    """Of the servers by the names of their own fields, and of both sides where they share a pool."""
    status, why, message = accepted(job(rollout))
    assert (status, why) == ("False", reason)
    assert all(each in message for each in words), message


@pytest.mark.parametrize(
    "rollout",
    [{"replicas": 2, "tensorParallel": 4}, {"replicas": 4, "pool": "far"}, {"replicas": 9, "gpus": 0}],
    ids=["as much as there is", "another pool", "CPUs"],
)
def test_what_pools_have_is_accepted(rollout: dict[str, Any]) -> None:
    """To the last GPU."""
    assert accepted(job(rollout))[0] == "True"


def test_a_gap_on_every_node_is_no_room() -> None:
    """Two training pods of five GPUs leave three on each node: six are not enough for a server of four."""
    spread = {"nodes": 2}
    assert accepted(job({"tensorParallel": 4}, gpus=5, compute=spread))[1] == "DoesNotFitPool"
    assert accepted(job({"tensorParallel": 2}, gpus=5, compute=spread))[0] == "True"


def test_nodes_that_servers_lack_now_are_said_and_waited_for() -> None:
    """They may be scaled to zero."""
    status, _, message = accepted(job({"gpuType": "l4", "tensorParallel": 2}), make_node(product=L4, gpus=1))
    assert status == "True"
    assert "spec.rollout.tensorParallel is 2, and no node of pool nvidia-l4 has more than 1 GPU now" in message


@pytest.mark.parametrize(
    ("rollout", "claim", "words"),
    [
        ({"pool": "far"}, "ReadWriteOnce", "the trainer and its servers, which cannot be on one node"),
        ({"tensorParallel": 2}, "ReadWriteOnce", "the trainer and its servers, which cannot be on one node"),
        ({"gpus": 0}, "ReadWriteOncePod", "the trainer and its servers must share it"),
    ],
    ids=["other nodes", "more than a node has", "one pod"],
)
def test_storage_that_one_node_can_use_is_not_enough_for_two(rollout: dict[str, Any], claim: str, words: str) -> None:
    """As far as pools tell that no node has room for all."""
    status, reason, message = accepted(job(rollout), claim=claim)
    assert (status, reason) == ("False", "StorageNotShared")
    assert words in message
    assert "ReadWriteMany" in message or "ReadWriteOnce" in message


def test_storage_that_may_do_is_warned_of() -> None:
    """One node may have room for both: nobody can tell."""
    status, _, message = accepted(job({}, gpus=4), claim="ReadWriteOnce")
    assert status == "True"
    assert "the trainer and its servers must find room on one node, or use a claim with ReadWriteMany" in message


def simulated() -> Simulation:
    """A cluster with these pools, whose preparation tells the shape of the model."""
    simulation = Simulation(
        settings=make_settings(pools={name: Pool.model_validate(each) for name, each in POOLS.items()})
    )
    record = record_of(shape())
    assert record is not None
    words = TerminationMessage(outcome=Outcome.SUCCEEDED, message="9 rows", dataset=DATASET, models=[record])
    simulation.machinery.preparing = [Run(5, 0, words)]
    return simulation


async def test_a_model_that_servers_cannot_share_fails_before_it_queues() -> None:
    """Also where memory is only warned of; a corrected manifest goes on."""
    simulation = simulated()
    simulation.add(job({"tensorParallel": 3}, gpus=1, compute={"memoryFit": "warn"}))
    status = await simulation.until("Failed")
    assert conditions(status)["Failed"] == ("True", "InvalidSpec")
    assert status["message"] == (
        "spec.rollout.tensorParallel: 3 does not divide the model's 8 attention heads; "
        "this model can be shared by 1, 2, 4, 8"
    )
    assert not simulation.api.of(DEPLOYMENT)
    assert not simulation.api.of(PYTORCH_JOB)
    simulation.edit(rollout={"tensorParallel": 2})
    await simulation.until("Succeeded")


async def test_servers_that_cannot_fit_their_gpus_fail_before_they_queue() -> None:
    """Though the trainer fits its own; with what would help."""
    simulation = simulated()
    simulation.add(job({"pool": "far"}, gpus=1))
    status = await simulation.until("Failed")
    assert conditions(status)["Failed"] == ("True", "MemoryDoesNotFit")
    assert "a vLLM server needs 0.6 GiB of a GPU at least (weights 0.1" in status["message"]
    assert "that rollout.memoryUtilization 0.9 gives it (pool far)" in status["message"]
    assert "or name GPUs with more memory in rollout.pool or gpuType" in status["message"]
    assert status["memory"]["fits"] is False
    simulation.edit(compute={"pool": "big", "gpusPerNode": 1, "memoryFit": "warn"})
    status = await simulation.until("Succeeded")
    assert status["memory"]["fits"] is False


async def test_servers_that_fit_say_for_how_many_sequences() -> None:
    """In the sentence about memory, behind the trainer's."""
    simulation = simulated()
    simulation.add(job({}, gpus=1))
    status = await simulation.until("Succeeded")
    assert "; a vLLM server has room for" in status["memory"]["message"]


def test_fewer_nodes_keep_whole_groups_of_answers() -> None:
    """A batch of 64 answers in groups of 8: three nodes could share it as numbers, and not as groups."""
    from anneal_operator.plan import plan_of

    made = job({}, gpus=1, compute={"nodes": 4, "minNodes": 1}, queue="team-a")
    made["spec"]["training"] = {"globalBatchSize": 96}
    assert plan_of(made, make_settings(pools={"big": Pool()})).node_counts == (1, 2, 3, 4)
    made["spec"]["training"] = {"globalBatchSize": 32}
    made["spec"]["compute"]["nodes"] = 4
    assert plan_of(made, make_settings(pools={"big": Pool()})).node_counts == (1, 2, 4)
