"""What runs in the cluster itself: its DNS, and the real Kubeflow training-operator from its own manifests."""

from __future__ import annotations

import json
import os
from string import Template
from typing import TYPE_CHECKING

from cluster.layout import SOURCE
from cluster.scratch_images import COREDNS_IMAGE
from cluster.shell import ClusterError, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.binaries import Binaries
    from cluster.layout import Paths, Subnets


def kubectl(
    paths: Paths, binaries: Binaries, *arguments: str | Path, stdin: str | None = None, timeout: float = 120
) -> str:
    return run([binaries.part("kubectl"), f"--kubeconfig={paths.kubeconfig}", *arguments], stdin=stdin, timeout=timeout)


def apply_addons(paths: Paths, subnets: Subnets, binaries: Binaries) -> None:
    """Create the objects; their pods start when the node is there."""
    template = Template((SOURCE / "manifests" / "coredns.yaml").read_text())
    coredns = template.substitute(image=COREDNS_IMAGE, dns_ip=subnets.dns_ip)
    kubectl(paths, binaries, "apply", "--server-side", "-f", "-", stdin=coredns)
    overlay = write_overlay(paths.config / "training-operator", binaries.manifests)
    # The PyTorchJob definition is too large for the annotation of a client-side apply.
    kubectl(paths, binaries, "apply", "--server-side", "-k", overlay)


def wait_for_addons(paths: Paths, binaries: Binaries) -> None:
    """The training-operator admits jobs by a webhook of its own: until it is there no job can be created."""
    if not wait_until(lambda: _refresh_certificate(paths, binaries), timeout=120, interval=0.5):
        raise ClusterError(
            "the training-operator made no webhook certificate within 120 s; see `kubectl logs -n kubeflow deployment/training-operator`"
        )
    for namespace, deployment in (("kube-system", "coredns"), ("kubeflow", "training-operator")):
        arguments = ("rollout", "status", f"--namespace={namespace}", f"deployment/{deployment}", "--timeout=150s")
        kubectl(paths, binaries, *arguments, timeout=180)


def _refresh_certificate(paths: Paths, binaries: Binaries) -> bool:
    """Make the operator see the certificate that it wrote into a Secret, as soon as it has written it.

    The kubelet looks at mounted Secrets once in one to two minutes, or when the pod changes: so change the pod.
    """
    secret = ("get", "secret", "training-operator-webhook-cert", "--namespace=kubeflow", "--output=json")
    data = json.loads(kubectl(paths, binaries, *secret)).get("data", {})
    if not all(data.get(key) for key in ("ca.crt", "tls.crt", "tls.key")):
        return False
    mark = ("annotate", "pods", "--namespace=kubeflow", "--all", "--overwrite", "anneal.dev/certificate=written")
    kubectl(paths, binaries, *mark)
    return True


def write_overlay(directory: Path, manifests: Path) -> Path:
    """Upstream's standalone overlay, with probes that do not wait 10 to 25 s for a program ready in two."""
    directory.mkdir(parents=True, exist_ok=True)
    container = "/spec/template/spec/containers/0"
    probe = {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1, "timeoutSeconds": 3}
    patch = [{"op": "replace", "path": f"{container}/readinessProbe", "value": probe}]
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(manifests / "overlays" / "standalone", directory.resolve())],
        "patches": [{"target": {"kind": "Deployment", "name": "training-operator"}, "patch": json.dumps(patch)}],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(overlay, indent=1))
    return directory
