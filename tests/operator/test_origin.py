"""Jobs that start from what other jobs make: what is waited for, what is refused, and what is pinned for good."""

from typing import Any

import pytest

from anneal_api.conditions import ConditionType, Outcome
from anneal_api.jobfile import JobFile
from anneal_api.meta import JOB_FILE
from anneal_api.progress import TerminationMessage
from anneal_api.status import Output
from anneal_operator.kinds import CONFIG_MAP, FINE_TUNE_JOB, JOB, PYTORCH_JOB, RLHF_JOB, Obj, labels_of, meta
from anneal_operator.neighbours import Neighbour, neighbour
from anneal_operator.reconcile import reconcile
from anneal_operator.world import Decision, World
from simulated.builders import at, make_job, make_rlhf_job, make_settings, stamp
from simulated.machinery import TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.stories import KILLED, USER_ERROR

SFT = "job://finetunejob/sft"
ADAPTER = {"kind": "adapter", "uri": "volume://runs/out", "digest": "sha256:0"}


def job_status(*true: ConditionType, message: str = "", **fields: Any) -> Obj:
    """A status in which these conditions hold."""
    stated = [
        {"type": kind, "status": "True", "reason": "Valid", "message": message, "lastTransitionTime": stamp(0)}
        for kind in true
    ]
    return {"conditions": stated, "message": message, **fields}


def running() -> Obj:
    """A job at step 120 of 400."""
    return job_status(ConditionType.ACCEPTED, phase="Running", progress={"steps": "120/400"})


def stuck(message: str, *more: ConditionType) -> Obj:
    """One that needs a person."""
    return job_status(ConditionType.STALLED, *more, message=message, phase="Pending")


def done(*outputs: Obj, **fields: Any) -> Obj:
    """One that has succeeded."""
    return job_status(ConditionType.ACCEPTED, ConditionType.SUCCEEDED, outputs=list(outputs), **fields)


def decided(job: Obj, *others: Obj) -> Decision:
    """One pass over a job beside others."""
    facts: tuple[Neighbour, ...] = tuple(neighbour(each) for each in (job, *others))
    return reconcile(World(job, make_settings(), at(0), neighbours=facts))


def stated(decision: Decision, kind: ConditionType) -> Obj:
    """A condition of the status that a pass came to."""
    assert decision.status is not None
    return next(each for each in decision.status["conditions"] if each["type"] == kind)


WAITING: dict[str, tuple[list[Obj], str]] = {
    "missing": ([], "waits for finetunejob/sft: there is none in namespace team; apply it"),
    "new": ([make_job("sft")], "waits for finetunejob/sft, which is not begun"),
    "running": ([make_job("sft", status=running())], "waits for finetunejob/sft, which is Running (step 120/400)"),
    "stuck": (
        [make_job("sft", status=stuck("spec.compute.pool: 'x' is not a pool"))],
        "waits for finetunejob/sft, which is Pending: spec.compute.pool: 'x' is not a pool",
    ),
    "same-name-of-the-other-kind": (
        [make_rlhf_job("sft", source="hf://a/b")],
        "waits for finetunejob/sft: there is none in namespace team; sft is an rlhfjob: write job://rlhfjob/sft, or apply finetunejob/sft",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("others", "message"), WAITING.values(), ids=WAITING)
def test_what_may_still_come_is_waited_for(others: list[Obj], message: str) -> None:
    """Nothing is made, the condition says what is waited for, and the job is looked at again by itself."""
    decision = decided(make_rlhf_job("dpo", source=SFT), *others)
    found = stated(decision, ConditionType.DATA_READY)
    assert (found["status"], found["reason"], found["message"]) == ("False", "WaitingForJob", message)
    assert stated(decision, ConditionType.RECONCILING)["status"] == "True"
    assert not decision.apply
    assert decision.wake == at(60)


def loop(names: str) -> list[Obj]:
    """Jobs of which each starts from the next, and the last from `dpo`."""
    return [
        make_rlhf_job(name, source=f"job://rlhfjob/{after}") for name, after in zip(names, [*names[1:], "dpo"], strict=True)
    ]  # fmt: skip


REFUSED: dict[str, tuple[dict[str, Any], list[Obj], str, str]] = {
    "failed": (
        {}, [make_job("sft", status=stuck("train.jsonl:7: no column", ConditionType.FAILED))], "SourceJobFailed",
        "model.source job://finetunejob/sft: finetunejob/sft has failed: train.jsonl:7: no column; correct finetunejob/sft, or delete it and apply it again: this job goes on when that one has succeeded",
    ),
    "itself": (
        {"source": "job://rlhfjob/dpo"}, [], "InvalidSpec",
        "spec.model.source: job://rlhfjob/dpo is this job's own result: name another job, or give this one another metadata.name",
    ),
    "loop": (
        {"source": "job://rlhfjob/a"}, loop("abc"), "InvalidSpec",
        "model.source job://rlhfjob/a: jobs that start from one another never begin: rlhfjob/dpo -> rlhfjob/a -> rlhfjob/b -> rlhfjob/c -> rlhfjob/dpo",
    ),
    "loop-by-the-reference": (
        {"source": "hf://a/b", "reference": {"source": "job://rlhfjob/a"}}, loop("a"), "InvalidSpec",
        "reference.source job://rlhfjob/a: jobs that start from one another never begin: rlhfjob/dpo -> rlhfjob/a -> rlhfjob/dpo",
    ),
    "a-reward-model": (
        {"source": "job://rlhfjob/judge"}, [make_rlhf_job("judge", source="hf://a/b", method="reward")], "InvalidSpec",
        "model.source job://rlhfjob/judge: rlhfjob/judge makes a model that judges answers (method reward), which cannot write any: name a job of method sft, pretrain, dpo, ipo, kto, orpo, simpo, cpo, grpo or rloo",
    ),
    "an-adapter-of-a-reward-model": (
        {"source": "job://rlhfjob/judge", "method": "reward"},
        [make_rlhf_job("judge", source="hf://a/b", method="reward", adapter={})], "InvalidSpec",
        "model.source job://rlhfjob/judge: rlhfjob/judge makes an adapter of a model that judges answers (method reward), and only those of language models are merged: train rlhfjob/judge without adapter",
    ),
    "without-a-result": (
        {}, [make_job("sft", status=done())], "InvalidSpec",
        "model.source job://finetunejob/sft: finetunejob/sft has succeeded without a result: delete it and apply it again",
    ),
    "too-many-adapters": (
        {}, [make_job("sft", status=done(ADAPTER, sources=[{
            "source": "volume://runs/model", "base": "hf://a/b", "adapters": [{"uri": "volume://runs/a"}] * 16,
        }]))], "InvalidSpec",
        "model.source job://finetunejob/sft: 16 jobs in a row have made adapters, and no more can be merged: train a full model in between (remove adapter from one of them)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "others", "reason", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_waiting_helps_against_is_refused(
    spec: dict[str, Any], others: list[Obj], reason: str, message: str
) -> None:
    """The job is stalled, nothing is made, and the message names the jobs and the remedy."""
    decision = decided(make_rlhf_job("dpo", **{"source": SFT, **spec}), *others)
    found = stated(decision, ConditionType.ACCEPTED)
    assert (found["status"], found["reason"], found["message"]) == ("False", reason, message)
    assert stated(decision, ConditionType.STALLED)["status"] == "True"
    assert not decision.apply


def test_a_reward_model_may_start_from_a_reward_model() -> None:
    """As the model that is trained on, and as nothing else."""
    judge = make_rlhf_job("judge", source="hf://a/b", method="reward", adapter=None)
    job = make_rlhf_job("better", source="job://rlhfjob/judge", method="reward", adapter=None)
    assert stated(decided(job, judge), ConditionType.DATA_READY)["reason"] == "WaitingForJob"


def test_a_refused_job_is_not_written_again_and_again() -> None:
    """The same words at the same time of change: a second pass has nothing to write."""
    job = make_rlhf_job("dpo", source="job://rlhfjob/dpo")
    first = decided(job)
    again = {**job, "status": first.status}
    later = World(again, make_settings(), at(90), neighbours=(neighbour(again),))
    assert reconcile(later).status is None


PINNED: dict[str, tuple[dict[str, Any], Obj, dict[str, Any]]] = {
    "adapter": (
        {"model": {"source": "hf://a/b", "revision": "v1"}}, done(ADAPTER),
        {"base": "hf://a/b", "revision": "v1", "adapters": [{"uri": "volume://runs/out", "digest": "sha256:0"}]},
    ),
    "full-model": (
        {"model": {"source": "hf://a/b", "revision": "v1"}}, done({**ADAPTER, "kind": "model"}),
        {"base": "volume://runs/out", "revision": "main", "digest": "sha256:0", "adapters": []},
    ),
    "adapter-on-an-adapter": (
        {"model": {"source": "job://finetunejob/first"}},
        done(ADAPTER, sources=[
            {"source": "job://finetunejob/first", "uid": "u", "base": "volume://models/base",
             "adapters": [{"uri": "volume://old/out", "digest": "sha256:1"}]},
        ]),
        {"base": "volume://models/base", "revision": "main", "adapters": [
            {"uri": "volume://old/out", "digest": "sha256:1"}, {"uri": "volume://runs/out", "digest": "sha256:0"},
        ]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "status", "expected"), PINNED.values(), ids=PINNED)
def test_what_has_succeeded_is_pinned(spec: dict[str, Any], status: Obj, expected: dict[str, Any]) -> None:
    """An adapter stands for its base with all adapters before it, a full model for itself; pods get the same words."""
    decision = decided(make_rlhf_job("dpo", source=SFT), make_job("sft", status=status, **spec))
    assert decision.status is not None
    pin = {"source": SFT, "uid": "uid-sft", **expected}
    assert decision.status["sources"] == [pin]
    (config,) = [each for each in decision.apply if each["kind"] == "ConfigMap"]
    assert [each.dump() for each in JobFile.decode(config["data"][JOB_FILE]).sources] == [pin]
    (job,) = [each for each in decision.apply if each["kind"] == "Job"]
    volumes = job["spec"]["template"]["spec"]["volumes"]
    claims = {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}
    uris = [pin["base"], *(adapter["uri"] for adapter in pin["adapters"])]
    assert claims == {uri.split("/")[2] for uri in uris if uri.startswith("volume://")} | {"runs"}


def test_the_claim_of_a_reference_is_mounted() -> None:
    """It is a model as any other."""
    job = make_rlhf_job("dpo", source="volume://runs/m", reference={"source": "volume://models/base"})
    (prepare,) = [each for each in decided(job).apply if each["kind"] == "Job"]
    assert "models" in str(prepare["spec"]["template"]["spec"]["volumes"])


def pipeline() -> list[Obj]:
    """SFT, a reward model, and DPO from the same SFT with the SFT as its reference."""
    return [
        make_job("sft"),
        make_rlhf_job("reward", source=SFT, method="reward", created=1),
        make_rlhf_job("dpo", source=SFT, reference={"source": SFT}, created=2),
        make_rlhf_job("again", source="job://rlhfjob/dpo", created=3),
    ]


def begun(simulation: Simulation) -> list[str]:
    """The jobs in the order in which their training began."""
    made = [simulation.api.objects[place] for place in simulation.api.created if place[0] == PYTORCH_JOB]
    return [labels_of(each)["anneal.dev/job-name"] for each in made]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
async def test_jobs_applied_at_once_run_in_their_order(order: tuple[int, ...]) -> None:
    """In whatever order they were applied; none has a pod before what it starts from is there."""
    simulation = Simulation()
    jobs = pipeline()
    for index in order:
        simulation.add(jobs[index])
    await simulation.run(2)
    assert [labels_of(each)["anneal.dev/job-name"] for each in simulation.api.of(JOB)] == ["sft"]
    status = await simulation.until("Succeeded", "again", seconds=200)
    assert {simulation.status(name)["phase"] for name in ("sft", "reward", "dpo")} == {"Succeeded"}
    order_begun = begun(simulation)
    assert (order_begun[0], order_begun[-1]) == ("sft", "again")
    (pin,) = status["sources"]
    assert pin["base"] == "volume://runs/model"
    assert len(pin["adapters"]) == 2


async def test_a_follower_begins_as_soon_as_its_source_has_ended() -> None:
    """It is told, and does not wait for its next look."""
    simulation = Simulation()
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.run(5)
    simulation.add(make_job("sft"))
    await simulation.run(2)
    assert (
        "which is Preparing" in simulation.status("dpo")["message"]
        or "not begun" in simulation.status("dpo")["message"]
    )
    await simulation.until("Succeeded", "sft")
    await simulation.run(2)
    assert conditions(simulation.status("dpo"))["DataReady"] == ("False", "Preparing")


@pytest.mark.parametrize("seed", [None, 0, 1])
async def test_a_pipeline_survives_the_end_of_the_operator_after_every_effect(seed: int | None) -> None:
    """Whenever it dies, and however late its watch is, the jobs end in order and are made once."""
    effect, simulation = 0, None
    while simulation is None or (simulation.crashes and seed is None):
        effect += 1
        simulation = Simulation(seed=seed)
        simulation.api.crash_after = effect if seed is None else simulation.random.randint(1, 25)
        for job in (make_rlhf_job("dpo", source=SFT), make_job("sft")):
            simulation.add(job)
        await simulation.run(150)
        assert simulation.status("dpo")["phase"] == "Succeeded"
        assert begun(simulation) == ["sft", "dpo"]
        assert simulation.machinery.most_writers <= 1


async def test_a_source_that_is_deleted_while_it_is_waited_for_may_come_back() -> None:
    """The condition says that there is none, and the new one is waited for and pinned."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(600)]]
    simulation.add(make_job("sft"))
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.until("Running", "sft")
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("sft"))
    await simulation.run(3)
    assert simulation.status("dpo")["message"].startswith("waits for finetunejob/sft: there is none")
    simulation.machinery.training = [[TRAINED]]
    simulation.add(make_job("sft", uid="uid-new"))
    status = await simulation.until("Succeeded", "dpo")
    assert status["sources"][0]["uid"] == "uid-new"


async def test_a_source_that_is_deleted_or_made_anew_after_it_was_pinned_changes_nothing() -> None:
    """What was found is kept for the job's life, also by an operator that is started anew."""
    simulation = Simulation()
    simulation.add(make_job("sft"))
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.until("Succeeded", "sft")
    simulation.machinery.training = [[KILLED], [TRAINED]]
    await simulation.until("Preparing", "dpo")
    await simulation.run(2)
    pins = simulation.status("dpo")["sources"]
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("sft"))
    simulation.add(make_job("sft", uid="uid-new"))
    simulation.start()
    status = await simulation.until("Succeeded", "dpo")
    assert status["sources"] == pins
    assert len(status["attempts"]) == 2


async def test_a_source_that_failed_and_is_corrected_lets_its_followers_go_on() -> None:
    """Nobody has to touch them."""
    simulation = Simulation()
    simulation.machinery.preparing = [USER_ERROR]
    simulation.add(make_job("sft"))
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.until("Failed", "sft")
    await simulation.run(2)
    assert conditions(simulation.status("dpo"))["Accepted"] == ("False", "SourceJobFailed")
    assert "no column messages" in simulation.status("dpo")["message"]
    simulation.machinery.preparing = Simulation().machinery.preparing
    simulation.edit("sft", training={"maxSteps": 5})
    await simulation.until("Succeeded", "dpo")


async def test_a_loop_ends_when_one_of_its_jobs_is_changed() -> None:
    """All of them say so; then they run in order."""
    simulation = Simulation()
    simulation.add(make_rlhf_job("a", source="job://rlhfjob/b"))
    simulation.add(make_rlhf_job("b", source="job://rlhfjob/a"))
    await simulation.run(2)
    for name in "ab":
        assert conditions(simulation.status(name))["Accepted"] == ("False", "InvalidSpec")
    simulation.edit("b", model={"source": "volume://runs/model"})
    await simulation.until("Succeeded", "a")
    assert begun(simulation) == ["b", "a"]


async def test_a_source_that_is_run_again_makes_other_data() -> None:
    """Two jobs of one spec that found different results share no preparation."""
    simulation = Simulation()
    simulation.add(make_job("sft"))
    simulation.add(make_rlhf_job("first", source=SFT))
    await simulation.until("Succeeded", "first")
    simulation.api.vanish(FINE_TUNE_JOB, simulation.job("sft"))
    other = TerminationMessage(
        outcome=Outcome.SUCCEEDED, outputs=[Output(kind="adapter", uri="volume://runs/out", digest="sha256:other")]
    )
    simulation.machinery.training = [[Run(20, 0, other)]]
    simulation.add(make_job("sft", uid="uid-new"))
    simulation.add(make_rlhf_job("second", source=SFT))
    second = await simulation.until("Succeeded", "second")
    assert second["prepareKey"] != simulation.status("first")["prepareKey"]
    assert conditions(second)["DataReady"] == ("True", "Prepared")


async def test_another_source_may_be_named_until_the_first_attempt() -> None:
    """What was pinned for the old one is forgotten with it."""
    simulation = Simulation()
    simulation.machinery.preparing = [Run(100)]
    simulation.add(make_job("sft", status=done(ADAPTER)))
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.run(10)
    assert [pin["source"] for pin in simulation.status("dpo")["sources"]] == [SFT]
    simulation.edit("dpo", model={"source": "job://finetunejob/other"})
    await simulation.run(10)
    status = simulation.status("dpo")
    assert conditions(status)["DataReady"] == ("False", "WaitingForJob")
    assert status["sources"] == []
    assert not [each for each in simulation.api.of(JOB) if "dpo" in meta(each)["name"]]
    simulation.edit("dpo", model={"source": "volume://runs/model"})
    await simulation.run(10)
    assert conditions(simulation.status("dpo"))["DataReady"][1] in {"Preparing", "Starting"}


async def test_a_job_that_waits_can_be_suspended() -> None:
    """It says that it is, and waits again when it is resumed."""
    simulation = Simulation()
    simulation.add(make_rlhf_job("dpo", source=SFT, runPolicy={"suspend": True}))
    await simulation.run(2)
    assert simulation.status("dpo")["phase"] == "Suspended"
    simulation.edit("dpo", runPolicy={"suspend": False})
    await simulation.run(2)
    assert conditions(simulation.status("dpo"))["DataReady"] == ("False", "WaitingForJob")
    assert simulation.status("dpo")["phase"] == "Preparing"


async def test_a_job_that_waits_costs_little() -> None:
    """No request while nothing changes, and its children are made once."""
    simulation = Simulation()
    simulation.add(make_rlhf_job("dpo", source=SFT))
    await simulation.run(5)
    before = dict(simulation.api.calls)
    await simulation.run(300)
    assert simulation.api.calls == before
    assert simulation.api.of(CONFIG_MAP) == []
    assert [name for kind, _, name in simulation.api.objects if kind == RLHF_JOB] == ["dpo"]
