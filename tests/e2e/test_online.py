"""GRPO on the cluster: answers are drawn by vLLM servers beside the trainer, and what is rewarded becomes the rule.

Not here: what is killed or goes wrong (`test_online_faults`), and queues (`test_online_queued`).
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anneal_api.meta import OWNER_UID_LABEL
from e2e.harness import RLHF, Kube, Storage, condition
from e2e.online import GENERATE, HIGH, LOW, SERVERS, STEPS, at_the_end, is_ready, online_job, servers

pytestmark = pytest.mark.e2e


@pytest.fixture
def online(kube: Kube, runs: Storage, taught: Path) -> Kube:
    """Kubectl in a namespace whose claim has the taught model and its prompts."""
    runs.seed(taught)
    return replace(kube, jobs=RLHF)


@contextmanager
def watched(kube: Kube, name: str, file: Path) -> Iterator[None]:
    """What `kubectl get -w` prints in the block goes to the file."""
    command = [
        str(kube.kubectl),
        "--kubeconfig",
        str(kube.kubeconfig),
        "-n",
        kube.namespace,
        "get",
        kube.jobs,
        name,
        "-w",
    ]
    with file.open("w") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            yield
        finally:
            process.terminate()


def rewards_printed(file: Path) -> list[float]:
    """The second column after the steps, of every line that has it."""
    header, *lines = file.read_text().splitlines()
    assert "REWARD" in header
    found = [re.search(r"\d+/\d+ +-?\d+\.\d+ +(-?\d+\.\d+)", line) for line in lines]
    return [float(match[1]) for match in found if match]


def test_answers_by_the_trainers_own_generate(online: Kube, runs: Storage) -> None:
    """With mode generate there is nothing beside the trainer, and the reward rises all the same."""
    # Other numbers are drawn than by vLLM: here a higher rate is what learns in as many steps.
    online.apply(online_job("alone", GENERATE, training={"learningRate": 1e-2}))
    job = online.until_step("alone", 1)
    assert not servers(online, job)
    assert not online.children("deployments", job)
    job = online.until_phase("alone", "Succeeded", seconds=400)
    assert_learnt(job, runs)
    assert not condition(job, "RolloutReady")


def assert_learnt(job: dict[str, Any], runs: Storage) -> None:
    """The mean reward of drawn answers was low at first and is high at the end; status has the last one."""
    rewards = runs.measured(job, "reward")
    assert len(rewards) == STEPS
    assert rewards[0] < LOW
    assert at_the_end(rewards) > HIGH
    assert job["status"]["progress"]["metrics"]["reward"] == pytest.approx(rewards[-1], abs=1e-3)


def test_two_servers_draw_what_the_trainer_learns_from(
    online: Kube, runs: Storage, vllm_image: str, tmp_path: Path
) -> None:
    """From apply to Succeeded: the reward rises in `kubectl get -w`; one server is deleted on the way; all are taken down."""
    online.apply(online_job("pair", {**SERVERS, "replicas": 2}))
    with watched(online, "pair", tmp_path / "watched"):
        job = online.until("two servers are ready", lambda: two_ready(online), seconds=400, name="pair")
        assert_as_planned(online, job, vllm_image)
        online.until_step("pair", 3, seconds=300)
        assert condition(online.job("pair"), "RolloutReady")["status"] == "True"
        online.run("delete", "pod", servers(online, job)[0]["metadata"]["name"], "--grace-period=0", "--force")
        job = online.until_phase("pair", "Succeeded", seconds=600)
    assert_learnt(job, runs)
    printed = rewards_printed(tmp_path / "watched")
    assert printed[0] < LOW
    assert max(printed) > HIGH
    assert [attempt["outcome"] for attempt in job["status"]["attempts"]] == ["Succeeded"]
    assert_versions(job, runs)
    online.until("servers are taken down", lambda: not servers(online, job), seconds=120, name="pair")
    assert not online.children("deployments", job)


def two_ready(kube: Kube) -> dict[str, Any] | None:
    """The job, once RolloutReady says so; no trainer was started before."""
    # Looked for first: one is made as soon as they are ready.
    trainers = kube.children("pytorchjobs", kube.job("pair"))
    job = kube.job("pair")
    if condition(job, "RolloutReady").get("status") == "True":
        return job
    assert not trainers, kube.describe("pair")
    return None


def assert_as_planned(kube: Kube, job: dict[str, Any], image: str) -> None:
    """One Deployment that never surges, one headless Service, and a policy that covers its pods."""
    (deployment,) = kube.children("deployments", job)
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    (service,) = [
        each for each in kube.children("services", job) if each["metadata"]["name"] == deployment["metadata"]["name"]
    ]
    assert service["spec"]["clusterIP"] == "None"
    pods = servers(kube, job)
    assert [is_ready(pod) for pod in pods] == [True, True]
    assert {each["image"] for pod in pods for each in pod["spec"]["containers"] if each["name"] == "vllm"} == {image}
    (policy,) = kube.children("networkpolicies", job)
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected == {OWNER_UID_LABEL: job["metadata"]["uid"]}
    assert all(selected.items() <= pod["metadata"]["labels"].items() for pod in pods)
    assert {"from": [{"podSelector": policy["spec"]["podSelector"]}]} in policy["spec"]["ingress"]
    assert job["status"]["rollout"]["replicas"] == job["status"]["rollout"]["ready"] == 2


def assert_versions(job: dict[str, Any], runs: Storage) -> None:
    """Each step's answers were drawn from the weights of the step before it, and the two sides compute the same."""
    assert runs.measured(job, "rollout/staleness") == [0.0] * STEPS
    versions = runs.measured(job, "rollout/version")
    assert versions == [float(step) for step in range(STEPS)]
    assert max(runs.measured(job, "rollout/logp_difference")) < 1e-2
