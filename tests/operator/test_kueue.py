"""A Workload as the operator reads it, and what it owes Kueue about it."""

from typing import Any

import pytest

from anneal_operator import kueue
from anneal_operator.kinds import Obj
from simulated.builders import stamp

FLAVORS = {
    "h100": {"spec": {"nodeLabels": {"gpu": "h100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    "spot": {"spec": {"nodeLabels": {"life": "short"}}},
}


def condition(kind: str, status: str = "True", *, reason: str = "", message: str = "", seconds: float = 0) -> Obj:
    """A condition of a Workload."""
    at = stamp(seconds)
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def workload(*conditions: Obj, count: int = 4, admitted: int | None = None, **status: Any) -> Obj:
    """A Workload of four nodes; `admitted` is how many of them there is quota for."""
    if admitted:
        flavors = {"nvidia.com/gpu": "h100", "cpu": "h100"}
        assignment = {"name": "trainer", "count": admitted, "flavors": flavors}
        status["admission"] = {"clusterQueue": "gpus", "podSetAssignments": [assignment]}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": "bot-1", "namespace": "team", "creationTimestamp": stamp(0), "generation": 3},
        "spec": {"queueName": "team-a", "podSets": [{"name": "trainer", "count": count}]},
        "status": {"conditions": list(conditions), **status},
    }


def by_type(obj: Obj) -> dict[str, Obj]:
    """Conditions by type."""
    return {each["type"]: each for each in obj["status"]["conditions"]}


def test_what_waits_says_for_what_and_since_when() -> None:
    """Kueue's own words; the time is that of its creation, or of its last turn to wait."""
    words = "couldn't assign flavors: insufficient unused quota"
    waiting = condition("QuotaReserved", "False", message=words, seconds=5)
    assert kueue.view(workload(waiting)).waits == words
    assert kueue.view(workload(waiting)).since == kueue.parse_time(stamp(0))
    again = condition("Requeued", seconds=60)
    assert kueue.view(workload(waiting, again)).since == kueue.parse_time(stamp(60))


def test_an_admitted_one_says_since_when_and_what_it_may_use() -> None:
    """The ClusterQueue, and the flavors that must be known before pods are made."""
    seen = kueue.view(workload(condition("QuotaReserved"), condition("Admitted", seconds=9), admitted=4))
    assert (seen.reserved, seen.admitted, seen.cluster_queue) == (True, True, "gpus")
    assert seen.since == kueue.parse_time(stamp(9))
    assert kueue.missing_flavors(seen, {}) == ["h100"]
    assert kueue.missing_flavors(seen, FLAVORS) == []


def test_checks_that_are_not_done_are_named() -> None:
    """A reserved Workload waits for them."""
    checks = [
        {"name": "nodes", "state": "Pending", "message": "being provisioned"},
        {"name": "budget", "state": "Ready"},
    ]
    assert kueue.view(workload(condition("QuotaReserved"), admissionChecks=checks)).checks == (
        "nodes is Pending (being provisioned)",
    )


def test_flavors_and_checks_say_where_pods_go() -> None:
    """Node labels and tolerations of the flavors, and all that checks add."""
    update = {
        "name": "trainer", "nodeSelector": {"zone": "a"}, "labels": {"l": "1"}, "annotations": {"n": "2"},
        "tolerations": [{"key": "new"}],
    }  # fmt: skip
    checks = [{"name": "nodes", "state": "Ready", "podSetUpdates": [update, {"name": "rollout", "labels": {"x": "y"}}]}]
    seen = kueue.view(workload(condition("Admitted"), admitted=4, admissionChecks=checks))
    placed = kueue.placement(seen, FLAVORS, sizes=(4,))
    assert placed.node_selector == {"gpu": "h100", "zone": "a"}
    assert [each["key"] for each in placed.tolerations] == ["gpu", "new"]
    assert (placed.labels, placed.annotations, placed.nodes) == ({"l": "1"}, {"n": "2"}, 4)


@pytest.mark.parametrize(("admitted", "nodes", "spare"), [(4, 4, None), (3, 2, 2), (2, 2, None), (1, 1, None)])
def test_quota_that_the_batch_cannot_be_shared_by_is_given_back(admitted: int, nodes: int, spare: int | None) -> None:
    """With a global batch that 1, 2 and 4 nodes divide, three nodes are two, and the third is free for others."""
    seen = kueue.view(workload(condition("Admitted"), admitted=admitted))
    assert kueue.placement(seen, FLAVORS, sizes=(1, 2, 4)).nodes == nodes
    told = kueue.told(seen, ready=False, nodes=nodes, now=stamp(1))
    assert told is not None
    reclaimable = told["status"].get("reclaimablePods")
    assert reclaimable == ([{"name": "trainer", "count": spare}] if spare else None)


def test_after_an_eviction_the_quota_is_given_back_as_kueue_does_it() -> None:
    """No admission, no reservation; preempted ones queue again at once, others when Kueue says so."""
    for reason, again in (("Preempted", "True"), ("PodsReadyTimeout", "False"), ("Deactivated", "False")):
        evicted = condition("Evicted", reason=reason, message="to make room")
        held = (condition("QuotaReserved"), condition("Admitted"), condition("PodsReady"))
        before = workload(*held, evicted, admitted=3, reclaimablePods=[{"name": "trainer", "count": 1}])
        after = kueue.given_back(kueue.view(before), now=stamp(50))
        made = by_type(after)
        assert {"admission", "reclaimablePods"}.isdisjoint(after["status"])
        assert [made[kind]["status"] for kind in ("QuotaReserved", "Admitted", "PodsReady")] == ["False"] * 3
        assert (made["Requeued"]["status"], made["Requeued"]["reason"]) == (again, reason)
        assert (made["QuotaReserved"]["reason"], made["QuotaReserved"]["message"]) == ("Pending", "to make room")
        assert made["QuotaReserved"]["lastTransitionTime"] == stamp(50)
        assert made["Evicted"]["status"] == "True", "Kueue itself turns it off when it admits again"
        assert by_type(before)["QuotaReserved"]["status"] == "True", "nothing is changed in place"


def test_pods_ready_is_told_when_it_changes_and_not_again() -> None:
    """Started, not ready again, recovered."""
    seen = workload(condition("Admitted"), admitted=4)
    for ready, reason in ((False, "WaitForStart"), (True, "Started"), (False, "WaitForRecovery"), (True, "Recovered")):
        told = kueue.told(kueue.view(seen), ready=ready, nodes=4, now=stamp(1))
        assert told is not None
        assert by_type(told)["PodsReady"]["reason"] == reason
        assert kueue.told(kueue.view(told), ready=ready, nodes=4, now=stamp(2)) is None
        seen = told


@pytest.mark.parametrize(("succeeded", "reason"), [(True, "Succeeded"), (False, "Failed")])
def test_the_end_is_told(*, succeeded: bool, reason: str) -> None:
    """A finished Workload takes no quota; its message is the job's."""
    done = kueue.finished(kueue.view(workload(admitted=4)), succeeded=succeeded, message="loss 1.0", now=stamp(1))
    assert {"status": "True", "reason": reason, "message": "loss 1.0"}.items() <= by_type(done)["Finished"].items()
    assert kueue.view(done).finished


def test_what_kueue_itself_deactivated_is_told_from_what_may_queue_again() -> None:
    """Of those Kueue never takes back the word that they are not to queue, even if they are active again."""
    evicted = condition("Evicted", reason="DeactivatedDueToAdmissionCheck", message="over budget")
    for reason, stranded in (("DeactivatedDueToAdmissionCheck", True), ("Deactivated", False), ("Preempted", False)):
        seen = kueue.view(workload(evicted, condition("Requeued", "False", reason=reason)))
        assert seen.stranded is stranded


def test_after_a_queue_was_stopped_the_wait_begins_when_the_quota_went() -> None:
    """Not when the job was first queued, hours before."""
    stopped = condition("Evicted", reason="LocalQueueStopped", seconds=500)
    lost = condition("QuotaReserved", "False", message="LocalQueue team-a is inactive", seconds=501)
    seen = kueue.view(workload(stopped, lost, condition("Requeued", "False", reason="LocalQueueStopped", seconds=501)))
    assert seen.since == kueue.parse_time(stamp(501))


def both(trainer: str = "h100", rollout: str = "spot") -> Obj:
    """An admitted Workload of two pod sets, each in a flavor of its own, and a check that changes the servers' pods."""
    made = workload(condition("QuotaReserved"), condition("Admitted"), admitted=4)
    made["spec"]["podSets"].append({"name": "rollout", "count": 2})
    assignments = made["status"]["admission"]["podSetAssignments"]
    assignments[0]["flavors"] = {"nvidia.com/gpu": trainer}
    assignments.append({"name": "rollout", "count": 2, "flavors": {"nvidia.com/gpu": rollout}})
    update = {"name": "rollout", "labels": {"checked": "yes"}, "nodeSelector": {"rack": "7"}}
    made["status"]["admissionChecks"] = [{"name": "c", "state": "Ready", "podSetUpdates": [update]}]
    return made


def test_each_pod_set_goes_where_its_own_flavor_is() -> None:
    """The trainer's nodes are not the servers'; what a check says of one is not said of the other."""
    seen = kueue.view(both())
    assert kueue.flavors_of(seen.obj) == ("h100", "spot")
    trainer = kueue.placement(seen, FLAVORS, sizes=(4,))
    servers = kueue.placement(seen, FLAVORS, sizes=(2,), podset=kueue.ROLLOUT_PODSET)
    assert (trainer.nodes, dict(trainer.node_selector), dict(trainer.labels)) == (4, {"gpu": "h100"}, {})
    assert (servers.nodes, dict(servers.node_selector)) == (2, {"life": "short", "rack": "7"})
    assert (servers.labels, servers.tolerations) == ({"checked": "yes"}, ())


def test_what_is_given_back_of_a_trainer_is_not_counted_with_its_servers() -> None:
    """Fewer nodes than there is quota for free the trainer's pods alone."""
    told = kueue.told(kueue.view(both()), ready=True, nodes=2, now=stamp(9))
    assert told is not None
    assert told["status"]["reclaimablePods"] == [{"name": "trainer", "count": 2}]
