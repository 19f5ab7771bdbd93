"""Jobs in queues of the real Kueue: who may train when, and what a job says while it waits.

Pods ask for GPUs that the node only says it has, so quotas, the scheduler and the kubelet all count them; they train on
the CPU, where the same steps give the same losses to the last bit. The tests share a namespace, whose data is prepared
once; each has queues of its own. Not here: what comes, goes or is killed (`test_queue_faults`).
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e import queues
from e2e.conftest import Team
from e2e.harness import JOB, Kube, KubectlError, condition
from e2e.queues import queued_job
from e2e.test_cli import anneal
from e2e.test_faults import running, trainer_pods

pytestmark = pytest.mark.e2e

# Seconds of training: long enough to see its first steps and do something about it.
LONG = {"maxSteps": 300}
EIGHT = {"globalBatchSize": 8, "maxSteps": 8}


@pytest.fixture
def kube(team: Team) -> Kube:
    """The team's namespace."""
    return team.kube


@pytest.fixture(autouse=True)
def tidy(kube: Kube) -> Iterator[None]:
    """No job of one test waits, or holds a GPU, in the next."""
    yield
    kube.run("delete", JOB, "--all", "--timeout=30s")


def test_a_preempted_job_goes_on_where_it_was_and_computes_the_same(kube: Kube, team: Team) -> None:
    """It gives its GPU up at once, says for whom and what it waits for, and ends with the losses of a calm run."""
    name = kube.namespace
    lender, borrower = f"{name}-lender", f"{name}-borrower"
    made = (
        queues.flavor(name),
        queues.cluster_queue(lender, {name: 1}, cohort=name, preemption={"reclaimWithinCohort": "LowerPriority"}),
        queues.cluster_queue(borrower, {name: 1}, cohort=name),
        queues.local_queue("lender", lender),
        queues.local_queue("borrower", borrower),
        *(queues.priority_class(f"{name}-{word}", value) for word, value in (("low", 10), ("mid", 50), ("high", 90))),
    )
    with queues.applied(kube, *made):
        kube.apply(queued_job("calm", "borrower", training=LONG, priorityClass=f"{name}-mid"))
        kube.apply(queued_job("low", "borrower", training=LONG, priorityClass=f"{name}-low"))
        kube.until_step("low", 15)
        kube.apply(queued_job("high", "lender", training={"maxSteps": 60}, priorityClass=f"{name}-high"))
        seconds_until_its_pods_are_gone(kube, "low")
        kube.until("low waits again and says why", lambda: waits_again(kube.job("low")), seconds=60, name="low")
        high = kube.until_phase("high", "Succeeded")
        low, calm = kube.until_phase("low", "Succeeded"), kube.until_phase("calm", "Succeeded")
    first, second = low["status"]["attempts"]
    assert (first["outcome"], first.get("counted", False)) == ("Evicted", False)
    assert "preempted by job high" in first["message"]
    assert second["resumedFromStep"] == first["lastStep"] > 0
    assert second["startTime"] >= first["endTime"]
    assert len(high["status"]["attempts"]) == len(calm["status"]["attempts"]) == 1
    assert team.storage.losses(low) == team.storage.losses(calm)


def seconds_until_its_pods_are_gone(kube: Kube, name: str) -> None:
    """Waits for the eviction, then for the pods; prints what it measured."""
    job = kube.job(name)
    workload = queues.workload_of(kube, name)["metadata"]["name"]
    kube.until(f"{name} is evicted", lambda: queues.is_true(kube, workload, "Evicted"), seconds=60, name=name)
    begun = time.monotonic()
    kube.until(f"the pods of {name} are gone", lambda: not trainer_pods(kube, job), seconds=120, name=name)
    print(f"\nGPUs were free {time.monotonic() - begun:.1f} s after the eviction of {name}")


def waits_again(job: dict[str, Any]) -> bool:
    """Queued, with the reason in words."""
    words = "waits in queue borrower since", "place 1", "insufficient unused quota for nvidia.com/gpu"
    said = condition(job, "Admitted").get("message", "")
    return (
        job["status"]["phase"] == "Queued" and all(word in said for word in words) and said == job["status"]["message"]
    )


@pytest.fixture(scope="module")
def rivals(team: Team) -> list[dict[str, Any]]:
    """Two jobs of two nodes that each need every GPU, applied at once into one queue; both are over."""
    kube, names = team.kube, ["one", "other"]
    with queues.team_queue(kube, "all", 2):
        kube.apply(*(queued_job(each, "all", training=EIGHT, compute={"nodes": 2}) for each in names))
        jobs = [kube.until_phase(each, "Succeeded", seconds=300) for each in names]
    return sorted(jobs, key=lambda job: job["status"]["attempts"][0]["startTime"])


def test_two_jobs_that_need_every_gpu_take_turns(rivals: list[dict[str, Any]]) -> None:
    """Admitted whole, neither holds half of what the other one waits for: one trains after the other, at once."""
    (first,), (second,) = (job["status"]["attempts"] for job in rivals)
    assert first["outcome"] == second["outcome"] == "Succeeded"
    assert second["startTime"] >= first["endTime"]


def test_with_quota_for_one_node_a_job_of_two_trains_the_same_on_one(
    kube: Kube, team: Team, rivals: list[dict[str, Any]]
) -> None:
    """The global batch and the number of steps stay, so the losses are those of two nodes."""
    with queues.team_queue(kube, "half", 1):
        kube.apply(queued_job("half", "half", training=EIGHT, compute={"nodes": 2, "minNodes": 1}))
        job = kube.until_phase("half", "Succeeded")
    (attempt,) = job["status"]["attempts"]
    assert attempt["nodes"] == 1
    (pytorch_job,) = kube.children("pytorchjobs", job)
    assert list(pytorch_job["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert "1 of 2 nodes" in condition(job, "Admitted")["message"]
    whole, half = team.storage.losses(rivals[0]), team.storage.losses(job)
    assert len(half) == len(whole) == EIGHT["maxSteps"]
    assert half == pytest.approx(whole, abs=1e-4)


def test_two_pod_sets_are_admitted_together_or_not_at_all(kube: Kube) -> None:
    """Quota that fits one side alone is not given to it; with enough for both, both have it."""
    name = f"{kube.namespace}-both"
    with queues.team_queue(kube, "both", 2):
        kube.apply(queues.workload("both", queue="both", gpus={"trainer": 2, "rollout": 1}))
        waits = kube.until("Kueue says what is short", lambda: not_reserved(kube, "both"), seconds=60)
        assert "rollout" in waits["message"]
        assert not queues.assignments(kube, "both")
        kube.apply(queues.cluster_queue(name, {name: 3}, preemption=queues.PREEMPT))
        kube.until("both sides are admitted", lambda: queues.is_true(kube, "both", "Admitted"), seconds=60)
        assert {each["name"] for each in queues.assignments(kube, "both")} == {"trainer", "rollout"}
        kube.run("delete", queues.WORKLOADS, "both")


def not_reserved(kube: Kube, name: str) -> dict[str, Any]:
    """The condition that says that no quota is reserved, once Kueue has looked."""
    said = condition(kube.get(queues.WORKLOADS, name) or {}, "QuotaReserved")
    return said if said.get("status") == "False" else {}


def test_a_waiting_job_says_what_for_and_who_is_ahead(kube: Kube) -> None:
    """Its place, the job before it and what is short, in status, in kubectl's columns and in `anneal status`."""
    with queues.team_queue(kube, "busy", 2), queues.taken(kube, "holder", queue="busy", gpus=2):
        kube.apply(queued_job("ahead", "busy"))
        kube.until_phase("ahead", "Queued")
        kube.apply(queued_job("behind", "busy"))
        job = kube.until("behind knows who is ahead", lambda: second_in_line(kube.job("behind")), name="behind")
        since = job["status"]["queue"]["since"]
        assert job["status"]["phase"] == "Queued"
        assert job["status"]["message"].startswith(f"waits in queue busy since {since}, place 2 behind ahead: ")
        assert "insufficient unused quota for nvidia.com/gpu" in kube.job("ahead")["status"]["message"]
        assert "Queued" in kube.run("get", "ftj", "behind").stdout
        wide = kube.run("get", "ftj", "behind", "-o", "wide").stdout
        assert "busy" in wide
        assert "place 2 behind ahead" in wide
        shown = anneal(kube, "status", "behind")
        assert "Queued" in shown
        assert "behind ahead" in shown
        assert not any(trainer_pods(kube, kube.job(each)) for each in ("ahead", "behind"))


def second_in_line(job: dict[str, Any]) -> dict[str, Any] | None:
    """The job, once its status tells that it is second."""
    queue = job.get("status", {}).get("queue") or {}
    return job if queue.get("position") == 2 and queue.get("ahead") == ["ahead"] else None


def test_a_job_may_change_its_queue_until_quota_is_reserved(kube: Kube) -> None:
    """The Workload moves and stays the same object; afterwards the refusal says how to move all the same."""
    with (
        queues.team_queue(kube, "full", 1),
        queues.team_queue(kube, "free", 1),
        queues.taken(kube, "holder", queue="full", gpus=1),
    ):
        kube.apply(queued_job("mover", "full", training=LONG))
        kube.until_phase("mover", "Queued")
        before = kube.until("its Workload waits", lambda: queues.workload_of(kube, "mover"), seconds=30, name="mover")
        kube.patch("mover", {"queue": "free"})
        kube.until("it is admitted there", lambda: quota_reserved(kube.job("mover")), seconds=60, name="mover")
        after = queues.workload_of(kube, "mover")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert (before["spec"]["queueName"], after["spec"]["queueName"]) == ("full", "free")
        with pytest.raises(KubectlError, match=r"set runPolicy\.suspend to true first, which gives the quota back"):
            kube.patch("mover", {"queue": "full"})
        kube.run("delete", JOB, "mover", "--timeout=30s")


def quota_reserved(job: dict[str, Any]) -> bool:
    """Whether status knows of quota that is reserved."""
    return bool((job.get("status", {}).get("queue") or {}).get("quotaReserved"))


def test_a_suspended_job_gives_its_quota_back_and_queues_again(kube: Kube) -> None:
    """Somebody else has the quota meanwhile; resuming is a new wait, and the training goes on at its step."""
    with queues.team_queue(kube, "shared", 1):
        kube.apply(queued_job("pause", "shared", training=LONG))
        kube.until_step("pause", 5)
        kube.patch("pause", {"runPolicy": {"suspend": True}})
        with queues.taken(kube, "other", queue="shared", gpus=1):
            kube.until_phase("pause", "Suspended")
            kube.patch("pause", {"runPolicy": {"suspend": False}})
            job = kube.until_phase("pause", "Queued")
            assert not running(kube, job)
        job = kube.until_phase("pause", "Succeeded")
    first, second = job["status"]["attempts"]
    assert (first["outcome"], first.get("counted", False)) == ("Suspended", False)
    assert second["resumedFromStep"] == first["lastStep"]


def test_what_a_queue_cannot_serve_is_refused_before_anything_is_made(kube: Kube) -> None:
    """Unknown queues and priorities, and queues without GPUs: each with what there is instead."""
    name = f"{kube.namespace}-cpus"
    made = (
        queues.flavor(name),
        queues.cluster_queue(name, {name: 4}, resource="cpu"),
        queues.local_queue("cpus", name),
        queues.local_queue("astray", "nowhere"),
        queues.priority_class(f"{name}-only", 1),
    )
    cases = {
        "unknown": ({"queue": "nobody"}, "has no LocalQueue 'nobody'; its queues are: astray, cpus"),
        "astray": ({"queue": "astray"}, "leads to ClusterQueue 'nowhere', which does not exist"),
        "gpuless": ({"queue": "cpus"}, f"ClusterQueue {name} behind queue 'cpus' has quota for cpu, memory"),
        "urgent": (
            {"queue": "cpus", "compute": {"gpusPerNode": 0}, "priorityClass": "urgent"},
            f"has no WorkloadPriorityClass 'urgent'; it has: {name}-only",
        ),
    }
    with queues.applied(kube, *made):
        kube.apply(*(queued_job(each, **spec) for each, (spec, _) in cases.items()))
        for each, (_, words) in cases.items():
            job = kube.until_phase(each, "Pending", seconds=30)
            assert words in job["status"]["message"]
            made_of_it = [kube.children(kind, job) for kind in ("jobs", "pytorchjobs", "configmaps", queues.WORKLOADS)]
            assert not any(made_of_it)
