"""Whatever is killed, the job ends as it should, nothing is made twice, and status says what happened."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.harness import JOB, Kube, Storage, condition, small_job

pytestmark = pytest.mark.e2e

# Long enough that on a fast machine too it still trains when a test has seen its 15th step.
STEPS = 1000
LONG = {"maxSteps": STEPS}
OFTEN = {"everySteps": 10, "keep": 2}


def trainer_pods(kube: Kube, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The training pods of a job that are there now."""
    return kube.objects("pods", f"anneal.dev/owner-uid={job['metadata']['uid']},anneal.dev/role=trainer")


def test_suspending_saves_and_resuming_goes_on(kube: Kube) -> None:
    """Every pod goes, a checkpoint stays, and the next attempt starts at its step without using up a retry."""
    kube.apply(small_job("pause", training=LONG, runPolicy={"suspend": False}))
    kube.until_step("pause", 5)
    kube.patch("pause", {"runPolicy": {"suspend": True}})
    job = kube.until_phase("pause", "Suspended")
    kube.until("its pods are gone", lambda: not trainer_pods(kube, job), seconds=150, name="pause")
    job = kube.job("pause")
    (attempt,) = job["status"]["attempts"]
    assert attempt["outcome"] == "Suspended"
    assert not attempt.get("counted")
    assert condition(job, "Running")["reason"] == "Suspended"
    assert condition(job, "Stalled")["status"] == "False"

    kube.patch("pause", {"runPolicy": {"suspend": False}})
    job = kube.until_phase("pause", "Succeeded", seconds=400)
    second = job["status"]["attempts"][1]
    assert second["resumedFromStep"] >= 5
    assert second["outcome"] == "Succeeded"
    assert job["status"]["progress"]["step"] == STEPS


def test_a_killed_pod_costs_one_retry_and_no_finished_work(
    kube: Kube, kill_container: Callable[[str, str], None]
) -> None:
    """SIGKILL in the middle: the next attempt resumes from the last checkpoint."""
    kube.apply(small_job("struck", training=LONG, checkpoint=OFTEN))
    job = kube.until_step("struck", 15)
    (pod,) = trainer_pods(kube, job)
    kill_container(kube.namespace, pod["metadata"]["name"])
    job = kube.until_phase("struck", "Succeeded", seconds=400)
    first, second = job["status"]["attempts"]
    assert first["outcome"] == "Infrastructure"
    assert first["counted"]
    assert first["exitCode"] == 137
    assert second["resumedFromStep"] >= 10
    assert second["outcome"] == "Succeeded"


def test_an_eviction_is_not_counted_against_the_job(kube: Kube) -> None:
    """The DisruptionTarget condition tells an eviction from a failure, even with no retries left."""
    kube.apply(small_job("evicted", training=LONG, checkpoint=OFTEN, runPolicy={"maxRetries": 0}))
    job = kube.until_step("evicted", 15)
    (pod,) = trainer_pods(kube, job)
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": kube.namespace}}
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{name}/eviction"
    kube.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    job = kube.until_phase("evicted", "Succeeded", seconds=400)
    first, second = job["status"]["attempts"]
    assert first["outcome"] == "Preempted"
    assert not first.get("counted")
    assert second["resumedFromStep"] >= 10


def test_a_deadline_ends_the_job(kube: Kube) -> None:
    """The message says which field to change, and the pods are gone."""
    kube.apply(small_job("late", training={"maxSteps": 100000}, runPolicy={"activeDeadlineSeconds": 5}))
    job = kube.until_phase("late", "Failed")
    assert condition(job, "Failed")["reason"] == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in job["status"]["message"]
    assert condition(job, "Stalled")["status"] == "True"
    kube.until("its pods have ended", lambda: not running(kube, job), seconds=150, name="late")


def running(kube: Kube, job: dict[str, Any]) -> list[str]:
    """Names of pods that still hold resources."""
    pods = trainer_pods(kube, job)
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in {"Pending", "Running"}]


@pytest.mark.parametrize("moment", ["preparing", "running"])
def test_a_killed_operator_makes_nothing_twice(kube: Kube, kill_operator: Callable[[], None], moment: str) -> None:
    """SIGKILL while the job prepares or runs: the same end, one prepare Job, one PyTorchJob."""
    kube.apply(small_job(moment, training={"maxSteps": 150}))
    if moment == "preparing":
        kube.until_phase(moment, "Preparing")
    else:
        kube.until_step(moment, 1)
    uids = child_uids(kube, moment)
    kill_operator()
    job = kube.until_phase(moment, "Succeeded", seconds=400)
    assert len(job["status"]["attempts"]) == 1
    assert uids <= child_uids(kube, moment)
    assert len(kube.children("pytorchjobs", job)) == len(kube.children("jobs", job)) == 1


def child_uids(kube: Kube, name: str) -> set[str]:
    """UIDs of the prepare Job and PyTorchJobs of a job."""
    job = kube.job(name)
    return {child["metadata"]["uid"] for kind in ("jobs", "pytorchjobs") for child in kube.children(kind, job)}


def test_deleting_while_the_operator_is_down_needs_no_operator(kube: Kube, operator_down: Callable[[], Any]) -> None:
    """No finalizer: the object goes at once, its children by garbage collection."""
    kube.apply(small_job("orphan", training=LONG))
    job = kube.until_step("orphan", 1)
    with operator_down():
        kube.run("delete", JOB, "orphan", "--timeout=10s")
        assert kube.get(JOB, "orphan") is None
        kube.until("children are collected", lambda: not kube.children("pytorchjobs", job), seconds=60)


def test_a_job_created_again_shares_no_child(kube: Kube, runs: Storage) -> None:
    """The same name with another UID starts from nothing, even while the old pods are still ending."""
    kube.apply(small_job("phoenix", training=LONG, checkpoint=OFTEN))
    old = kube.until_step("phoenix", 15)
    kube.run("delete", JOB, "phoenix", "--timeout=30s")
    kube.apply(small_job("phoenix", training={"maxSteps": 3}))
    new = kube.until_phase("phoenix", "Succeeded", seconds=400)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["status"]["children"]["pytorchJob"] != old["status"]["children"]["pytorchJob"]
    assert not new["status"]["attempts"][0].get("resumedFromStep")
    assert new["status"]["progress"]["step"] == 3
    assert len(list((runs.directory / "runs").glob("phoenix-*"))) == 2
