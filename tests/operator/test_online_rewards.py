"""Rewards of online jobs on the cluster: what is mounted, which reward models are waited for, how a failure is told."""

from typing import Any

import pytest

from anneal_api.conditions import ConditionType, Outcome
from anneal_api.progress import TerminationMessage
from anneal_api.status import Attempt
from anneal_operator.kinds import JOB, Obj
from anneal_operator.manifests import prepare, pytorchjob
from anneal_operator.neighbours import neighbour
from anneal_operator.placement import ANYWHERE
from anneal_operator.plan import Plan, plan_of
from anneal_operator.reconcile import reconcile
from anneal_operator.world import Decision, World
from simulated.builders import at, make_rlhf_job, make_settings, stamp
from simulated.machinery import Run
from simulated.process import Simulation, conditions

MINE = {"name": "mine", "function": {"configMap": "my-rewards"}}
JUDGE = "job://rlhfjob/judge"


def online_job(*rewards: dict[str, Any], name: str = "grpo", **spec: Any) -> Obj:
    """A job that draws answers by itself and is judged by these."""
    return make_rlhf_job(
        name, source="volume://runs/model", method="grpo", rewards=list(rewards), rollout={"mode": "generate"}, **spec
    )


def judged_by(source: str, name: str = "score") -> dict[str, Any]:
    """A reward model."""
    return {"name": name, "model": {"source": source}}


def pods(plan: Plan) -> list[Obj]:
    """The specs of the prepare pod and of a training pod."""
    job = pytorchjob.build(plan, Attempt(number=1, start_time=stamp(0)), ANYWHERE)
    (replicas,) = job["spec"]["pytorchReplicaSpecs"].values()
    return [prepare.build(plan)["spec"]["template"]["spec"], replicas["template"]["spec"]]


def test_config_maps_of_functions_are_mounted_where_they_are_looked_for() -> None:
    """Read-only, one directory each by its name, however many functions it has; in pods that prepare and that train."""
    other = {"name": "other", "function": {"configMap": "a.shared", "name": "other"}}
    same = {"name": "same", "function": {"configMap": "my-rewards", "name": "same"}}
    plan = plan_of(online_job(MINE, other, same, {"name": "kept", "function": {}}), make_settings())
    for spec in pods(plan):
        volumes = {each["name"]: each["configMap"]["name"] for each in spec["volumes"] if "configMap" in each}
        mounts = {each["name"]: each for each in spec["containers"][0]["volumeMounts"]}
        found = {volumes[name]: mount for name, mount in mounts.items() if name.startswith("reward-")}
        assert {name: mount["mountPath"] for name, mount in found.items()} == {
            "a.shared": "/anneal/rewards/a.shared",
            "my-rewards": "/anneal/rewards/my-rewards",
        }
        assert all(mount["readOnly"] for mount in found.values())


def test_the_claims_of_reward_models_are_mounted() -> None:
    """As those of any other model."""
    plan = plan_of(online_job(judged_by("volume://models/scorer")), make_settings())
    for spec in pods(plan):
        claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "claim-" in each["name"]]
        assert claims == ["runs", "models"]


async def test_rewards_are_looked_at_before_a_gpu_whoever_prepared_the_data() -> None:
    """A job over data that is ready has a prepare pod of its own: its rewards are not those of the other job."""
    simulation = Simulation()
    simulation.add(online_job({"name": "a", "length": {"most": 4}}, name="first"))
    await simulation.until("Succeeded", "first")
    simulation.add(online_job(MINE, name="second"))
    status = await simulation.until("Succeeded", "second")
    assert conditions(status)["DataReady"] == ("True", "Prepared")
    assert len(simulation.api.of(JOB)) == 2


def decided(job: Obj, *others: Obj) -> Decision:
    """One pass over a job beside others."""
    return reconcile(World(job, make_settings(), at(0), neighbours=tuple(map(neighbour, (job, *others)))))


def stated(decision: Decision, kind: ConditionType) -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    assert decision.status is not None
    found = next(each for each in decision.status["conditions"] if each["type"] == kind)
    return found["status"], found["reason"], found["message"]


def test_a_reward_model_of_another_job_is_waited_for() -> None:
    """The condition names it, and nothing is made before."""
    decision = decided(online_job(judged_by(JUDGE)))
    message = "waits for rlhfjob/judge: there is none in namespace team; apply it"
    assert stated(decision, ConditionType.DATA_READY) == ("False", "WaitingForJob", message)
    assert not decision.apply


def judge(method: str = "reward", **changes: Any) -> Obj:
    """The job that makes the reward model."""
    return make_rlhf_job("judge", source="hf://a/b", method=method, **{"adapter": None, **changes})


REFUSED = {
    "writes": (
        judge("dpo"),
        "rewards[0].model.source job://rlhfjob/judge: rlhfjob/judge makes a model by method dpo, which gives a text no score: name a job of method reward",
    ),
    "steps": (
        judge("prm"),
        "rewards[0].model.source job://rlhfjob/judge: rlhfjob/judge makes a model by method prm, which gives a text no score: name a job of method reward",
    ),
    "adapter": (
        judge(adapter={"r": 4}),
        "rewards[0].model.source job://rlhfjob/judge: rlhfjob/judge makes an adapter of a model that judges answers (method reward), and only those of language models are merged: train rlhfjob/judge without adapter",
    ),
    "loop": (
        make_rlhf_job("judge", source="job://rlhfjob/grpo", method="reward", adapter=None),
        "rewards[0].model.source job://rlhfjob/judge: jobs that start from one another never begin: rlhfjob/grpo -> rlhfjob/judge -> rlhfjob/grpo",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("other", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_never_judge_is_refused(other: Obj, message: str) -> None:
    """With the field that names it, and the remedy."""
    decision = decided(online_job(judged_by(JUDGE)), other)
    assert stated(decision, ConditionType.ACCEPTED) == ("False", "InvalidSpec", message)


def test_two_jobs_that_judge_one_another_never_begin() -> None:
    """Also where the way back goes over a reward, not over a model."""
    other = online_job(judged_by("job://rlhfjob/grpo"), name="judge")
    status, _reason, message = stated(decided(online_job(judged_by(JUDGE)), other), ConditionType.ACCEPTED)
    assert status == "False"
    assert "rlhfjob/grpo -> rlhfjob/judge -> rlhfjob/grpo" in message


def test_as_many_reward_models_as_there_may_be_rewards_are_pinned() -> None:
    """Beside the model and its reference; their claim is mounted."""
    ready = [
        {"type": str(kind), "status": "True", "reason": "Valid", "lastTransitionTime": stamp(0)}
        for kind in (ConditionType.ACCEPTED, ConditionType.SUCCEEDED)
    ]

    def ended(name: str, method: str) -> Obj:
        output = {"kind": "model", "uri": f"volume://made/{name}", "digest": "sha256:0"}
        done = {"conditions": ready, "outputs": [output]}
        return make_rlhf_job(name, source="hf://a/b", method=method, adapter=None, status=done)

    job = online_job(*(judged_by(f"job://rlhfjob/j{n}", f"s{n}") for n in range(16)), grpo={"beta": 0.1})
    job["spec"] |= {"model": {"source": "job://rlhfjob/m"}, "reference": {"source": "job://rlhfjob/r"}}
    others = [ended("m", "dpo"), ended("r", "dpo"), *(ended(f"j{n}", "reward") for n in range(16))]
    decision = decided(job, *others)
    assert decision.status is not None
    assert len(decision.status["sources"]) == 18
    (made,) = [each for each in decision.apply if each["kind"] == "Job"]
    assert "made" in str(made["spec"]["template"]["spec"]["volumes"])


TRACE = 'Traceback (most recent call last):\n  File "/anneal/rewards/my-rewards/rewards.py", line 3, in reward\n    return gold[0]\nKeyError: 0'


async def test_a_reward_that_fails_ends_the_job_with_its_traceback() -> None:
    """The user's error: one attempt, and what the pod said, whole, in the condition, the message and the attempt."""
    said = f"reward mine: raised KeyError: 0 (8 of 8 answers; the first is 'red' to the prompt 'Say red'); repair the reward\n{TRACE}"
    words = TerminationMessage(outcome=Outcome.USER_ERROR, message=said, exit_code=65)
    simulation = Simulation()
    simulation.machinery.training = [[Run(3, 65, words)]]
    simulation.add(online_job(MINE))
    status = await simulation.until("Failed", "grpo")
    failed = next(each for each in status["conditions"] if each["type"] == "Failed")
    assert (failed["reason"], failed["message"]) == ("UserError", said)
    assert (status["message"], [each["message"] for each in status["attempts"]]) == (said, [said])


async def test_a_server_that_cannot_be_reached_costs_an_attempt() -> None:
    """It may come back: the next attempt goes on."""
    words = TerminationMessage(outcome=Outcome.INFRASTRUCTURE, message="reward judge: cannot be reached", exit_code=75)
    simulation = Simulation()
    simulation.machinery.training = [[Run(3, 75, words)], *simulation.machinery.training]
    simulation.add(online_job({"name": "judge", "http": {"url": "http://judge/v1"}}))
    status = await simulation.until("Succeeded", "grpo")
    assert [each["outcome"] for each in status["attempts"]] == ["Infrastructure", "Succeeded"]
    assert status["attempts"][0]["message"] == "reward judge: cannot be reached"
