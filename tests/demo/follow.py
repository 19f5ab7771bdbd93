"""Following a job to its end as a person would, `kubectl get finetunejobs --watch`, and telling how it ended."""

import json
import subprocess
import time
from typing import Any

from anneal_api import ConditionType
from anneal_api.status import JobStatus
from cluster.shell import ClusterError
from demo.manifests import NAMESPACE
from demo.target import Target

LIMIT_SECONDS = 1800.0
_JOB = "finetunejobs.anneal.dev"


def follow(target: Target, name: str, *, limit: float = LIMIT_SECONDS) -> dict[str, Any]:
    """Print the watch until the job has succeeded or failed; the job as it is then."""
    watch = ["get", _JOB, name, f"--namespace={NAMESPACE}", "--watch"]
    deadline = time.monotonic() + limit
    process = subprocess.Popen(target.kubectl_command(*watch))
    try:
        while time.monotonic() < deadline:
            job = read(target, name)
            if has_ended(job):
                time.sleep(1)  # the watch prints its last line
                return job
            if process.poll() is not None:  # the API server ends watches from time to time
                process = subprocess.Popen(target.kubectl_command(*watch, "--no-headers", "--watch-only"))
            time.sleep(1)
    finally:
        process.terminate()
        process.wait()
    message = read(target, name).get("status", {}).get("message", "the operator has not seen it")
    raise ClusterError(f"{name} has not ended within {limit / 60:.0f} min: {message}")


def read(target: Target, name: str) -> dict[str, Any]:
    """The job as the API server holds it."""
    job: dict[str, Any] = json.loads(target.run_kubectl("get", _JOB, name, f"--namespace={NAMESPACE}", "-o=json"))
    return job


def conditions(job: dict[str, Any]) -> dict[str, str]:
    """The status of each condition."""
    status = JobStatus.model_validate(job.get("status") or {})
    return {condition.type: condition.status for condition in status.conditions}


def has_ended(job: dict[str, Any]) -> bool:
    """Whether the job has succeeded or failed."""
    found = conditions(job)
    return "True" in {found.get(ConditionType.SUCCEEDED), found.get(ConditionType.FAILED)}


def has_succeeded(job: dict[str, Any]) -> bool:
    """Whether the job has succeeded."""
    return conditions(job).get(ConditionType.SUCCEEDED) == "True"


def run_once(target: Target, job: dict[str, Any], *, limit: float = 600) -> str:
    """Run a one-off Job to its end, and return what its pod printed; ClusterError with that if it failed."""
    name = job["metadata"]["name"]
    delete = ("delete", "job", name, f"--namespace={NAMESPACE}", "--ignore-not-found")
    target.run_kubectl(*delete, "--cascade=foreground", "--timeout=60s")
    target.run_kubectl("apply", "-f", "-", stdin=json.dumps(job))
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        text = target.run_kubectl("get", "job", name, f"--namespace={NAMESPACE}", "-o=json")
        status = json.loads(text).get("status", {})
        if status.get("succeeded") or status.get("failed"):
            printed = target.run_kubectl("logs", f"job/{name}", f"--namespace={NAMESPACE}")
            if status.get("failed"):
                raise ClusterError(f"the Job {name} failed; it printed:\n{printed}")
            target.run_kubectl(*delete)
            return printed
        time.sleep(0.5)
    events = target.run_kubectl("get", "events", f"--namespace={NAMESPACE}", "--sort-by=.lastTimestamp")
    raise ClusterError(f"the Job {name} has not ended within {limit:.0f} s; the last events:\n{events[-2000:]}")
