"""`make demo`, `demo-down`, `cluster-up` and `cluster-down`: the quickstart's manifest on a real cluster.

With no cluster named, one is made and everything on it is the demo's. On a named one the demo keeps to two namespaces
and a Helm release of its own, uses an Anneal that is already there, and removes only what it made.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anneal_api import load_jobs
from anneal_api.names import run_directory
from anneal_api.status import JobStatus
from cluster import lifecycle
from cluster.shell import ClusterError, PrerequisiteError, step
from demo.follow import follow, has_succeeded, run_once
from demo.manifests import CLAIM, NAMESPACE, claim, namespace, read_samples, seed, values
from demo.target import Target, check_pair, named, own

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/01-first-lora.yaml"
CLUSTER = "demo"
RELEASE = "anneal"
SYSTEM = "anneal-system"
# On somebody's cluster: names that nobody else uses.
DEMO_RELEASE = "anneal-demo"
DEMO_SYSTEM = "anneal-demo-system"
FAILED, MISSING = 1, 2


def demo_up(kubeconfig: str, context: str) -> int:
    """Install, seed, apply, follow, and show what came of it; 1 if the job failed."""
    target = _target(kubeconfig, context)
    _install(target)
    with step(f"namespace {NAMESPACE} (restricted) with the claim {CLAIM}"):
        _apply(target, namespace(NAMESPACE))
        _apply(target, claim())
    with step("model and data onto the claim"):
        run_once(target, seed(_trainer_image(target)))
    name = load_jobs(EXAMPLE)[0].name
    with step(f"kubectl apply -f {EXAMPLE.relative_to(ROOT)}"):
        # A run of an earlier demo would make this apply a no-op.
        target.run_kubectl("delete", "finetunejob", name, f"--namespace={NAMESPACE}", "--ignore-not-found")
        target.run_kubectl("apply", f"--namespace={NAMESPACE}", "-f", str(EXAMPLE))
    print(f"\n$ kubectl get finetunejobs -n {NAMESPACE} --watch", flush=True)
    begun = time.monotonic()
    job = follow(target, name)
    print(f"\n{name}: {time.monotonic() - begun:.0f} s from apply to the end", flush=True)
    _show(target, job)
    return 0 if has_succeeded(job) else FAILED


def demo_down(kubeconfig: str, context: str) -> int:
    """Remove everything that `demo_up` made."""
    if not check_pair(kubeconfig, context):
        lifecycle.down(CLUSTER)
        return 0
    target = named(kubeconfig, context, os.environ, images=False)
    if not target.exists("namespace", NAMESPACE) and not target.exists("namespace", DEMO_SYSTEM):
        print("nothing of the demo is there")
        return 0
    with step(f"removing namespace {NAMESPACE}"):
        target.run_kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
    if target.exists("namespace", DEMO_SYSTEM):
        with step(f"removing release {DEMO_RELEASE} and namespace {DEMO_SYSTEM}"):
            target.run_helm("uninstall", DEMO_RELEASE, "-n", DEMO_SYSTEM, "--ignore-not-found", "--wait")
            target.run_kubectl("delete", "namespace", DEMO_SYSTEM, "--timeout=180s")
    return 0


def cluster_up() -> int:
    """A cluster with everything installed, for work by hand."""
    target = own(lifecycle.up())
    _install(target)
    print(f"\nexport KUBECONFIG={target.kubeconfig}\nexport PATH={Path(target.kubectl).parent}:$PATH")
    return 0


def cluster_down() -> int:
    """Remove it."""
    lifecycle.down()
    return 0


def _target(kubeconfig: str, context: str) -> Target:
    if not check_pair(kubeconfig, context):
        return own(lifecycle.up(CLUSTER))
    installed_images = not _has_anneal(named(kubeconfig, context, os.environ, images=False))
    target = named(kubeconfig, context, os.environ, images=installed_images)
    if not target.exists("crd", "pytorchjobs.kubeflow.org"):
        raise PrerequisiteError(["PyTorchJob: this cluster lacks the Kubeflow training-operator: install version 1.9"])
    return target


def _has_anneal(target: Target) -> bool:
    """Whether somebody has installed Anneal there, other than an earlier demo."""
    return target.exists("crd", "finetunejobs.anneal.dev") and not target.exists("namespace", DEMO_SYSTEM)


def _install(target: Target) -> None:
    if not target.owned and _has_anneal(target):
        print("Anneal is installed in this cluster already: it is used as it is")
        return
    release, system = (RELEASE, SYSTEM) if target.owned else (DEMO_RELEASE, DEMO_SYSTEM)
    # A cluster made for the demo goes as a whole; from another one the CRDs go with the release.
    chart_values = {**values(target.operator_image, target.trainer_image), "crds": {"keep": target.owned}}
    with step("Helm chart helm/anneal"), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(chart_values, file)
        file.flush()
        _apply(target, namespace(system))
        where = ["-n", system, "-f", file.name, "--wait", "--timeout", "180s"]
        target.run_helm("upgrade", "--install", release, str(ROOT / "helm/anneal"), *where)


def _apply(target: Target, manifest: dict[str, Any]) -> None:
    target.run_kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def _trainer_image(target: Target) -> str:
    """The image that jobs use; of an Anneal that was there already, the one in its settings."""
    if target.trainer_image:
        return target.trainer_image
    selector = (
        "--all-namespaces",
        "-l",
        "app.kubernetes.io/name=anneal",
        "-o=jsonpath={.items[0].data.settings\\.yaml}",
    )
    settings = target.run_kubectl("get", "configmaps", *selector)
    lines = [line.partition(": ")[2] for line in settings.splitlines() if line.startswith("trainerImage: ")]
    if not lines:
        raise ClusterError(
            "the settings of the Anneal in this cluster are not there: give TRAINER_IMAGE=REGISTRY/NAME:TAG"
        )
    return lines[0].strip("\"'")


def _show(target: Target, job: dict[str, Any]) -> None:
    """What came of it, and what to try next."""
    name, metadata = job["metadata"]["name"], job["metadata"]
    access = [f"--kubeconfig={target.kubeconfig}", f"--context={target.context}"]
    print(flush=True)
    subprocess.run([sys.executable, "-m", "anneal_cli", "status", name, "-n", NAMESPACE, *access], check=False)
    if not has_succeeded(job):
        print(f"\n{name} failed: {job['status'].get('message')}", file=sys.stderr)
        return
    printed = run_once(target, read_samples(_trainer_image(target), run_directory(name, metadata["uid"])))
    before, after = (json.loads(line) for line in printed.splitlines())
    for first, then in zip(before, after, strict=True):
        print(f"\nSample: {first['prompt']}\n  before: {_one_line(first)}\n  after:  {_one_line(then)}")
    for output in JobStatus.model_validate(job["status"]).outputs:
        print(f"\nThe {output.kind} is at {output.uri}")
    print(_next_commands(target, name))


def _one_line(sample: dict[str, str]) -> str:
    return " ".join(sample["answer"].split()) or "(nothing)"


def _next_commands(target: Target, name: str) -> str:
    down = (
        "make demo-down"
        if target.owned
        else f"make demo-down KUBECONFIG_FILE={target.kubeconfig} CONTEXT={target.context}"
    )
    return f"""
Next:
  export KUBECONFIG={target.kubeconfig} PATH={Path(target.kubectl).parent}:$PATH
  kubectl --context {target.context} -n {NAMESPACE} get finetunejobs,pytorchjobs,pods
  .venv/bin/anneal logs {name} -n {NAMESPACE} --context {target.context}
  {down}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the Makefile's targets."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("up", "down"):
        chosen = commands.add_parser(command)
        chosen.add_argument("--kubeconfig", default="")
        chosen.add_argument("--context", default="")
    commands.add_parser("cluster-up")
    commands.add_parser("cluster-down")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "up":
                return demo_up(options.kubeconfig, options.context)
            case "down":
                return demo_down(options.kubeconfig, options.context)
            case "cluster-up":
                return cluster_up()
            case _:
                return cluster_down()
    except PrerequisiteError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return MISSING
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
