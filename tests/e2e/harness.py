"""What end-to-end tests say in one line: apply, wait until, look. Everything goes through kubectl and the claim's directory.

A wait that times out prints the object, its children and the operator's last lines, because that is what one needs then.
Not here: starting anything (`conftest`).
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOB = "finetunejobs.anneal.dev"
RLHF = "rlhfjobs.anneal.dev"


class KubectlError(AssertionError):
    """A kubectl command that failed, with what it said."""


@dataclass(frozen=True)
class Kube:
    """kubectl bound to one cluster and namespace, and to the kind of job that names stand for."""

    kubectl: Path
    kubeconfig: Path
    namespace: str
    jobs: str = JOB

    def run(self, *args: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; the error shows what it printed."""
        command = [str(self.kubectl), "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done

    def apply(self, *manifests: dict[str, Any], flags: tuple[str, ...] = ()) -> str:
        """Apply manifests in one call."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self.run("apply", *flags, "-f", "-", stdin=json.dumps(items)).stdout

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None if there is none."""
        out = self.run("get", kind, name, "--ignore-not-found", "-o", "json").stdout
        return json.loads(out) if out.strip() else None

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of a kind, by label."""
        args = ("-l", selector) if selector else ()
        found: list[dict[str, Any]] = json.loads(self.run("get", kind, *args, "-o", "json").stdout)["items"]
        return found

    def job(self, name: str) -> dict[str, Any]:
        """A job that must exist."""
        found = self.get(self.jobs, name)
        assert found is not None, f"{name} is gone"
        return found

    def children(self, kind: str, job: dict[str, Any]) -> list[dict[str, Any]]:
        """What was made for this job."""
        return self.objects(kind, f"anneal.dev/owner-uid={job['metadata']['uid']}")

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Merge into a job's spec."""
        self.run("patch", self.jobs, name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def until(self, what: str, look: Callable[[], Any], *, seconds: float = 180, name: str = "") -> Any:
        """The first truthy answer of `look`; on a time-out, everything that helps to see why."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if answer := look():
                return answer
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.describe(name)}")

    def until_phase(self, name: str, phase: str, *, seconds: float = 240) -> dict[str, Any]:
        """Wait for a phase; an end that is not the one waited for fails at once."""

        def look() -> dict[str, Any] | None:
            job = self.job(name)
            now = job.get("status", {}).get("phase")
            if now == phase:
                return job
            if now in {"Succeeded", "Failed"}:
                raise AssertionError(f"{name} ended as {now}, not {phase}\n{self.describe(name)}")
            return None

        found: dict[str, Any] = self.until(f"{name} is {phase}", look, seconds=seconds, name=name)
        return found

    def until_step(self, name: str, step: int, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until status reports at least this step, while the job runs."""

        def look() -> dict[str, Any] | None:
            job = self.job(name)
            assert job.get("status", {}).get("phase") not in {"Succeeded", "Failed"}, self.describe(name)
            return job if (job.get("status", {}).get("progress") or {}).get("step", 0) >= step else None

        found: dict[str, Any] = self.until(f"{name} reaches step {step}", look, seconds=seconds, name=name)
        return found

    def describe(self, name: str) -> str:
        """The object, its children, pods' logs and the operator's last lines."""
        parts = [self.run("get", self.jobs, name, "-o", "yaml", check=False).stdout] if name else []
        parts.append(self.run("get", "jobs,pytorchjobs,deployments,pods,pvc", "-o", "wide", check=False).stdout)
        parts.append(self.run("get", "events", "--sort-by=.lastTimestamp", check=False).stdout[-3000:])
        for pod in self.objects("pods"):
            pod_name = pod["metadata"]["name"]
            parts.append(
                f"--- {pod_name}\n{self.run('logs', pod_name, '--all-containers', '--tail=15', check=False).stdout}"
            )
        operator = ("-n", "anneal-system", "-l", "app.kubernetes.io/component=operator", "--tail=40")
        parts.append(self.run("logs", *operator, check=False).stdout[-6000:])
        return "\n".join(parts)


def condition(job: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition by type; an empty one where the status has none."""
    found = [each for each in job.get("status", {}).get("conditions", []) if each["type"] == kind]
    return found[0] if found else {}


@dataclass(frozen=True)
class Storage:
    """A claim and the directory behind it on the node, which is this machine."""

    claim: str
    directory: Path

    def seed(self, source: Path) -> None:
        """Copy a model and data; owned by the user that pods run as."""
        shutil.copytree(source, self.directory, dirs_exist_ok=True)
        subprocess.run(["chown", "-R", "1000:1000", str(self.directory)], check=True)

    def losses(self, job: dict[str, Any]) -> list[float]:
        """The loss of every step of a finished job."""
        return self.measured(job, "loss")

    def measured(self, job: dict[str, Any], name: str) -> list[float]:
        """One measure of every step of a finished job, as the trainer recorded it beside its log."""
        output = job["status"]["outputs"][0]["uri"].removeprefix(f"volume://{self.claim}/")
        lines = (self.directory / output).parent.joinpath("logs/metrics.jsonl").read_text().splitlines()
        return [record[name] for record in map(json.loads, lines) if name in record]


def claim_manifests(
    *, namespace: str, claim: str, directory: Path, node: str, modes: tuple[str, ...] = ("ReadWriteMany",)
) -> list[dict[str, Any]]:
    """A PersistentVolume on a directory of the node, and the claim that is bound to it."""
    volume = f"{namespace}-{claim}"
    resources = {"storage": "1Gi"}
    affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "labels": {"anneal-e2e": namespace}},
            "spec": {
                "capacity": resources,
                "accessModes": list(modes),
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "local": {"path": str(directory)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {
                "accessModes": list(modes),
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": resources},
            },
        },
    ]


def small_job(name: str, **spec: Any) -> dict[str, Any]:
    """A job that trains in seconds on the seeded model and data; top-level spec keys are replaced, `training` merged."""
    training = {"maxSteps": 6, "globalBatchSize": 4, "microBatchSize": 2, "sequenceLength": 128, "learningRate": 1e-3}
    training |= {"gradientCheckpointing": False, "precision": "fp32"} | spec.pop("training", {})
    resources = {"gpusPerNode": 0, "cpu": "100m", "memory": "2Gi", "sharedMemory": "64Mi"}
    resources |= {"prepare": {"cpu": "100m", "memory": "2Gi"}} | spec.pop("compute", {})
    return {
        "apiVersion": "anneal.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "volume://runs/tiny/model"},
            "adapter": {"r": 4},
            "datasets": [{"source": "volume://runs/tiny/train.jsonl", "type": "alpaca"}],
            "storage": {"volume": {"claimName": "runs"}},
            "training": training,
            "compute": resources,
            **spec,
        },
    }
