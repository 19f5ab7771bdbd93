"""The real Kueue, put into a running cluster and taken out again: built on first use, installed by its own chart.

It is not part of a cluster: most tests must see that nothing changes without it. It is set up as strictly as an
administrator can (`manageJobsWithoutQueueName`, with Jobs, pods and Deployments), so that what we make is left alone
because of what docs/kueue.md says must be set, and not because Kueue was not looking.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cluster import addons
from cluster.binaries import KUEUE, ensure_binaries
from cluster.scratch_images import import_images, kueue_image
from cluster.shell import ClusterError, run, step, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.lifecycle import Cluster

NAMESPACE = "kueue-system"
VISIBILITY = "v1beta2.visibility.kueue.x-k8s.io"
KINDS = ("FineTuneJob.v1alpha1.anneal.dev", "RLHFJob.v1alpha1.anneal.dev")
# Namespaces that no administrator puts under quota: the cluster's own parts and the operators.
UNMANAGED = ("kube-system", NAMESPACE, "kubeflow", "anneal-system")
_RELEASE = "kueue"
_DEPLOYMENT = "kueue-controller-manager"
_SECRET = "kueue-webhook-server-cert"
_READER = "kueue-reads-anneal"
_TIMEOUT = 120


def install(cluster: Cluster, **changes: Any) -> None:
    """Install or upgrade Kueue and wait until it admits objects; `changes` replace keys of its configuration."""
    directory = ensure_binaries((KUEUE,)).directory("kueue")
    with step("installing Kueue"):
        image = kueue_image(directory / "kueue")
        if image.reference not in cluster.node.run(["ctr", "--namespace=k8s.io", "images", "ls", "-q"]).split():
            import_images(cluster.node, (image,))
        _kubectl(cluster, "apply", "--server-side", "-f", "-", stdin=json.dumps(reader()))
        values = json.dumps(chart_values(image.reference, {**configuration(), **changes}))
        command = ("upgrade", "--install", _RELEASE, directory / KUEUE.kept, "--create-namespace", "--values=-")
        _helm(cluster, *command, stdin=values)
        _wait_ready(cluster)


def uninstall(cluster: Cluster) -> None:
    """Remove Kueue with its definitions, and so every Workload and queue; nothing happens where it is not."""
    with step("removing Kueue"):
        _helm(cluster, "uninstall", _RELEASE, "--ignore-not-found")
        if not wait_until(lambda: not _released(cluster), timeout=_TIMEOUT, interval=0.5):
            raise ClusterError(f"Kueue's objects are still there after {_TIMEOUT} s: {', '.join(_released(cluster))}")
        for kinds, name in (("clusterrole,clusterrolebinding", _READER), ("namespace", NAMESPACE)):
            _kubectl(cluster, "delete", kinds, name, "--ignore-not-found")


def configuration() -> dict[str, Any]:
    """Kueue's own configuration file."""
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": ":8081"},
        "metrics": {"bindAddress": ":8443"},
        "webhook": {"port": 9443},
        # One replica: a lease would only have to run out before the next installation may start.
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"qps": 300, "burst": 500},
        "manageJobsWithoutQueueName": True,
        "managedJobsNamespaceSelector": all_namespaces_but(*UNMANAGED),
        "integrations": {"frameworks": ["batch/job", "pod", "deployment"], "externalFrameworks": list(KINDS)},
    }


def all_namespaces_but(*names: str) -> dict[str, Any]:
    """A selector of namespaces, by the label that each has from the API server."""
    return {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(names)}]}


def chart_values(reference: str, config: dict[str, Any]) -> dict[str, Any]:
    """Our image, and probes that do not wait for a program that is ready in seconds."""
    repository, _, tag = reference.rpartition(":")
    probe = {"initialDelaySeconds": 0, "periodSeconds": 1, "timeoutSeconds": 3}
    return {
        "controllerManager": {
            "manager": {
                "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            },
            "readinessProbe": probe,
        },
        "managerConfig": {"controllerManagerConfigYaml": json.dumps(config)},
    }


def reader() -> dict[str, Any]:
    """The permission that Kueue needs to look at the owner of a Job or pod; without it such children are refused."""
    named = {"name": _READER}
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["anneal.dev"], "resources": ["finetunejobs", "rlhfjobs"], "verbs": ["get", "list", "watch"]}
    subject = {"kind": "ServiceAccount", "name": _DEPLOYMENT, "namespace": NAMESPACE}
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": named, "rules": [rule]}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": named,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _READER},
        "subjects": [subject],
    }
    return {"apiVersion": "v1", "kind": "List", "items": [role, binding]}


def _wait_ready(cluster: Cluster) -> None:
    deadline = time.monotonic() + _TIMEOUT
    if not wait_until(lambda: _refresh_certificate(cluster), timeout=_TIMEOUT, interval=0.5):
        raise ClusterError(
            f"Kueue made no webhook certificate within {_TIMEOUT} s; see `kubectl logs -n {NAMESPACE} deployment/{_DEPLOYMENT}`"
        )
    left = max(5, int(deadline - time.monotonic()))
    waits = (
        ("rollout", "status", f"--namespace={NAMESPACE}", f"deployment/{_DEPLOYMENT}"),
        ("wait", "--for=condition=Available", f"apiservice/{VISIBILITY}"),
    )
    for arguments in waits:
        _kubectl(cluster, *arguments, f"--timeout={left}s", timeout=left + 10)
    if not wait_until(lambda: _admits(cluster), timeout=left, interval=0.5):
        raise ClusterError(f"Kueue's webhook admits no object within {left} s of its rollout")


def _admits(cluster: Cluster) -> bool:
    """A pod that is ready is not yet one that its Service leads to: after an upgrade the old one may still be called."""
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "is-it-there"}}
    try:
        _kubectl(cluster, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(flavor))
    except ClusterError:
        return False
    return True


def _refresh_certificate(cluster: Cluster) -> bool:
    """The same delay as of the training-operator's certificate, and the same way around it (see `addons`)."""
    secret = json.loads(_kubectl(cluster, "get", "secret", _SECRET, f"--namespace={NAMESPACE}", "--output=json"))
    if not all(secret.get("data", {}).get(key) for key in ("ca.crt", "tls.crt", "tls.key")):
        return False
    mark = ("annotate", "pods", f"--namespace={NAMESPACE}", "--all", "--overwrite", "anneal.dev/certificate=written")
    _kubectl(cluster, *mark)
    return True


def _released(cluster: Cluster) -> list[str]:
    """What of Kueue is left, after its finalizers were taken off: nobody is there any more to do that.

    While it was ending it may even have made new Workloads for Jobs that it held.
    """
    definitions = _kubectl(cluster, "get", "crd", "--output=name").splitlines()
    kinds = [name.partition("/")[2] for name in definitions if name.endswith(".kueue.x-k8s.io")]
    for kind in kinds:
        # A kind may go while it is looked at; what stays is tried again.
        with suppress(ClusterError):
            _take_finalizers(cluster, kind)
    _take_finalizers(cluster, "pods", "--selector=kueue.x-k8s.io/managed=true")
    return kinds


def _take_finalizers(cluster: Cluster, kind: str, *selection: str) -> None:
    found = _kubectl(cluster, "get", kind, "--all-namespaces", "--output=json", *selection)
    for each in (item["metadata"] for item in json.loads(found)["items"]):
        if each.get("finalizers"):
            place = (f"--namespace={each['namespace']}",) if "namespace" in each else ()
            patch = json.dumps({"metadata": {"finalizers": None}})
            _kubectl(cluster, "patch", kind, each["name"], *place, "--type=merge", f"--patch={patch}")


def _kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    return addons.kubectl(cluster.node.paths, cluster.binaries, *arguments, stdin=stdin, timeout=timeout)


def _helm(cluster: Cluster, *arguments: str | Path, stdin: str | None = None) -> str:
    command = [cluster.helm, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", *arguments]
    return run(command, stdin=stdin, timeout=_TIMEOUT + 60)
