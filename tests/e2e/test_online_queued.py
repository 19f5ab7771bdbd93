"""An online job in a queue of the real Kueue: both sides have quota, or neither has anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e import queues
from e2e.conftest import Team
from e2e.harness import RLHF, condition
from e2e.online import SERVERS, online_job, servers

pytestmark = pytest.mark.e2e


def test_quota_that_fits_one_side_alone_admits_neither(team: Team, taught: Path, vllm_image: str) -> None:
    """With one GPU of two nothing is made, and the job says what both need; with two, both sides are made."""
    del vllm_image
    kube = replace(team.kube, jobs=RLHF)
    team.storage.seed(taught)
    name = f"{kube.namespace}-sides"
    compute = {"pool": "gpus", "gpusPerNode": 1}
    with queues.team_queue(kube, "sides", 1):
        kube.apply(online_job("sides", {**SERVERS, "gpus": 1}, compute=compute, queue="sides"))
        job = kube.until("it says what is short", lambda: waiting(kube.job("sides")), name="sides")
        workload = queues.workload_of(kube, "sides")
        assert {each["name"]: each["count"] for each in workload["spec"]["podSets"]} == {"trainer": 1, "rollout": 1}
        assert not queues.assignments(kube, workload["metadata"]["name"])
        assert not kube.children("deployments", job)
        assert not kube.children("pytorchjobs", job)

        kube.apply(queues.cluster_queue(name, {name: 2}, preemption=queues.PREEMPT))
        kube.until("both are admitted", lambda: admitted(kube.job("sides")), seconds=120, name="sides")
        given = queues.assignments(kube, workload["metadata"]["name"])
        assert {each["name"] for each in given} == {"trainer", "rollout"}
        kube.until("the server is placed", lambda: placed(servers(kube, job)), seconds=60, name="sides")
        kube.run("delete", RLHF, "sides", "--timeout=30s")
        kube.until("both sides are gone", lambda: not kube.children("pods", job), seconds=120)


def waiting(job: dict[str, Any]) -> dict[str, Any] | None:
    """The job, once Kueue has refused it quota for now."""
    said = condition(job, "Admitted")
    short = "insufficient" in said.get("message", "") and job["status"]["phase"] == "Queued"
    return job if short else None


def admitted(job: dict[str, Any]) -> bool:
    """Whether it has its quota."""
    return condition(job, "Admitted").get("status") == "True"


def placed(pods: list[dict[str, Any]]) -> bool:
    """Whether a server has its node, and asks for its GPU."""
    return any(
        pod["spec"].get("nodeName") and container["resources"]["limits"].get(queues.GPU) == "1"
        for pod in pods
        for container in pod["spec"]["containers"]
        if container["name"] == "vllm"
    )
