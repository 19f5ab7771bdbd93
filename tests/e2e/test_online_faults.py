"""Servers, trainers and the operator are killed under an online job, or it is stopped: it ends as it should.

Nothing is left then that holds a GPU. Several blows fall on one job where each is waited for, since a server takes a
minute to start.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import RLHF, Kube, Storage, condition
from e2e.online import HIGH, SERVERS, SMALL, at_the_end, is_ready, online_job, servers, starts
from e2e.test_faults import trainer_pods

pytestmark = pytest.mark.e2e

LONG = {"maxSteps": 120}
OFTEN = {"everySteps": 5, "keep": 2}
BUGGY = """
calls = 0

def judged(prompts, completions, **columns):
    global calls
    calls += 1
    if calls > 2:
        return [float(completions[0].tokens) for _ in prompts]
    return [float(text.islower()) for text in completions]
"""


@pytest.fixture
def online(kube: Kube, runs: Storage, taught: Path, vllm_image: str) -> Kube:
    """Kubectl in a namespace whose claim has the taught model and its prompts; the servers' image is on the node."""
    del vllm_image
    runs.seed(taught)
    return replace(kube, jobs=RLHF)


def test_whatever_is_killed_the_job_goes_on(
    online: Kube, runs: Storage, kill_container: Callable[..., None], kill_operator: Callable[[], None]
) -> None:
    """SIGKILL to vLLM, the operator and the trainer, one after the other: a retry is counted for the last one alone."""
    online.apply(online_job("struck", SERVERS, training=LONG, checkpoint=OFTEN))
    job = online.until_step("struck", 6, seconds=500)
    (server,) = servers(online, job)

    kill_container(online.namespace, server["metadata"]["name"], "vllm")
    online.until("its absence is told", lambda: degraded(online.job("struck")), seconds=60, name="struck")
    struck = online.job("struck")["status"]["progress"]["step"]
    online.until("vLLM is back", lambda: back(online, job), seconds=300, name="struck")
    job = online.until_step("struck", struck + 5, seconds=200)
    assert len(job["status"]["attempts"]) == 1
    assert job["status"]["rollout"]["restarts"] == 1

    kill_operator()
    online.until_step("struck", job["status"]["progress"]["step"] + 5, seconds=200)
    assert [pod["metadata"]["uid"] for pod in servers(online, job)] == [server["metadata"]["uid"]]

    (trainer,) = trainer_pods(online, job)
    kill_container(online.namespace, trainer["metadata"]["name"])
    job = online.until_phase("struck", "Succeeded", seconds=600)
    first, second = job["status"]["attempts"]
    assert (first["outcome"], first["exitCode"], first["counted"]) == ("Infrastructure", 137, True)
    assert second["resumedFromStep"] >= 10
    assert at_the_end(runs.measured(job, "reward")) > HIGH
    online.until("servers are taken down", lambda: not servers(online, job), seconds=120, name="struck")


def degraded(job: dict[str, Any]) -> bool:
    """Whether the status says that a server is missing while training waits for it."""
    said = condition(job, "RolloutReady")
    return (said["status"], said["reason"]) == ("False", "RolloutDegraded") and job["status"]["phase"] == "Running"


def back(kube: Kube, job: dict[str, Any]) -> bool:
    """Whether the same pod has a vLLM again."""
    return any(is_ready(pod) and starts(pod, "vllm") == 1 for pod in servers(kube, job))


def test_suspending_frees_both_sides_and_deleting_leaves_the_claim(online: Kube, runs: Storage) -> None:
    """Neither trainer nor server is left while it is suspended; both come again, and go with the job."""
    online.apply(online_job("pause", SERVERS, training=LONG, checkpoint=OFTEN))
    online.until_step("pause", 6, seconds=500)
    online.patch("pause", {"runPolicy": {"suspend": True}})
    job = online.until_phase("pause", "Suspended", seconds=200)
    online.until("no pod is left", lambda: not pods(online, job), seconds=200, name="pause")
    assert not online.children("deployments", job)

    online.patch("pause", {"runPolicy": {"suspend": False}})
    online.until_phase("pause", "Running", seconds=400)
    job = online.until("the second attempt trains", lambda: resumed(online.job("pause")), seconds=300, name="pause")

    online.run("delete", RLHF, "pause", "--timeout=30s")
    online.until("all of it is gone", lambda: not left(online, job), seconds=200)
    assert online.get("pvc", "runs") is not None
    assert list((runs.directory / "runs").glob("pause-*/checkpoints/*"))


def pods(kube: Kube, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods of both sides."""
    return trainer_pods(kube, job) + servers(kube, job)


def resumed(job: dict[str, Any]) -> dict[str, Any] | None:
    """The job, once its second attempt has taken a step."""
    second = job["status"]["attempts"][1:]
    going = second and (job["status"]["progress"].get("step", 0) > second[0].get("resumedFromStep", 10**6))
    return job if going else None


def left(kube: Kube, job: dict[str, Any]) -> list[str]:
    """What was made for a job and is still there."""
    kinds = ("pods", "jobs", "pytorchjobs", "deployments", "services", "configmaps", "networkpolicies")
    return [each["metadata"]["name"] for kind in kinds for each in kube.children(kind, job)]


def test_a_reward_with_a_bug_ends_the_job_by_name(online: Kube) -> None:
    """The condition has the reward, the exception and the line of the user's file; the server is not left running."""
    online.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "judges"}, "data": {"rewards.py": BUGGY}},
        online_job(
            "bug",
            SERVERS,
            rewards=[SMALL, {"name": "tokens-used", "function": {"configMap": "judges", "name": "judged"}}],
        ),
    )
    job = online.until_phase("bug", "Failed", seconds=500)
    failed = condition(job, "Failed")
    assert failed["reason"] == "UserError"
    for word in ("tokens-used", "AttributeError: 'str' object has no attribute 'tokens'", "rewards.py", "line 8"):
        assert word in failed["message"]
    assert len(job["status"]["attempts"]) == 1
    online.until("servers are taken down", lambda: not servers(online, job), seconds=120, name="bug")


def test_a_server_that_cannot_start_ends_the_job_with_what_vllm_said(online: Kube) -> None:
    """The condition has the error that came first, whichever process told it, and which fields to look at."""
    arguments = {"unknown": "--no-such-flag", "small": "--num-gpu-blocks-override=1"}
    words = {"unknown": "unrecognized arguments: --no-such-flag", "small": "No available memory for the cache blocks"}
    for name, argument in arguments.items():
        online.apply(online_job(name, {**SERVERS, "extraArgs": [argument]}))
    for name in arguments:
        job = online.until_phase(name, "Failed", seconds=500)
        failed = condition(job, "Failed")
        assert failed["reason"] == condition(job, "RolloutReady")["reason"] == "RolloutFailed"
        assert words[name] in failed["message"]
        assert "correct rollout.image, rollout.extraArgs" in failed["message"]
        assert not job["status"]["attempts"]
        online.until("servers are taken down", lambda job=job: not servers(online, job), seconds=120, name=name)
