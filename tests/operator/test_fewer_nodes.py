"""A queue that admits fewer nodes than the job asks for: what is recorded, made and counted."""

from typing import Any

from anneal_api.jobfile import JobFile
from anneal_api.status import JobStatus
from anneal_operator import draft as drafts
from anneal_operator.kinds import JOB, PYTORCH_JOB, Obj
from anneal_operator.placement import Placement
from anneal_operator.plan import plan_of
from anneal_operator.reconcile import reconcile
from anneal_operator.steps.train import train
from anneal_operator.world import Children, Decision, World
from simulated.builders import at, make_job, make_pod, make_settings, stamp
from simulated.process import Simulation


async def admitted_with_one_node() -> World:
    """A job of two nodes with four GPUs each, its data ready, whose only attempt was recorded with one node."""
    simulation = Simulation()
    compute = {"nodes": 2, "gpusPerNode": 4, "pool": "h100"}
    simulation.add(make_job(compute=compute, training={"globalBatchSize": 32}))
    while simulation.status().get("dataset") is None:
        await simulation.run(1)
    job = simulation.job()
    world = World(
        {**job, "status": {**job["status"], "attempts": []}},
        make_settings(),
        at(100),
        Children(prepare_jobs=tuple(simulation.api.of(JOB))),
    )
    draft = drafts.begin(world)
    draft.plan = plan_of(job, world.settings)
    draft.placement = Placement(nodes=1)
    train(draft)
    return then(world, draft.decision())


def then(world: World, decision: Decision, **children: Any) -> World:
    """The world when a decision has been carried out."""
    status = decision.status or world.job["status"]
    known = Children(prepare_jobs=world.children.prepare_jobs, **children)
    return World({**world.job, "status": status}, world.settings, world.now, known)


def status_of(decision: Decision) -> JobStatus:
    """The status that was decided."""
    return JobStatus.model_validate(decision.status)


async def test_the_attempt_has_the_nodes_that_there_is_quota_for() -> None:
    """One node is a Master of its own, each process has twice the share, and the job file stays the same."""
    world = await admitted_with_one_node()
    attempt = JobStatus.model_validate(world.job["status"]).attempts[-1]
    assert (attempt.number, attempt.nodes, attempt.micro_batch_size) == (1, 1, 4)
    made = {obj["kind"]: obj for obj in reconcile(world).apply}
    ((replica, spec),) = made["PyTorchJob"]["spec"]["pytorchReplicaSpecs"].items()
    (container,) = spec["template"]["spec"]["containers"]
    assert (replica, spec["replicas"]) == ("Master", 1)
    assert {"name": "PET_NNODES", "value": "1"} in container["env"]
    assert JobFile.decode(made["ConfigMap"]["data"]["job.json"]).job.spec.compute.nodes == 2


async def test_what_is_counted_are_the_real_nodes() -> None:
    """GPUs and GPU-hours are those of the attempt, and one running pod is all of it."""
    world = await admitted_with_one_node()
    (obj,) = [each for each in reconcile(world).apply if each["kind"] == PYTORCH_JOB.name]
    made: Obj = {**obj, "metadata": {**obj["metadata"], "uid": "uid-pj", "creationTimestamp": stamp(100)}}
    running = reconcile(then(world, reconcile(world), pytorch_jobs=(made,), pods=(make_pod(started=100),)))
    status = status_of(running)
    assert (status.phase, status.gpus) == ("Running", 4)
    ended = make_pod(started=100, exit_code=0, ended=3700)
    status = status_of(reconcile(then(world, running, pytorch_jobs=(made,), pods=(ended,))))
    assert (status.phase, status.gpus, status.gpu_hours) == ("Succeeded", 4, 4.0)
    assert [attempt.nodes for attempt in status.attempts] == [1]
