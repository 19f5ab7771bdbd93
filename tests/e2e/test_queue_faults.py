"""Whatever comes, goes or is killed beside a queued job, it ends as it should.

Kueue itself comes in the first test of a session that needs it and goes in the last one (see `conftest`).
"""

from collections.abc import Callable
from typing import Any

import pytest

from e2e import queues
from e2e.conftest import Team
from e2e.harness import Kube, condition
from e2e.queues import queued_job
from e2e.test_faults import OFTEN
from e2e.test_queues import LONG

pytestmark = pytest.mark.e2e


def test_kueue_may_come_late_and_stumble(kube: Kube, gpus: int, kueue_comes: Callable[[], None]) -> None:
    """Without it, only jobs that name a queue wait; they go on by themselves when it is there."""
    del gpus
    kube.apply(queued_job("free"), queued_job("early", "late"))
    job = kube.until("early says what it waits for", lambda: waits_for_kueue(kube.job("early")), name="early")
    assert "install it, or leave spec.queue out" in job["status"]["message"]
    kube.until_phase("free", "Succeeded")
    kueue_comes()
    with queues.team_queue(kube, "late", 1):
        job = kube.until_phase("early", "Succeeded")
    assert [each["outcome"] for each in job["status"]["attempts"]] == ["Succeeded"]


def waits_for_kueue(job: dict[str, Any]) -> dict[str, Any] | None:
    """The job, if it is queued and Kueue is missing."""
    phase = job.get("status", {}).get("phase")
    return job if phase == "Queued" and condition(job, "Admitted")["reason"] == "WaitingForKueue" else None


def test_a_restart_of_kueue_disturbs_neither_who_runs_nor_who_waits(team: Team, kill_kueue: Callable[[], None]) -> None:
    """SIGKILL to its controller: the one trains on, the other is admitted when its turn comes."""
    kube = team.kube
    with queues.team_queue(kube, "shaky", 1):
        kube.apply(queued_job("runs", "shaky", training={"maxSteps": 300}))
        kube.until_step("runs", 5)
        kube.apply(queued_job("waits", "shaky"))
        kube.until_phase("waits", "Queued")
        kill_kueue()
        first, second = (kube.until_phase(each, "Succeeded") for each in ("runs", "waits"))
    (before,), (after,) = first["status"]["attempts"], second["status"]["attempts"]
    assert after["startTime"] >= before["endTime"]


def test_an_operator_killed_at_the_worst_moments_makes_one_of_everything(
    team: Team, kill_operator: Callable[[], None]
) -> None:
    """SIGKILL when the job is admitted and nothing has begun, and when it is evicted and nothing is stopped yet."""
    kube = team.kube
    with queues.team_queue(kube, "worst", 1):
        with queues.taken(kube, "first", queue="worst", gpus=1):
            kube.apply(queued_job("victim", "worst", training=LONG, checkpoint=OFTEN))
            kube.until_phase("victim", "Queued")
            workload = queues.workload_of(kube, "victim")["metadata"]["name"]
        kube.until("victim is admitted", lambda: queues.is_true(kube, workload, "Admitted"), seconds=60, name="victim")
        kill_operator()
        job = kube.until_step("victim", 15)
        assert len(kube.children("pytorchjobs", job)) == 1
        kube.apply(queues.workload("boss", queue="worst", gpus={"trainer": 1}, priority=100))
        kube.until("victim is evicted", lambda: queues.is_true(kube, workload, "Evicted"), seconds=60, name="victim")
        kill_operator()
        kube.until("boss has the quota", lambda: queues.is_true(kube, "boss", "Admitted"), seconds=120, name="victim")
        assert not kube.children("pytorchjobs", job)
        kube.run("delete", queues.WORKLOADS, "boss")
        job = kube.until_phase("victim", "Succeeded")
    first, second = job["status"]["attempts"]
    assert first["outcome"] == "Evicted"
    # The pod may have ended while no operator was there to read its last words: it knows no less than it had seen.
    assert second["resumedFromStep"] >= first["lastStep"] >= 15


def test_what_runs_when_kueue_is_removed_runs_to_its_end(team: Team, kueue_goes: Callable[[], None]) -> None:
    """Nobody is left who could want the quota; the status says that Kueue is gone."""
    kube = team.kube
    kube.apply(*queue_objects(kube))
    kube.apply(queued_job("survivor", "doomed", training=LONG))
    kube.until_step("survivor", 5)
    kueue_goes()
    job = kube.until_phase("survivor", "Succeeded")
    assert [each["outcome"] for each in job["status"]["attempts"]] == ["Succeeded"]


def queue_objects(kube: Kube) -> tuple[dict[str, Any], ...]:
    """A queue that nobody can delete afterwards, as its types will be gone."""
    name = f"{kube.namespace}-doomed"
    return queues.flavor(name), queues.cluster_queue(name, {name: 1}), queues.local_queue("doomed", name)
