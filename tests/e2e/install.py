"""Installing the operator as a user would, and namespaces with a seeded claim: shared by the tests and the measurements."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import lifecycle
from cluster.images import VLLM, reference
from e2e.harness import Kube, Storage, claim_manifests
from e2e.tiny import make_tiny

SYSTEM = "anneal-system"
CHART = Path(__file__).parents[2] / "helm/anneal"
# A pool without a GPU resource is legal for development: its jobs train on the CPU. Those of the other one ask for GPUs
# that the node only says it has (`cluster.devices`), and train on the CPU too.
POOLS: dict[str, Any] = {"default": {"resourceName": ""}, "gpus": {}}


def image_values(reference: str) -> dict[str, str]:
    """The chart's image block for a reference `repository:tag`."""
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def install(cluster: lifecycle.Cluster, settings: dict[str, Any]) -> Kube:
    """`helm upgrade --install` with the cluster's own images; returns kubectl in the operator's namespace."""
    assert cluster.images is not None
    images = {"operator": image_values(cluster.images.operator), "trainer": image_values(cluster.images.trainer)}
    # Named whether it is there or not: it is made for the tests that ask for it.
    images["rollout"] = image_values(reference(VLLM))
    kube = Kube(cluster.kubectl, cluster.kubeconfig, SYSTEM)
    make_namespace(kube, SYSTEM)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as values:
        json.dump({"images": images, "pools": POOLS, **settings}, values)
        values.flush()
        command = [str(cluster.helm), "--kubeconfig", str(cluster.kubeconfig), "upgrade", "--install", "anneal"]
        command += [str(CHART), "-n", SYSTEM, "-f", values.name, "--wait", "--timeout", "180s"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{kube.describe('')}"
    return kube


def make_namespace(kube: Kube, name: str) -> None:
    """A namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "anneal-e2e": "true"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def seeded_claim(cluster: lifecycle.Cluster, kube: Kube, namespace: str) -> Storage:
    """A claim `runs` in `namespace`, on a directory of the node that holds the tiny model and its data."""
    directory = cluster.node.paths.volumes / namespace / "runs"
    shutil.rmtree(directory, ignore_errors=True)
    make_tiny(directory / "tiny")
    subprocess.run(["chown", "-R", "1000:1000", str(directory)], check=True)
    inside = replace(kube, namespace=namespace)
    inside.apply(*claim_manifests(namespace=namespace, claim="runs", directory=directory, node=cluster.node_name))
    return Storage("runs", directory)
