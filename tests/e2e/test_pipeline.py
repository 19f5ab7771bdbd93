"""Jobs that start from one another, applied at once: they run in order, and each says what it waits for."""

import json
from dataclasses import replace
from typing import Any

import pytest

from e2e.harness import RLHF, Kube, Storage, condition, small_job

pytestmark = pytest.mark.e2e


def align_job(name: str, *, method: str, source: str, **spec: Any) -> dict[str, Any]:
    """A small RLHFJob on pairs of answers."""
    datasets = [{"source": "volume://runs/tiny/pairs.jsonl", "type": "user_defined", "format": {}}]
    job = small_job(name, **{"method": method, "model": {"source": source}, "datasets": datasets, **spec})
    given = {block: value for block, value in job["spec"].items() if value is not None}
    return {**job, "kind": "RLHFJob", "spec": given}


def seed_pairs(runs: Storage) -> None:
    """The rows of the other tests, with the lower case as the worse answer."""
    lines = (runs.directory / "tiny/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    pairs = [
        {"prompt": row["instruction"], "chosen": row["output"], "rejected": row["output"].lower()[::-1]} for row in rows
    ]
    (runs.directory / "tiny/pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))


def test_a_pipeline_applied_at_once_ends_in_order(kube: Kube, runs: Storage) -> None:
    """SFT -> reward and DPO -> DPO again, the last ones first: each waits, and trains on what was made before it."""
    seed_pairs(runs)
    aligned = replace(kube, jobs=RLHF)
    sft = "job://finetunejob/sft"
    kube.apply(
        align_job("again", method="dpo", source="job://rlhfjob/dpo"),
        align_job("dpo", method="dpo", source=sft, reference={"source": sft}),
        align_job("reward", method="reward", source=sft, adapter=None),
        small_job("sft"),
    )
    aligned.until("again waits for dpo", lambda: _waits(aligned.job("again"), "rlhfjob/dpo, which is "), name="again")
    aligned.until("dpo waits for sft", lambda: _waits(aligned.job("dpo"), "finetunejob/sft, which is "), name="dpo")
    first = kube.until_phase("sft", "Succeeded")
    second = aligned.until_phase("dpo", "Succeeded")
    last = aligned.until_phase("again", "Succeeded")
    reward = aligned.until_phase("reward", "Succeeded")
    for job in (second, reward):
        (pin,) = job["status"]["sources"]
        assert pin["uid"] == first["metadata"]["uid"]
        assert pin["base"] == "volume://runs/tiny/model"
        assert [each["digest"] for each in pin["adapters"]] == [first["status"]["outputs"][0]["digest"]]
        assert job["status"]["attempts"][0]["startTime"] >= first["status"]["completionTime"]
    (pin,) = last["status"]["sources"]
    digests = [each["digest"] for each in pin["adapters"]]
    assert digests == [job["status"]["outputs"][0]["digest"] for job in (first, second)]


def test_answers_judged_one_by_one_are_learnt_from(kube: Kube, runs: Storage) -> None:
    """The third kind of rows, with its metrics and its preview in status; a job of each kind may share a name."""
    rows = [json.loads(line) for line in (runs.directory / "tiny/train.jsonl").read_text().splitlines()]
    judged = [
        {
            "prompt": row["instruction"],
            "completion": row["output"] if n % 2 else row["output"].lower(),
            "label": n % 2 == 1,
        }
        for n, row in enumerate(rows)
    ]
    (runs.directory / "tiny/judged.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in judged))
    source = [{"source": "volume://runs/tiny/judged.jsonl", "type": "chatml.prompt_pairs"}]
    evaluation = {"holdout": {"count": 8}}
    kube.apply(
        small_job("twin"),
        align_job("twin", method="kto", source="volume://runs/tiny/model", datasets=source, evaluation=evaluation),
    )
    aligned = replace(kube, jobs=RLHF)
    job = aligned.until_phase("twin", "Succeeded")
    twin = kube.until_phase("twin", "Succeeded")
    metrics = job["status"]["progress"]["metrics"]
    assert {"rewards/chosen", "rewards/rejected", "kl"} <= metrics.keys()
    assert job["status"]["dataset"]["evalRows"] == 8
    assert "undesirable" in kube.get("configmap", job["status"]["children"]["preview"])["data"]["preview.txt"]  # type: ignore[index]
    assert set(job["status"]["children"].values()) & set(twin["status"]["children"].values()) == {"runs"}


def _waits(job: dict[str, Any], what: str) -> bool:
    """Whether the condition says that this is waited for."""
    found = condition(job, "DataReady")
    return found.get("reason") == "WaitingForJob" and found["message"].startswith(f"waits for {what}")


def test_a_result_that_was_overwritten_is_found_before_a_trainer_is_made(kube: Kube, runs: Storage) -> None:
    """The job that was pinned ran again into the same directory: the follower says so and what to do."""
    seed_pairs(runs)
    aligned = replace(kube, jobs=RLHF)
    kube.apply(small_job("sft", output={"path": "results/sft"}))
    kube.until_phase("sft", "Succeeded")
    adapter = runs.directory / "results/sft/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-4] + b"else")
    kube.apply(align_job("dpo", method="dpo", source="job://finetunejob/sft"))
    failed = aligned.until_phase("dpo", "Failed")
    assert condition(failed, "DataReady")["reason"] == "PrepareFailed"
    assert "finetunejob/sft has written another result" in failed["status"]["message"]
    assert not aligned.children("pytorchjobs", failed)


def test_a_loop_is_refused_with_its_jobs(kube: Kube) -> None:
    """Both say it, and nothing is made."""
    aligned = replace(kube, jobs=RLHF)
    kube.apply(
        align_job("a", method="dpo", source="job://rlhfjob/b"), align_job("b", method="dpo", source="job://rlhfjob/a")
    )
    for name, loop in (("a", "rlhfjob/a -> rlhfjob/b -> rlhfjob/a"), ("b", "rlhfjob/b -> rlhfjob/a -> rlhfjob/b")):
        refused = aligned.until(f"{name} is refused", lambda name=name: _refused(aligned.job(name)), name=name)
        assert loop in refused["message"]
        assert not aligned.children("jobs", aligned.job(name))


def _refused(job: dict[str, Any]) -> dict[str, Any]:
    """The Accepted condition, if it is False."""
    found = condition(job, "Accepted")
    return found if found.get("status") == "False" else {}
