"""The whole path: a manifest becomes pods, trains, and tells the truth while it does."""

import json
from typing import Any

import pytest

from e2e.harness import JOB, Kube, Storage, condition, small_job

pytestmark = pytest.mark.e2e


def test_a_job_trains_and_reports_while_it_runs(kube: Kube, runs: Storage) -> None:
    """Live steps and loss are in status before the end; then Ready, the result on storage, and one attempt."""
    kube.apply(small_job("first", training={"maxSteps": 60}, evaluation={"holdout": {"fraction": 0.1}}))
    live = kube.until_step("first", 1)["status"]
    assert live["phase"] == "Running"
    assert 0 < live["progress"]["step"] < 60
    assert live["progress"]["steps"].endswith("/60")
    assert live["progress"]["loss"] > 0
    assert live["progress"]["tokensPerSecond"] > 0
    assert {c["type"]: c["status"] for c in live["conditions"]} == {
        "Accepted": "True", "DataReady": "True", "Admitted": "True", "Running": "True", "Succeeded": "False",
        "Failed": "False", "Ready": "False", "Reconciling": "True", "Stalled": "False",
    }  # fmt: skip

    done = kube.until_phase("first", "Succeeded")
    assert_finished(kube, done, runs)
    kube.run("wait", JOB, "first", "--for=condition=Ready", "--timeout=5s")


def assert_finished(kube: Kube, job: dict[str, Any], runs: Storage) -> None:
    """Everything that a finished job promises."""
    status = job["status"]
    assert condition(job, "Ready")["status"] == "True"
    assert condition(job, "Reconciling")["status"] == "False"
    assert status["observedGeneration"] == job["metadata"]["generation"]
    assert status["progress"]["step"] == 60
    (attempt,) = status["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["exitCode"]) == (1, "Succeeded", 0)
    assert status["dataset"]["trainedTokens"] > 0
    assert status["dataset"]["evalRows"] > 0
    assert status["progress"]["evalLoss"] > 0
    assert status["device"] == "cpu"
    preview = kube.get("configmap", status["children"]["preview"])
    assert preview is not None
    assert "«" in preview["data"]["preview.txt"]
    assert preview["data"]["preview.html"].startswith("<!doctype html>")
    (output,) = status["outputs"]
    assert output["kind"] == "adapter"
    result = runs.directory / output["uri"].removeprefix("volume://runs/")
    assert json.loads((result / "adapter_config.json").read_text())["r"] == 4
    assert (result / "adapter_model.safetensors").stat().st_size > 0
    assert (runs.directory / attempt["log"].removeprefix("volume://runs/")).stat().st_size > 0
    assert "finalizers" not in job["metadata"]
    assert not [key for key in job["metadata"].get("annotations", {}) if "kopf" in key]
    columns = kube.run("get", JOB, "first").stdout
    assert "Succeeded" in columns
    assert "60/60" in columns


def test_applying_an_unchanged_manifest_changes_nothing(kube: Kube) -> None:
    """GitOps tools apply every few minutes: neither the object nor its children move."""
    manifest = small_job("again")
    kube.apply(manifest)
    before = kube.until_phase("again", "Succeeded")
    children = {child["metadata"]["uid"] for kind in ("jobs", "pytorchjobs") for child in kube.children(kind, before)}
    kube.apply(manifest)
    kube.apply(manifest, flags=("--server-side", "--force-conflicts"))
    kube.until_phase("again", "Succeeded")
    after = kube.job("again")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"] == before["status"]
    now = {child["metadata"]["uid"] for kind in ("jobs", "pytorchjobs") for child in kube.children(kind, after)}
    assert now == children


def test_two_pods_compute_the_same_losses_as_one(kube: Kube, runs: Storage) -> None:
    """Gradients are shared: step for step the same loss for the same global batch."""
    kube.apply(small_job("one", training={"globalBatchSize": 8, "maxSteps": 8}))
    kube.apply(small_job("two", training={"globalBatchSize": 8, "maxSteps": 8}, compute={"nodes": 2}))
    one, two = kube.until_phase("one", "Succeeded"), kube.until_phase("two", "Succeeded", seconds=400)
    (pytorch_job,) = kube.children("pytorchjobs", two)
    assert list(pytorch_job["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    first, second = runs.losses(one), runs.losses(two)
    assert len(first) == len(second) == 8
    assert second == pytest.approx(first, abs=1e-4)
    # Losses of the first step agree even without shared gradients; these move with what both ranks learned.
    assert abs(first[-1] - first[0]) > 1e-3


def test_five_jobs_at_once_all_succeed(kube: Kube) -> None:
    """They share prepared data, and none waits for another one's end."""
    names = [f"job-{number}" for number in range(5)]
    kube.apply(*(small_job(name, training={"maxSteps": 3}) for name in names))
    jobs = [kube.until_phase(name, "Succeeded", seconds=500) for name in names]
    assert len({job["status"]["children"]["pytorchJob"] for job in jobs}) == 5
    assert len({job["status"]["dataset"]["fingerprint"] for job in jobs}) == 1


@pytest.mark.parametrize("name", ["llama.3.1-8b.chat", "n" * 200 + ".x" * 26 + "y"], ids=["dots", "253-characters"])
def test_any_legal_name_works(kube: Kube, name: str) -> None:
    """A custom resource may be called what a PyTorchJob may not."""
    kube.apply(small_job(name, training={"maxSteps": 2}))
    kube.until_phase(name, "Succeeded")


def test_without_storage_a_claim_is_made_and_outlives_the_job(kube: Kube, runs: Storage) -> None:
    """The default class serves it, and deleting the job does not delete results."""
    manifest = small_job("homeless", training={"maxSteps": 2})
    del manifest["spec"]["storage"]
    kube.apply(manifest)
    job = kube.until_phase("homeless", "Succeeded")
    claim = job["status"]["children"]["claim"]
    assert job["status"]["outputs"][0]["uri"].startswith(f"volume://{claim}/")
    kube.run("delete", JOB, "homeless", "--timeout=30s")
    kept = kube.get("pvc", claim)
    assert kept is not None
    assert "ownerReferences" not in kept["metadata"]
    assert runs.directory.exists()


def test_children_go_after_the_ttl_and_the_job_stays(kube: Kube) -> None:
    """A GitOps tool would create a deleted job again; so only what it made is removed."""
    kube.apply(small_job("brief", training={"maxSteps": 2}, runPolicy={"ttlSecondsAfterFinished": 3}))
    job = kube.until_phase("brief", "Succeeded")

    def gone() -> bool:
        return not any(kube.children(kind, job) for kind in ("jobs", "pytorchjobs", "pods", "configmaps"))

    kube.until("children are removed", gone, seconds=60, name="brief")
    assert kube.job("brief")["status"]["phase"] == "Succeeded"
