"""The cluster that the demo works on: the one it makes, or one that was named by kubeconfig *and* context.

A KUBECONFIG in the environment or a current context alone is never used: they may be somebody's production.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.shell import ClusterError, PrerequisiteError


@dataclass(frozen=True)
class Target:
    """How to reach a cluster, and which images it can pull. `owned`: it was made for the demo alone."""

    kubectl: str
    helm: str
    kubeconfig: Path
    context: str
    operator_image: str
    trainer_image: str
    owned: bool

    def kubectl_command(self, *arguments: str) -> list[str]:
        """Kubectl with the cluster made explicit."""
        return [self.kubectl, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}", *arguments]

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of kubectl; ClusterError with its words if it fails."""
        return _output(self.kubectl_command(*arguments), stdin)

    def run_helm(self, *arguments: str) -> str:
        """Standard output of helm; ClusterError with its words if it fails."""
        return _output(
            [self.helm, f"--kubeconfig={self.kubeconfig}", f"--kube-context={self.context}", *arguments], None
        )

    def exists(self, kind: str, name: str, *, namespace: str = "default") -> bool:
        """Whether there is such an object."""
        return bool(self.run_kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "-o=name"))


def _output(command: list[str], stdin: str | None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(word for word in command[:1] + command[3:8])
        raise ClusterError(f"`{shown}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def own(cluster: Any) -> Target:
    """The cluster that was made here, with the images that were built for it."""
    return Target(
        kubectl=str(cluster.kubectl),
        helm=str(cluster.helm),
        kubeconfig=cluster.kubeconfig,
        context=cluster.context,
        operator_image=cluster.images.operator if cluster.images else "",
        trainer_image=cluster.images.trainer if cluster.images else "",
        owned=True,
    )


def named(kubeconfig: str, context: str, environment: Mapping[str, str], *, images: bool) -> Target:
    """A cluster of somebody's own; PrerequisiteError says everything that is missing, before anything is touched."""
    found = {program: shutil.which(program) for program in ("kubectl", "helm")}
    problems = [f"{name}: not on PATH; install it to use a cluster of your own" for name, at in found.items() if not at]
    if not Path(kubeconfig).expanduser().is_file():
        problems.append(f"KUBECONFIG_FILE: no such file: {kubeconfig}")
    if images:
        problems += [
            f"{variable}: write the image that this cluster can pull: make demo … {variable}=REGISTRY/NAME:TAG"
            for variable in ("OPERATOR_IMAGE", "TRAINER_IMAGE")
            if not environment.get(variable)
        ]
    if problems:
        raise PrerequisiteError(problems)
    return Target(
        kubectl=str(found["kubectl"]),
        helm=str(found["helm"]),
        kubeconfig=Path(kubeconfig).expanduser().resolve(),
        context=context,
        operator_image=environment.get("OPERATOR_IMAGE", ""),
        trainer_image=environment.get("TRAINER_IMAGE", ""),
        owned=False,
    )


def check_pair(kubeconfig: str, context: str) -> bool:
    """Whether a cluster is named; half a name is an error, as guessing the other half could hit the wrong cluster."""
    if bool(kubeconfig) != bool(context):
        raise PrerequisiteError(
            ["KUBECONFIG_FILE and CONTEXT: give both to use a cluster of your own, or neither to have one made"]
        )
    return bool(kubeconfig)
