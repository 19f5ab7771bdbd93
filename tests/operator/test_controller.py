"""Effects: what is made and never taken over, what is refused and recovers, and when nothing is written at all."""

from typing import Any

import pytest

from anneal_api import Outcome
from anneal_api.progress import KeptPreview, ProgressReport, TerminationMessage
from anneal_operator.errors import ApiError
from anneal_operator.kinds import CONFIG_MAP, FINE_TUNE_JOB, JOB, NETWORK_POLICY, POD, PYTORCH_JOB, Obj, name_of
from anneal_operator.store import Key
from anneal_operator.world import Report
from simulated.builders import make_job, stamp
from simulated.machinery import PREPARED, TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.stories import USER_ERROR


def stranger(kind: Any, name: str) -> Obj:
    """Somebody else's object of this name; its own controller is done with it."""
    metadata = {"name": name, "namespace": "team"}
    done = {"conditions": [{"type": "Suspended", "status": "True"}]}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "status": done}


@pytest.mark.parametrize("kind", [JOB, PYTORCH_JOB, CONFIG_MAP, NETWORK_POLICY], ids=lambda kind: kind.name)
async def test_an_object_of_a_stranger_is_never_taken_over(kind: Any) -> None:
    """The condition names it, it stays as it is, and the job goes on once it is gone."""
    probe = Simulation()
    probe.add(make_job())
    await probe.until("Succeeded")
    (name,) = [each[2] for each in probe.api.created if each[0] == kind]
    simulation = Simulation()
    theirs = simulation.api.insert(stranger(kind, name))
    simulation.add(make_job())
    await simulation.run(60)
    status = simulation.status()
    assert "NameTaken" in {reason for _status, reason in conditions(status).values()}
    assert name in status["message"]
    assert simulation.api.objects[kind, "team", name] == theirs
    simulation.api.vanish(kind, theirs)
    await simulation.until("Succeeded")


async def test_without_the_engine_the_job_waits_and_goes_on_when_it_appears() -> None:
    """The condition says what to install; data is prepared meanwhile."""
    simulation = Simulation()
    simulation.api.unknown_kinds.add(PYTORCH_JOB)
    simulation.add(make_job())
    await simulation.run(40)
    status = simulation.status()
    assert conditions(status)["DataReady"] == ("True", "Prepared")
    assert conditions(status)["Running"] == ("False", "WaitingForEngine")
    assert "training-operator" in status["message"]
    simulation.api.unknown_kinds.clear()
    assert len((await simulation.until("Succeeded"))["attempts"]) == 1


async def test_a_refusal_of_the_api_server_is_told_in_its_own_words() -> None:
    """A quota, an admission policy: retried until it is lifted."""
    simulation = Simulation()
    quota = ApiError(403, "Forbidden", "exceeded quota: team, requested: count/jobs.batch=1")
    simulation.api.refuse = lambda obj: quota if obj["kind"] == "Job" else None
    simulation.add(make_job())
    await simulation.run(20)
    assert conditions(simulation.status())["DataReady"] == ("False", "PodRejected")
    assert "exceeded quota: team" in simulation.status()["message"]
    simulation.api.refuse = lambda _obj: None
    await simulation.until("Succeeded")


async def test_an_unchanged_job_is_not_written() -> None:
    """A finished job and a running one without news cost no request, however often they are looked at."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(600)]]
    simulation.add(make_job())
    await simulation.until("Running")
    await simulation.run(15)
    before = dict(simulation.api.calls)
    for _ in range(20):
        simulation.due.add(Key(FINE_TUNE_JOB, "team", "bot"))
        await simulation.run(1)
    assert simulation.api.calls == before


async def test_a_job_costs_few_requests() -> None:
    """From create to Succeeded: a handful of objects and status writes."""
    simulation = Simulation()
    simulation.add(make_job())
    await simulation.until("Succeeded")
    assert sum(simulation.api.calls.values()) <= 16


async def test_a_second_job_uses_what_the_first_has_prepared() -> None:
    """No pod of its own, the same numbers, and the name of who prepared them."""
    simulation = Simulation()
    simulation.add(make_job("first"))
    await simulation.until("Succeeded", "first")
    simulation.add(make_job("second", training={"learningRate": 1e-4}))
    status = await simulation.until("Succeeded", "second")
    assert conditions(status)["DataReady"] == ("True", "PreparedByAnother")
    assert status["dataset"]["preparedBy"] == "first"
    assert status["dataset"]["trainedTokens"] == 300
    assert len(simulation.api.of(JOB)) == 1


async def test_a_missing_secret_is_never_found_by_a_trainer() -> None:
    """A job that names Secrets has a prepare pod of its own, though its data is ready: only the kubelet can tell."""
    simulation = Simulation()
    simulation.add(make_job("first"))
    await simulation.until("Succeeded", "first")
    simulation.add(make_job("second", training={"learningRate": 1e-4}, secrets=[{"name": "hf-token"}]))
    status = await simulation.until("Succeeded", "second")
    assert conditions(status)["DataReady"] == ("True", "Prepared")
    assert len(simulation.api.of(JOB)) == 2


async def test_between_two_tries_the_cause_is_told() -> None:
    """The last words of the pod that ended, and how many tries there are."""
    simulation = Simulation()
    words = TerminationMessage(
        outcome=Outcome.INFRASTRUCTURE, exit_code=75, message="the hub cannot be reached: no route"
    )
    simulation.machinery.preparing = [Run(1, 75, words), PREPARED]
    simulation.add(make_job())
    said = set()
    for _ in range(40):
        await simulation.run(1)
        said.add(simulation.status().get("message", ""))
    assert any("(try 1 of 4): the hub cannot be reached: no route" in message for message in said), said


async def test_a_job_waits_for_one_that_prepares_the_same() -> None:
    """And prepares by itself if that one fails or goes."""
    simulation = Simulation()
    simulation.machinery.preparing = [Run(20, 0, PREPARED.words)]
    simulation.add(make_job("first", created=0))
    await simulation.run(5)
    simulation.add(make_job("second", created=3))
    await simulation.run(5)
    assert "job first prepares the same data" in simulation.status("second")["message"]
    assert len(simulation.api.of(JOB)) == 1
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("first"))
    await simulation.until("Succeeded", "second")


async def test_different_data_is_prepared_separately() -> None:
    """The key holds whatever shapes the data."""
    simulation = Simulation()
    simulation.add(make_job("first"))
    simulation.add(make_job("second", training={"sequenceLength": 64}))
    await simulation.run(60)
    assert len(simulation.api.of(JOB)) == 2


async def test_a_job_that_failed_before_training_can_be_corrected() -> None:
    """Its spec may still change; the failed prepare Job is replaced and the job goes on as if new."""
    simulation = Simulation()
    simulation.machinery.preparing = [USER_ERROR]
    simulation.add(make_job())
    failed = await simulation.until("Failed")
    assert failed["message"] == "train.jsonl:7: no column messages"
    await simulation.run(30)
    simulation.machinery.preparing = [PREPARED]
    simulation.edit(datasets=[{"source": "volume://runs/better.jsonl"}])
    status = await simulation.until("Succeeded")
    assert conditions(status)["Failed"] == ("False", "InProgress")
    assert [name_of(job) for job in simulation.api.of(JOB)] == [status["children"]["prepare"]]


async def test_a_failed_job_stays_failed_after_training_began() -> None:
    """Raising a limit afterwards does not bring it back: apply it anew."""
    simulation = Simulation()
    simulation.machinery.training = [[USER_ERROR]]
    simulation.add(make_job())
    await simulation.until("Failed")
    simulation.edit(runPolicy={"maxRetries": 9})
    await simulation.run(30)
    assert simulation.status()["phase"] == "Failed"
    assert simulation.status()["observedGeneration"] == 2


async def test_children_go_after_their_time_to_live_and_the_job_stays() -> None:
    """Also those that are not watched, also after a restart; nothing is made again."""
    simulation = Simulation()
    simulation.add(make_job(runPolicy={"ttlSecondsAfterFinished": 30}))
    tell_preview(simulation)
    await simulation.until("Succeeded")
    simulation.start()
    await simulation.run(20)
    assert simulation.api.of(PYTORCH_JOB)
    await simulation.run(30)
    left = [
        place for place in simulation.api.objects if place[0] in {JOB, PYTORCH_JOB, POD, CONFIG_MAP, NETWORK_POLICY}
    ]
    assert not left
    assert simulation.status()["phase"] == "Succeeded"
    assert simulation.status()["children"] == {"claim": "runs"}


def tell_preview(simulation: Simulation, digest: str = "abcdef0123456789") -> None:
    """A pod has told what its first rows are."""
    report = ProgressReport(role="prepare", preview=digest)
    preview = KeptPreview(text=f"{digest}: «red»", html="<b>red</b>")
    simulation.controller.reports["uid-bot"] = Report("bot-prep", simulation.now, report=report, preview=preview)


async def test_the_first_rows_stay_with_the_job() -> None:
    """A ConfigMap a content, made once, named in status, and gone with the job; a crash makes no second one."""
    simulation = Simulation()
    simulation.add(make_job())
    for digest in ("abcdef01", "abcdef01", "12345678"):
        tell_preview(simulation, digest)
        await simulation.run(2)
        (kept,) = [each for each in simulation.api.of(CONFIG_MAP) if digest[:6] in name_of(each)]
        assert simulation.status()["children"]["preview"] == name_of(kept)
        assert kept["data"] == {"preview.txt": f"{digest}: «red»", "preview.html": "<b>red</b>"}
        simulation.start()
    assert (await simulation.until("Succeeded"))["children"]["preview"].endswith("-preview-123456")


async def test_the_same_name_again_shares_no_child() -> None:
    """Not even while the old pods are still ending."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(600)]]
    simulation.add(make_job(uid="old"))
    await simulation.until("Running")
    old = simulation.status()["children"]
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job())
    simulation.machinery.training = [[TRAINED]]
    simulation.add(make_job(uid="new"))
    status = await simulation.until("Succeeded")
    new = status["children"]
    assert not set(old.values()) & set(new.values()) - {"runs"}
    assert len(status["attempts"]) == 1


async def test_a_config_map_that_somebody_removed_is_made_again() -> None:
    """The pod that waits for it says so."""
    simulation = Simulation()
    simulation.add(make_job())
    await simulation.run(2)
    (config,) = simulation.api.of(CONFIG_MAP)
    simulation.api.vanish(CONFIG_MAP, config)
    (pod,) = simulation.api.of(POD)
    waiting = {"reason": "CreateContainerConfigError", "message": f'configmap "{name_of(config)}" not found'}
    status = {"phase": "Pending", "containerStatuses": [{"name": "pytorch", "state": {"waiting": waiting}}]}
    simulation.api.update({**pod, "spec": {"nodeName": "node-1"}, "status": status})
    simulation.deliver()
    await simulation.passes()
    assert simulation.api.of(CONFIG_MAP)
    assert conditions(simulation.status())["DataReady"] == ("False", "WaitingForConfigMap")


async def test_live_progress_reaches_the_status() -> None:
    """With the texts that people read, and what the attempt learns from it."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(600)]]
    simulation.add(make_job())
    await simulation.until("Running")
    report = ProgressReport(
        phase="training", attempt=1, step=120, total_steps=1000, loss=2.34567, eta_seconds=4830, tokens_per_second=99.96,
        device="cpu", peak_memory_bytes=2**30, micro_batch_size=4, resumed_from_step=100, time=simulation.now.timestamp(),
    )  # fmt: skip
    simulation.controller.reports["uid-bot"] = Report("bot-1", simulation.now, report=report)
    simulation.due.add(Key(FINE_TUNE_JOB, "team", "bot"))
    await simulation.passes()
    status = simulation.status()
    progress = status["progress"]
    assert (progress["steps"], progress["lossText"], progress["eta"]) == ("120/1000", "2.346", "1h20m")
    assert (progress["percent"], progress["tokensPerSecond"]) == (12.0, 100.0)
    assert (status["device"], status["memory"]["peakGiB"]) == ("cpu", 1.0)
    assert (status["attempts"][0]["lastStep"], status["attempts"][0]["resumedFromStep"]) == (120, 100)


async def test_a_trainer_that_cannot_be_asked_is_running_with_unknown_progress() -> None:
    """Never a failure; and not said while it may still be loading its libraries."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(6000)]]
    simulation.add(make_job())
    await simulation.until("Running")
    simulation.controller.reports["uid-bot"] = Report("bot-1", simulation.now, error="connection refused")
    for seconds, reason in ((20, "Training"), (200, "ProgressUnknown")):
        await simulation.run(seconds)
        simulation.due.add(Key(FINE_TUNE_JOB, "team", "bot"))
        await simulation.passes()
        assert conditions(simulation.status())["Running"] == ("True", reason)


async def test_gpu_hours_count_every_attempt_and_no_waiting() -> None:
    """GPUs x time of running pods."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(1800, 137)], [Run(1800, 0, TRAINED.words)]]
    simulation.add(make_job(compute={"gpusPerNode": 2}))
    await simulation.run(100)
    simulation.now = simulation.now.replace(hour=simulation.now.hour + 1)
    await simulation.run(100)
    simulation.now = simulation.now.replace(hour=simulation.now.hour + 1)
    status = await simulation.until("Succeeded")
    assert status["gpuHours"] == pytest.approx(2 * 2, rel=0.1)


async def test_times_of_conditions_move_only_with_their_status() -> None:
    """As Kubernetes has it: a new message or reason is no transition."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(8, 137)], [TRAINED]]
    simulation.add(make_job())
    await simulation.until("Succeeded")
    times = {each["type"]: each["lastTransitionTime"] for each in simulation.status()["conditions"]}
    assert times["Accepted"] == times["Failed"] == times["Stalled"] == stamp(0)
    assert times["Succeeded"] == times["Ready"] > times["DataReady"] > stamp(0)


async def test_events_are_few_and_tell_the_turns() -> None:
    """One for each turn of the job's life, none twice."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(8, 137)], [TRAINED]]
    simulation.add(make_job())
    await simulation.until("Succeeded")
    waiting = simulation.controller.recorder._waiting
    told = [waiting.get_nowait()["reason"] for _ in range(waiting.qsize())]
    assert told == ["DataReady", "AttemptStarted", "AttemptEnded", "AttemptStarted", "Succeeded"]
