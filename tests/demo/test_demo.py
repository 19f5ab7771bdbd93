"""What the demo decides before it touches a cluster: which one, with which images, and when a job has ended."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anneal_api import load_jobs
from cluster.shell import PrerequisiteError
from demo import demo
from demo.follow import has_ended, has_succeeded
from demo.manifests import CLAIM, image, one_off_job, seed, values
from demo.target import check_pair, named

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param("localhost:5000/a/b:1", ("localhost:5000/a/b", "1", ""), id="port-and-tag"),
        pytest.param("localhost:5000/a", ("localhost:5000/a", "latest", ""), id="port"),
        pytest.param("a@sha256:0", ("a", "latest", "sha256:0"), id="digest"),
        pytest.param("r.example.com/a:2@sha256:0", ("r.example.com/a", "2", "sha256:0"), id="tag-and-digest"),
    ],
)
def test_an_image_reference_becomes_chart_values(reference: str, expected: tuple[str, str, str]) -> None:
    """Repository, tag and digest are told apart, a registry's port included."""
    assert tuple(image(reference).values()) == expected


@pytest.mark.parametrize("pair", [("kubeconfig", ""), ("", "context")], ids=["no-context", "no-kubeconfig"])
def test_half_a_cluster_is_refused(pair: tuple[str, str]) -> None:
    """A kubeconfig without a context, or the reverse, never falls back to a person's current one."""
    with pytest.raises(PrerequisiteError, match="give both"):
        check_pair(*pair)


def test_a_kubeconfig_in_the_environment_names_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG alone does not make the demo use somebody's cluster."""
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    assert check_pair("", "") is False


def test_everything_that_a_named_cluster_lacks_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs, file and images that are missing are all listed before anything is touched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError) as caught:
        named(str(tmp_path / "none"), "c", {}, images=True)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "kubectl",
        "helm",
        "KUBECONFIG_FILE",
        "OPERATOR_IMAGE",
        "TRAINER_IMAGE",
    ]


def test_a_missing_prerequisite_is_a_clear_line_and_exit_code_2() -> None:
    """The command prints the lines and nothing else."""
    command = [sys.executable, "-m", "demo.demo", "up", "--kubeconfig", "x"]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == demo.MISSING
    assert done.stderr.startswith("KUBECONFIG_FILE and CONTEXT: give both")
    assert done.stderr.count("\n") == 1


def condition(kind: str, status: str) -> dict[str, Any]:
    """A condition of a job."""
    return {"type": kind, "status": status, "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("conditions", "ended", "succeeded"),
    [
        pytest.param([], False, False, id="new"),
        pytest.param([condition("Succeeded", "False"), condition("Failed", "False")], False, False, id="running"),
        pytest.param([condition("Succeeded", "True")], True, True, id="succeeded"),
        pytest.param([condition("Failed", "True"), condition("Succeeded", "False")], True, False, id="failed"),
    ],
)
def test_the_end_is_read_from_the_conditions(conditions: list[dict[str, Any]], ended: bool, succeeded: bool) -> None:  # noqa: FBT001 - table columns
    """A job has ended when it has succeeded or failed, whatever its phase says."""
    job = {"status": {"phase": "Succeeded", "conditions": conditions}}
    assert (has_ended(job), has_succeeded(job)) == (ended, succeeded)


def test_one_off_jobs_meet_the_restricted_standard() -> None:
    """Non-root, no privilege, no token, read-only root: the demo's namespace enforces it."""
    pod = one_off_job("x", "image", [])["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    security = pod["containers"][0]["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})


def test_the_example_uses_what_the_demo_prepares() -> None:
    """The example's claim and paths are those that the seed Job writes, and it needs no GPU."""
    (job,) = load_jobs(demo.EXAMPLE)
    target = seed("image")["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    prefix = f"volume://{CLAIM}/{target.rpartition('/')[2]}/"
    assert [
        source for source in (job.spec.model.source, job.spec.datasets[0].source) if not source.startswith(prefix)
    ] == []
    assert job.spec.storage is not None
    assert job.spec.storage.volume is not None
    assert job.spec.storage.volume.claim_name == CLAIM
    assert job.spec.compute.gpus_per_node == 0
    assert values("a:1", "b:2")["pools"]["default"]["resourceName"] == ""
