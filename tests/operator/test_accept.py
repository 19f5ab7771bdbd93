"""What is refused before anything is made, and with which words."""

from typing import Any

import pytest

from anneal_api.conditions import ConditionType
from anneal_operator.kinds import CLAIM, FINE_TUNE_JOB, STORAGE_CLASS, Obj
from anneal_operator.reconcile import reconcile
from anneal_operator.world import StorageFacts, World
from simulated.builders import at, make_job, make_rlhf_job, make_settings
from simulated.process import Simulation, conditions


def accepted(job: Obj, **world: Any) -> dict[str, Any]:
    """The Accepted condition after one pass."""
    decision = reconcile(World(job, world.pop("settings", make_settings()), at(0), **world))
    assert decision.status is not None
    (found,) = [each for each in decision.status["conditions"] if each["type"] == ConditionType.ACCEPTED]
    if found["status"] == "False":
        assert not decision.apply
        assert {"Stalled": "True", "Ready": "False", "Reconciling": "False"}.items() <= {
            each["type"]: each["status"] for each in decision.status["conditions"]
        }.items()
    return dict(found)


def claim(*modes: str) -> StorageFacts:
    """The storage claim with these access modes."""
    return StorageFacts(known=True, claim={"spec": {"accessModes": list(modes)}})


NO_CLASS = StorageFacts(known=True, class_exists=False, classes=("slow", "fast"))
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, list[str]]] = {
    "unknown-pool": ({"compute": {"pool": "a100"}}, {}, "UnknownPool", ["'a100'", "cpu, h100", "spec.compute.pool"]),
    "gpus-on-cpu-pool": (
        {"compute": {"pool": "cpu", "gpusPerNode": 2}}, {}, "InvalidSpec", ["spec.compute.gpusPerNode: 2", "no GPUs"],
    ),
    "too-many-gpus": (
        {"compute": {"pool": "h100", "gpusPerNode": 16}, "training": {"globalBatchSize": 64}}, {}, "DoesNotFitPool",
        ["gpusPerNode: 16", "has 8", "more nodes"],
    ),
    "no-storage": (
        {"storage": None}, {"storage": NO_CLASS}, "NoStorage", ["claimName", "storage.defaultClass", "fast"],
    ),
    "not-shared": (
        {"compute": {"nodes": 2}}, {"storage": claim("ReadWriteOnce")}, "StorageNotShared",
        ["ReadWriteOnce", "2 nodes", "ReadWriteMany"],
    ),
    "own-claim-not-shared": (
        {"compute": {"nodes": 2}, "storage": None}, {"storage": StorageFacts(known=True)}, "StorageNotShared",
        ["ReadWriteOnce", "ReadWriteMany"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "world", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_field_and_the_remedy(
    spec: dict[str, Any], world: dict[str, Any], reason: str, words: list[str]
) -> None:
    """Nothing is made, the job is stalled, and the message can be acted on."""
    job = make_job(**spec)
    if job["spec"]["storage"] is None:
        del job["spec"]["storage"]
    found = accepted(job, **world)
    assert (found["status"], found["reason"]) == ("False", reason)
    assert not [word for word in words if word not in found["message"]], found["message"]


def test_every_problem_of_a_spec_is_told_at_once() -> None:
    """An older CRD may have let it through."""
    found = accepted(make_job(methood="sft", training={"epochs": -1, "globalBatchSize": "many"}))
    assert found["reason"] == "InvalidSpec"
    for words in ("spec.methood", "did you mean method", "spec.training.epochs", "spec.training.globalBatchSize"):
        assert words in found["message"]


def test_what_a_reward_cannot_mean_is_told_before_a_pod_is_made() -> None:
    """Each mistake by its field, though no rule of the API server can find them."""
    form = {"name": "form", "pattern": {"pattern": "(a"}}
    json = {"name": "json", "schema": {"jsonSchema": '{"type": 1}'}}
    found = accepted(make_rlhf_job("judged", source="volume://runs/model", method="grpo", rewards=[form, json]))
    assert found["reason"] == "InvalidSpec"
    assert "spec.rewards[0].pattern.pattern: '(a' is not a regular expression of Python" in found["message"]
    assert (
        "spec.rewards[1].schema.jsonSchema: '{\"type\": 1}' is not a JSON schema: type: 1 is none" in found["message"]
    )


@pytest.mark.parametrize(
    "world",
    [{"storage": claim("ReadWriteMany")}, {"storage": StorageFacts(known=True)}],
    ids=["shared", "claim-not-there-yet"],
)
def test_several_nodes_are_accepted_on_shared_storage(world: dict[str, Any]) -> None:
    """A claim that does not exist yet is waited for, not refused."""
    assert accepted(make_job(compute={"nodes": 2}), **world)["status"] == "True"


def test_a_pool_called_default_is_used_by_jobs_that_name_none() -> None:
    """And its limits hold for them."""
    settings = make_settings()
    pools = {**settings.pools, "default": settings.pools["cpu"]}
    settings = settings.model_copy(update={"pools": pools})
    found = accepted(make_job(compute={"gpusPerNode": 1}), settings=settings)
    assert "'default' has no GPUs" in found["message"]


async def test_the_later_of_two_jobs_with_one_output_is_refused_until_the_other_is_gone() -> None:
    """The message names the other one; deleting it is enough."""
    simulation = Simulation()
    simulation.add(make_job("first", created=0, output={"path": "results/bot"}))
    simulation.add(make_job("second", created=5, output={"path": "results/bot/v2"}))
    await simulation.run(60)
    assert simulation.status("first")["phase"] == "Succeeded"
    second = simulation.status("second")
    assert conditions(second)["Accepted"] == ("False", "OutputInUse")
    assert "job first" in second["message"]
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("first"))
    await simulation.until("Succeeded", "second")


@pytest.mark.parametrize("uid", ["0", "z"], ids=["smaller", "larger"])
async def test_who_has_begun_is_not_turned_out_by_a_job_of_the_same_second(uid: str) -> None:
    """Creation times are whole seconds: the first that was accepted keeps the output, whatever their UIDs are."""
    simulation = Simulation()
    simulation.add(make_job("first", uid="m", output={"path": "results/bot"}))
    await simulation.run(3)
    assert conditions(simulation.status("first"))["Accepted"] == ("True", "Valid")
    simulation.add(make_job("second", uid=uid, output={"path": "results/bot"}))
    await simulation.run(60)
    assert simulation.status("first")["phase"] == "Succeeded"
    assert conditions(simulation.status("second"))["Accepted"] == ("False", "OutputInUse")
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("first"))
    await simulation.until("Succeeded", "second")


async def test_two_jobs_on_different_claims_may_use_one_path() -> None:
    """The path is below the claim."""
    simulation = Simulation()
    simulation.add(make_job("first", output={"path": "out"}))
    simulation.add(make_job("second", output={"path": "out"}, storage={"volume": {"claimName": "other"}}))
    await simulation.run(60)
    assert simulation.status("second")["phase"] == "Succeeded"


@pytest.mark.parametrize("default", ["true", "false"])
async def test_a_claim_is_made_only_where_a_default_class_can_serve_it(default: str) -> None:
    """It has no owner, so that results outlive the job; without a class the job is refused until there is one."""
    simulation = Simulation()
    annotations = {"storageclass.kubernetes.io/is-default-class": default}
    class_ = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "x", "annotations": annotations},
    }
    simulation.api.insert(class_)
    job = make_job()
    del job["spec"]["storage"]
    simulation.add(job)
    await simulation.run(60)
    assert len(simulation.api.of(STORAGE_CLASS)) == 1
    if default == "false":
        assert conditions(simulation.status())["Accepted"] == ("False", "NoStorage")
        simulation.api.update({**class_, "metadata": {**class_["metadata"], "annotations": {**annotations, **TRUE}}})
        await simulation.run(90)
    assert simulation.status()["phase"] == "Succeeded"
    (made,) = simulation.api.of(CLAIM)
    assert made["metadata"]["name"] == simulation.status()["children"]["claim"]
    assert "ownerReferences" not in made["metadata"]


TRUE = {"storageclass.kubernetes.io/is-default-class": "true"}


async def test_a_running_attempt_is_left_alone_when_its_pool_goes() -> None:
    """Changing the chart's values does not kill jobs."""
    simulation = Simulation()
    simulation.add(make_job(compute={"pool": "cpu"}))
    await simulation.until("Running")
    simulation.settings = make_settings(pools={})
    simulation.start()
    await simulation.until("Succeeded")
