"""What a job that queues says and does: while it waits, when it is admitted, and when somebody interferes."""

from dataclasses import replace
from typing import Any

import pytest

from anneal_operator.errors import ApiError
from anneal_operator.kinds import (
    CLUSTER_QUEUE,
    LOCAL_QUEUE,
    PENDING_WORKLOADS,
    PRIORITY_CLASS,
    PYTORCH_JOB,
    RESOURCE_FLAVOR,
    WORKLOAD,
    WORKLOAD_PRIORITY_CLASS,
    Kind,
    Obj,
)
from anneal_operator.lookups import Lookups
from anneal_operator.reconcile import reconcile
from anneal_operator.world import World
from simulated.api_server import ApiServer
from simulated.builders import START, make_job, make_settings, stamp
from simulated.machinery import TRAINED
from simulated.process import Simulation, conditions
from simulated.queueing import Kueue, reserved, workload_of
from simulated.stories import STALE

KUEUE = {WORKLOAD, LOCAL_QUEUE, CLUSTER_QUEUE, RESOURCE_FLAVOR, WORKLOAD_PRIORITY_CLASS}


def queued(*, nodes: int = 0, **spec: Any) -> Simulation:
    """A job that queues for so many nodes."""
    simulation = Simulation()
    simulation.machinery.kueue = Kueue(simulation.api, nodes=nodes)
    simulation.machinery.kueue.install("team-a", "team-b", priorities={"high": 100})
    simulation.add(make_job(**{"queue": "team-a", **spec}))
    return simulation


def message(simulation: Simulation, kind: str = "Admitted") -> str:
    """What a condition says."""
    (found,) = [each for each in simulation.status()["conditions"] if each["type"] == kind]
    return str(found["message"])


async def test_a_waiting_job_says_for_what_since_when_and_behind_whom() -> None:
    """One sentence answers it all; nothing that costs a GPU exists, and `Ready` is not Stalled."""
    simulation = queued()
    simulation.add(make_job("older", uid="uid-older", created=-10, queue="team-a", output={"path": "older"}))
    await simulation.until("Queued")
    await simulation.until("Queued", "older")
    names = [workload_of(simulation.api, simulation.job(name))["metadata"]["name"] for name in ("older", "bot")]
    items = [
        {"metadata": {"name": name}, "positionInLocalQueue": place, "positionInClusterQueue": place + 2}
        for place, name in enumerate(names)
    ]
    simulation.api.objects[PENDING_WORKLOADS, "team", "team-a"] = {"items": items}
    await simulation.run(40)
    status = simulation.status()
    assert status["phase"] == "Queued"
    assert {"position": 4, "ahead": ["older"], "name": "team-a"}.items() <= status["queue"].items()
    since = status["queue"]["since"]
    words = f"waits in queue team-a since {since}, place 4 behind older and 2 more: insufficient unused quota, 1 more needed"
    assert status["message"] == words
    assert conditions(status)["Reconciling"][0] == "True"
    assert not simulation.api.of(PYTORCH_JOB)
    assert "behind 2 jobs of other queues" in str(simulation.status("older")["message"])


async def test_a_job_that_kueue_writes_nothing_about_still_finds_its_place() -> None:
    """Of Workloads that ask for the same, Kueue refuses one and is silent about those behind it."""
    simulation = queued()
    assert simulation.machinery.kueue is not None
    simulation.machinery.kueue.silent = True
    await simulation.until("Queued")
    mine = workload_of(simulation.api, simulation.job())["metadata"]["name"]
    items = [
        {"metadata": {"name": name}, "positionInLocalQueue": place, "positionInClusterQueue": place}
        for place, name in enumerate(("first", mine))
    ]
    simulation.api.objects[PENDING_WORKLOADS, "team", "team-a"] = {"items": items}
    await simulation.run(12)
    assert message(simulation).endswith(", place 2 behind first: its turn has not come")


async def test_a_preempted_job_says_for_whom() -> None:
    """Kueue's message has a UID; people know names."""
    simulation = queued(nodes=1)
    simulation.machinery.training = [[replace(TRAINED, seconds=60)], [TRAINED], [TRAINED]]
    await simulation.until("Running")
    simulation.add(make_job("boss", uid="uid-boss", queue="team-a", priorityClass="high", output={"path": "boss"}))
    await simulation.until("Queued")
    await simulation.run(6)
    assert conditions(simulation.status())["Admitted"] == ("False", "WaitingForQuota")
    assert message(simulation).endswith("insufficient unused quota, 1 more needed; preempted by job boss")
    first = simulation.status()["attempts"][0]
    assert first["message"].endswith("(JobUID: uid-boss); preempted by job boss")


async def test_a_preempted_job_may_wait_in_another_queue() -> None:
    """Kueue calls it evicted for as long as it waits; that keeps it from nothing."""
    simulation = queued(nodes=1)
    simulation.machinery.training = [[replace(TRAINED, seconds=60)], [replace(TRAINED, seconds=60)], [TRAINED]]
    await simulation.until("Running")
    simulation.add(make_job("boss", uid="uid-boss", queue="team-a", priorityClass="high", output={"path": "boss"}))
    await simulation.until("Queued")
    simulation.edit(queue="team-b")
    await simulation.run(20)
    assert workload_of(simulation.api, simulation.job())["spec"]["queueName"] == "team-b"
    await simulation.until("Succeeded")


async def test_without_the_list_of_those_that_wait_a_job_still_says_why() -> None:
    """Kueue's visibility API may be switched off."""
    simulation = queued()
    simulation.api.unknown_kinds.add(PENDING_WORKLOADS)
    await simulation.until("Queued")
    await simulation.run(40)
    assert "insufficient unused quota" in message(simulation)
    assert "place" not in message(simulation)


async def test_pods_of_an_admitted_job_go_where_its_flavor_is() -> None:
    """The flavor's labels and tolerations are added to the pool's; status says which flavor it was."""
    simulation = queued(nodes=1)
    await simulation.until("Running")
    (made,) = simulation.api.of(PYTORCH_JOB)
    spec = made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "gpu"}]
    status = simulation.status()
    assert status["queue"]["quotaReserved"] is True
    assert status["queue"]["flavors"]["cpu"] == "h100"
    assert message(simulation) == "admitted by ClusterQueue all, flavor h100"
    assert status["children"]["workload"] == workload_of(simulation.api, simulation.job())["metadata"]["name"]


async def test_children_are_never_handed_to_kueue() -> None:
    """A queue-name label on them would make Kueue queue them a second time."""
    simulation = queued(nodes=1)
    await simulation.until("Succeeded")
    made = [obj for (kind, *_), obj in simulation.api.objects.items() if kind != WORKLOAD]
    for obj in made:
        assert not any(key.startswith("kueue.x-k8s.io/") for key in obj["metadata"].get("labels") or {})


async def test_the_end_frees_the_quota_and_the_workload_stays_for_its_story() -> None:
    """Finished, with the job's own last words."""
    simulation = queued(nodes=1)
    await simulation.until("Succeeded")
    (finished,) = [
        each
        for each in workload_of(simulation.api, simulation.job())["status"]["conditions"]
        if each["type"] == "Finished"
    ]
    assert (finished["status"], finished["reason"], finished["message"]) == ("True", "Succeeded", "loss 2.0 to 1.0")


async def test_without_kueue_a_job_waits_and_goes_on_when_it_is_installed() -> None:
    """The data is prepared meanwhile; a job without a queue is not concerned."""
    simulation = queued(nodes=1)
    simulation.api.unknown_kinds |= KUEUE
    simulation.add(make_job("free", uid="uid-free", output={"path": "free"}))
    await simulation.until("Succeeded", "free")
    await simulation.until("Queued")
    assert conditions(simulation.status())["Admitted"] == ("False", "WaitingForKueue")
    assert "install it, or leave spec.queue out" in message(simulation)
    simulation.api.unknown_kinds -= KUEUE
    await simulation.until("Succeeded")


async def test_what_runs_goes_on_when_kueue_is_removed() -> None:
    """Its Workload goes with the type; nobody is left who could want the quota."""
    simulation = queued(nodes=1)
    simulation.machinery.training = [[replace(TRAINED, seconds=60)]]
    await simulation.until("Running")
    simulation.machinery.kueue = None
    simulation.api.vanish(WORKLOAD, workload_of(simulation.api, simulation.job()))
    simulation.api.unknown_kinds |= KUEUE
    await simulation.run(30)
    assert simulation.status()["phase"] == "Running"
    assert conditions(simulation.status())["Admitted"] == ("Unknown", "WaitingForKueue")
    await simulation.until("Succeeded")
    assert len(simulation.status()["attempts"]) == 1


REFUSED = {
    "unknown-queue": ({"queue": "team-c"}, "UnknownQueue", ["spec.queue", "'team-c'", "team-a, team-b"]),
    "unknown-priority": ({"priorityClass": "hihg"}, "UnknownPriorityClass", ["WorkloadPriorityClass 'hihg'", "high"]),
    "no-gpus-in-the-queue": (
        {"compute": {"pool": "h100", "gpusPerNode": 1}}, "QueueLacksResource", ["nvidia.com/gpu", "cpu, memory", "all"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "reason", "words"), REFUSED.values(), ids=REFUSED)
async def test_what_no_waiting_mends_is_said_before_anything_is_made(
    spec: dict[str, Any], reason: str, words: list[str]
) -> None:
    """Each names the field, what it found, and what there is."""
    simulation = queued(**spec)
    cluster_queue = simulation.api.objects[CLUSTER_QUEUE, "", "all"]
    groups = [{"coveredResources": ["cpu", "memory"]}]
    simulation.api.update({**cluster_queue, "spec": {"resourceGroups": groups}})
    await simulation.until("Pending")
    assert conditions(simulation.status())["Accepted"] == ("False", reason)
    assert all(word in message(simulation, "Accepted") for word in words), message(simulation, "Accepted")
    assert not simulation.api.created


async def test_an_unknown_priority_class_without_a_queue_is_said_too() -> None:
    """There it is the PriorityClass of the pods, which admission would refuse one by one."""
    simulation = Simulation()
    metadata = {"name": "urgent"}
    simulation.api.insert({"apiVersion": "scheduling.k8s.io/v1", "kind": PRIORITY_CLASS.name, "metadata": metadata})
    simulation.add(make_job(priorityClass="high"))
    await simulation.until("Pending")
    assert conditions(simulation.status())["Accepted"] == ("False", "UnknownPriorityClass")
    assert "no PriorityClass 'high'; it has: urgent" in message(simulation, "Accepted")


async def test_a_queue_that_never_has_that_much_is_told_from_one_that_is_busy() -> None:
    """Waiting would be for ever: the sentence says so and what to change."""
    simulation = queued()
    await simulation.until("Queued")
    workload = workload_of(simulation.api, simulation.job())
    words = "insufficient quota for nvidia.com/gpu in flavor h100, request > maximum capacity (8)"
    assert simulation.machinery.kueue is not None
    simulation.machinery.kueue._set(workload, "QuotaReserved", "False", "Pending", words)
    simulation.machinery.kueue = None
    await simulation.run(20)
    assert message(simulation).endswith("the queue never has that much: ask for less, or have its quota raised")


async def test_an_edit_before_the_start_asks_anew() -> None:
    """The Workload stands for what the job asks for, not for what it once did; a learning rate changes nothing."""
    simulation = queued()
    await simulation.until("Queued")
    first = workload_of(simulation.api, simulation.job())
    simulation.edit(training={"globalBatchSize": 8, "microBatchSize": 4, "learningRate": 1e-3})
    await simulation.run(30)
    assert workload_of(simulation.api, simulation.job())["metadata"]["uid"] == first["metadata"]["uid"]
    simulation.edit(compute={"gpusPerNode": 0, "cpu": "3"})
    await simulation.run(30)
    second = workload_of(simulation.api, simulation.job())
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    (podset,) = second["spec"]["podSets"]
    assert podset["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "3"


async def test_leaving_the_queue_before_the_start_needs_no_quota() -> None:
    """The Workload goes, and the job starts as one that names no queue."""
    simulation = queued()
    await simulation.until("Queued")
    job = simulation.job()
    spec = {key: value for key, value in job["spec"].items() if key != "queue"}
    simulation.api.update({**job, "metadata": {**job["metadata"], "generation": 2}, "spec": spec})
    await simulation.until("Succeeded")
    assert not simulation.api.of(WORKLOAD)


async def test_quota_is_free_while_data_is_prepared_again() -> None:
    """An attempt that found its data stale holds no quota until there is something to train on."""
    simulation = queued(nodes=1)
    simulation.machinery.training = [[STALE], [TRAINED]]
    await simulation.until("Running")
    await simulation.until("Preparing")
    await simulation.run(1)
    assert not any(map(reserved, simulation.api.of(WORKLOAD)))
    await simulation.until("Succeeded")


class Counting:
    """Answers, and counts how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    async def get(self, *_: object) -> Obj:
        self.asked += 1
        if self.error:
            raise self.error
        return {"metadata": {"name": "team-a"}}


async def test_a_queue_is_read_once_for_all_that_wait_in_it() -> None:
    """Answers are kept for seconds, not longer."""
    now, cluster = [100.0], Counting()
    lookups = Lookups(cluster, clock=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(200):
        assert await lookups.get(LOCAL_QUEUE, "team", "team-a") is not None
    assert cluster.asked == 1
    now[0] += 6
    await lookups.get(LOCAL_QUEUE, "team", "team-a")
    assert cluster.asked == 2


async def test_a_server_that_does_not_answer_is_asked_once_for_all_that_wait() -> None:
    """Each answer would take as long as a request may, and hundreds of jobs would wait for theirs."""
    cluster = Counting(TimeoutError())
    lookups = Lookups(cluster, clock=lambda: 100.0)  # type: ignore[arg-type]
    for _ in range(200):
        assert await lookups.get_if_answered(PENDING_WORKLOADS, "team", "team-a") is None
    assert cluster.asked == 1


async def test_a_workload_that_the_server_refuses_is_told() -> None:
    """Kueue's webhook may have something against it; the job says what, and tries again."""
    simulation = queued(nodes=1)
    simulation.api.refuse = lambda obj: ApiError(403, "Forbidden", "no!") if obj["kind"] == "Workload" else None
    await simulation.until("Queued")
    assert conditions(simulation.status())["Admitted"] == ("False", "PodRejected")
    assert "was refused by the API server: no!" in message(simulation)
    simulation.api.refuse = lambda _obj: None
    await simulation.until("Succeeded")


async def preempted() -> Simulation:
    """A job that was preempted by one that trains for long, and waits again."""
    simulation = queued(nodes=1)
    await simulation.until("Running")
    await simulation.run(3)
    simulation.machinery.training = [[replace(TRAINED, seconds=500)]]
    urgent = {"queue": "team-b", "priorityClass": "high", "output": {"path": "urgent"}}
    simulation.add(make_job("urgent", uid="uid-urgent", **urgent))
    await simulation.until("Running", "urgent")
    await simulation.run(20)
    assert simulation.status()["attempts"][-1]["outcome"] == "Evicted"
    assert simulation.status()["phase"] == "Queued"
    return simulation


async def test_after_an_eviction_a_job_waits_like_any_other() -> None:
    """Kueue's `Evicted` stays True until it reserves quota again; the job says what it waits for meanwhile."""
    simulation = await preempted()
    workload = workload_of(simulation.api, simulation.job())
    item = {"metadata": workload["metadata"], "positionInLocalQueue": 0, "positionInClusterQueue": 0}
    simulation.api.objects[PENDING_WORKLOADS, "team", "team-a"] = {"items": [item]}
    await simulation.run(20)
    assert conditions(simulation.status())["Admitted"] == ("False", "WaitingForQuota")
    assert simulation.status()["queue"]["position"] == 1
    assert "place 1: insufficient unused quota, 1 more needed" in message(simulation)


async def test_after_an_eviction_a_job_may_wait_in_another_queue() -> None:
    """No quota is reserved for it: its Workload moves, and keeps its age."""
    simulation = await preempted()
    before = workload_of(simulation.api, simulation.job())
    simulation.edit(queue="team-b")
    await simulation.run(20)
    after = workload_of(simulation.api, simulation.job())
    assert (after["metadata"]["uid"], after["spec"]["queueName"]) == (before["metadata"]["uid"], "team-b")


async def test_a_job_that_is_suspended_after_an_eviction_leaves_its_queue() -> None:
    """Else it would be admitted one day, and others evicted for it, to hold nothing."""
    simulation = await preempted()
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    await simulation.run(5)
    assert [each["spec"]["queueName"] for each in simulation.api.of(WORKLOAD)] == ["team-b"]


async def test_a_workload_that_is_deactivated_before_its_pods_are_made_queues_again() -> None:
    """Quota is given back with Kueue's own reason, by which it knows what to requeue."""
    simulation = queued(nodes=1)
    kueue, simulation.machinery.kueue = simulation.machinery.kueue, None
    await simulation.until("Queued")
    workload = workload_of(simulation.api, simulation.job())
    assert kueue is not None
    assert kueue._admit({**workload, "spec": {**workload["spec"], "active": False}})
    await simulation.run(5)
    assert conditions(simulation.status())["Admitted"] == ("False", "Deactivated")
    simulation.machinery.kueue = kueue
    await simulation.run(5)
    assert not reserved(workload_of(simulation.api, simulation.job()))
    workload = workload_of(simulation.api, simulation.job())
    simulation.api.update({**workload, "spec": {**workload["spec"], "active": True}})
    await simulation.until("Succeeded")


async def test_a_queue_that_went_between_two_attempts_can_be_changed_for_another() -> None:
    """A job with attempts and no queue in its status may not name one: what it says to do must be allowed."""
    simulation = await preempted()
    simulation.api.vanish(LOCAL_QUEUE, simulation.api.objects[LOCAL_QUEUE, "team", "team-a"])
    await simulation.run(60)
    assert conditions(simulation.status())["Accepted"] == ("False", "UnknownQueue")
    assert simulation.status()["queue"]["name"] == "team-a"
    assert "quotaReserved" not in simulation.status()["queue"]


async def test_an_ended_job_has_no_quota() -> None:
    """The status keeps the flavors that it ran in."""
    simulation = queued(nodes=1)
    await simulation.until("Succeeded")
    report = simulation.status()["queue"]
    assert report["quotaReserved"] is False
    assert report["flavors"]["cpu"] == "h100"
    assert "since" not in report


async def test_a_job_goes_on_and_ends_while_kueue_does_not_answer() -> None:
    """Its webhook fails every write of a Workload; when it is back, it is told what it has missed."""
    simulation = queued(nodes=1)
    await simulation.until("Starting")
    down = ApiError(500, "InternalError", 'failed calling webhook "vworkload.kb.io": connection refused')
    simulation.api.refuse = lambda obj: down if obj["kind"] == "Workload" else None
    await simulation.until("Running")
    await simulation.until("Succeeded")
    assert reserved(workload_of(simulation.api, simulation.job()))
    simulation.api.refuse = lambda _obj: None
    await simulation.run(5)
    workload = workload_of(simulation.api, simulation.job())
    assert [each["status"] for each in workload["status"]["conditions"] if each["type"] == "Finished"] == ["True"]


async def test_a_job_says_that_kueue_does_not_answer() -> None:
    """Instead of the last thing that it said before."""
    simulation = queued(nodes=1)
    down = ApiError(500, "InternalError", 'failed calling webhook "mworkload.kb.io": connection refused')
    simulation.api.refuse = lambda obj: down if obj["kind"] == "Workload" else None
    await simulation.until("Queued")
    assert conditions(simulation.status())["Admitted"] == ("False", "WaitingForKueue")
    assert "failed calling webhook" in message(simulation)
    simulation.api.refuse = lambda _obj: None
    await simulation.until("Succeeded")


async def test_an_upgrade_of_the_trainer_costs_no_place_in_the_queue() -> None:
    """The request is the same: its Workload stays, with its age."""
    simulation = queued()
    await simulation.until("Queued")
    before = workload_of(simulation.api, simulation.job())
    simulation.settings = make_settings(trainer_image="registry.example/anneal-trainer:2")
    simulation.start()
    await simulation.run(40)
    assert workload_of(simulation.api, simulation.job())["metadata"]["uid"] == before["metadata"]["uid"]


async def test_more_resources_than_the_status_has_room_for_are_left_out() -> None:
    """Kueue's configuration may make any number of one; a status with all of them would be refused for ever."""
    simulation = queued(nodes=1)
    simulation.machinery.kueue = None
    await simulation.until("Queued")
    workload = workload_of(simulation.api, simulation.job())
    flavors = {f"example.com/{number}": "h100" for number in range(20)}
    kueue = Kueue(simulation.api, nodes=1)
    assert kueue._admit(workload)
    admitted = workload_of(simulation.api, simulation.job())
    assignment = {"name": "trainer", "count": 1, "flavors": flavors}
    admission = {"clusterQueue": "all", "podSetAssignments": [assignment]}
    simulation.api.update({**admitted, "status": {**admitted["status"], "admission": admission}})
    await simulation.run(5)
    assert len(simulation.status()["queue"]["flavors"]) == 16


async def test_a_visibility_api_that_hangs_keeps_nothing_from_being_said() -> None:
    """It is an aggregated API: a server of its own."""
    simulation = queued()

    async def get(kind: Kind, namespace: str, name: str) -> Obj:
        if kind == PENDING_WORKLOADS:
            raise TimeoutError
        return await ApiServer.get(simulation.api, kind, namespace, name)

    simulation.api.get = get  # type: ignore[method-assign]
    await simulation.until("Queued")
    await simulation.run(20)
    assert "insufficient unused quota" in message(simulation)


def test_a_running_job_that_does_not_parse_any_more_is_told() -> None:
    """A stricter operator was installed; the pass must not fail, or nobody would know."""
    job = make_job(queue="team-a", methood="sft")
    attempt = {"number": 1, "startTime": stamp(0), "runningTime": stamp(5)}
    job["status"] = {"attempts": [attempt], "queue": {"name": "team-a", "quotaReserved": True}}
    decision = reconcile(World(job, make_settings(), START))
    assert decision.status is not None
    assert conditions(decision.status)["Accepted"] == ("False", "InvalidSpec")


async def test_who_is_next_is_told_which_jobs_have_the_quota() -> None:
    """Nobody is ahead of it, so this is the answer to who is."""
    simulation = queued(nodes=1)
    simulation.machinery.training = [[replace(TRAINED, seconds=200)]]
    await simulation.until("Running")
    simulation.add(make_job("next", uid="uid-next", created=1, queue="team-a", output={"path": "next"}))
    await simulation.until("Queued", "next")
    await simulation.run(40)
    assert simulation.status("next")["message"].endswith("1 more needed; quota is with bot")


@pytest.mark.parametrize(("kind", "name"), [(LOCAL_QUEUE, "team-a"), (CLUSTER_QUEUE, "all")], ids=["local", "cluster"])
async def test_a_stopped_queue_is_told_from_a_full_one(kind: Any, name: str) -> None:
    """Which of the two is stopped, and what would have to change."""
    simulation = queued()
    place = (kind, "team" if kind is LOCAL_QUEUE else "", name)
    simulation.api.update({**simulation.api.objects[place], "spec": {"clusterQueue": "all", "stopPolicy": "Hold"}})
    await simulation.until("Queued")
    assert simulation.machinery.kueue is not None
    workload = workload_of(simulation.api, simulation.job())
    simulation.machinery.kueue._set(
        workload, "QuotaReserved", "False", "Inadmissible", f"{kind.name} {name} is inactive"
    )
    simulation.machinery.kueue = None
    await simulation.run(20)
    words = f"is inactive: stopPolicy of the {kind.name} is Hold; it admits nothing until that is None"
    assert message(simulation).endswith(words)


async def test_what_kueue_deactivated_says_why_and_queues_again_when_it_is_activated() -> None:
    """A rejected admission check: the cause and the remedy stand in one sentence, and the remedy works."""
    simulation = queued(nodes=0)
    await simulation.until("Queued")
    reason, why = "DeactivatedDueToAdmissionCheck", 'check "budget" rejected it: over budget'
    kueue = simulation.machinery.kueue
    assert kueue is not None
    first = workload_of(simulation.api, simulation.job())
    kueue._set(first, "Evicted", "True", reason, why)
    kueue._set(workload_of(simulation.api, simulation.job()), "Requeued", "False", reason, why)
    off = workload_of(simulation.api, simulation.job())
    simulation.api.update({**off, "spec": {**off["spec"], "active": False}})
    await simulation.run(5)
    assert conditions(simulation.status())["Admitted"] == ("False", "Deactivated")
    assert f"{why}; mend that, then its spec.active: set it to true" in message(simulation)
    kueue.nodes = 1
    off = workload_of(simulation.api, simulation.job())
    simulation.api.update({**off, "spec": {**off["spec"], "active": True}})
    await simulation.until("Succeeded")
    assert workload_of(simulation.api, simulation.job())["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_job_that_gave_its_quota_back_does_not_say_that_it_has_some() -> None:
    """Nothing else happens after that, so nothing else would make it look."""
    simulation = queued()
    await simulation.until("Queued")
    kueue, simulation.machinery.kueue = simulation.machinery.kueue, None
    assert kueue is not None
    kueue._set(workload_of(simulation.api, simulation.job()), "QuotaReserved", "True", "QuotaReserved", "reserved")
    held = workload_of(simulation.api, simulation.job())
    rejected = kueue._with(held, "Evicted", "True", "DeactivatedDueToAdmissionCheck", "over budget")
    simulation.api.update({**rejected, "spec": {**rejected["spec"], "active": False}})
    await simulation.run(40)
    assert not reserved(workload_of(simulation.api, simulation.job()))
    assert simulation.status()["queue"]["quotaReserved"] is False


async def test_a_deactivated_job_that_is_suspended_says_that_it_is() -> None:
    """It holds nothing, its Workload neither; what the Workload was is no matter then."""
    simulation = queued()
    await simulation.until("Queued")
    off = workload_of(simulation.api, simulation.job())
    simulation.api.update({**off, "spec": {**off["spec"], "active": False}})
    await simulation.run(5)
    simulation.edit(runPolicy={"suspend": True})
    await simulation.until("Suspended")
    assert conditions(simulation.status())["Admitted"] == ("False", "Suspended")
    assert not simulation.api.of(WORKLOAD)
