"""`anneal status` and `anneal logs` of real pods, while they run and afterwards."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.harness import JOB, Kube, small_job

pytestmark = pytest.mark.e2e


def command(kube: Kube, *arguments: str) -> list[str]:
    """The program with the test's cluster and namespace made explicit."""
    return [sys.executable, "-m", "anneal_cli", *arguments, f"--kubeconfig={kube.kubeconfig}", "-n", kube.namespace]


def anneal(kube: Kube, *arguments: str, code: int = 0) -> str:
    """Both outputs of a command that ends with `code`."""
    done = subprocess.run(command(kube, *arguments), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def followed(kube: Kube, name: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`anneal logs -f` in the background, and the file that it writes to."""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as output:
        process = subprocess.Popen(command(kube, "logs", name, "-f"), stdout=output, stderr=output, text=True)
        try:
            yield process, Path(output.name)
        finally:
            process.kill()
            process.wait()


def test_a_job_is_followed_from_apply_to_its_end(kube: Kube) -> None:
    """Started right after apply, `logs -f` shows the prepare pod and both ranks, and ends by itself with the job."""
    kube.apply(small_job("followed", training={"maxSteps": 8}, compute={"nodes": 2}))
    with followed(kube, "followed") as (process, output):
        kube.until_phase("followed", "Succeeded")
        assert process.wait(timeout=60) == 0
        text = output.read_text()
    assert "ready: 80 of 80 rows" in text  # the prepare pod's last line
    assert "[0] " in text
    assert "[1] " in text


def test_a_finished_job_is_shown_and_its_logs_found(kube: Kube) -> None:
    """Status has the result; logs come from the pods and, when those are gone, name the file on the claim."""
    kube.apply(small_job("shown", training={"maxSteps": 3}))
    job = kube.until_phase("shown", "Succeeded")
    shown = anneal(kube, "status", "shown")
    assert shown.startswith(f"{kube.namespace}/shown: Succeeded")
    assert "3/3 (100%)" in shown
    assert job["status"]["outputs"][0]["uri"] in shown
    assert json.loads(anneal(kube, "status", "shown", "-o", "json"))["metadata"]["uid"] == job["metadata"]["uid"]
    assert "shown" in anneal(kube, "status")
    assert anneal(kube, "logs", "shown").strip()
    assert "ready: 80 of 80 rows" in anneal(kube, "logs", "shown", "--prepare")

    kube.run("delete", "pods", "-l", f"anneal.dev/owner-uid={job['metadata']['uid']}")
    assert job["status"]["attempts"][0]["log"] in anneal(kube, "logs", "shown", code=66)


def test_a_missing_job_is_one_line(kube: Kube) -> None:
    """The exit code says missing input, and the line where to look."""
    assert anneal(kube, "status", "nobody", code=66).count("\n") == 1


def test_a_new_object_is_not_taken_for_ready(kube: Kube) -> None:
    """The API server itself gives a new object a generation that no operator has seen, so kstatus does not call it done."""
    dry = json.loads(
        kube.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(small_job("new"))).stdout
    )
    assert dry["status"] == {"observedGeneration": -1}
    assert kube.get(JOB, "new") is None
