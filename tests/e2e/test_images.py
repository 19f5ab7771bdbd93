"""The images as they were built and pushed: what is in them, what is not, how large they are, as whom they run."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import images
from cluster.layout import REPOSITORY
from cluster.lifecycle import Cluster
from e2e.harness import Kube
from e2e.install import make_namespace

OWN_OPERATOR_LIMIT = 60_000_000
OWN_VLLM_LIMIT = 600_000_000
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Kube]:
    """An empty restricted namespace: the images need no operator to be looked at."""
    kube = Kube(cluster.kubectl, cluster.kubeconfig, "e2e-images")
    make_namespace(kube, kube.namespace)
    yield kube
    kube.run("delete", "namespace", kube.namespace, "--timeout=60s")


def run_in_pod(kube: Kube, image: str, script: str, *, python: str = "python") -> str:
    """What a Python script prints in a restricted pod with a read-only root."""
    container = {
        "name": "main",
        "image": image,
        "command": [python, "-c", script],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look"}, "spec": spec})
    kube.run("wait", "pod/look", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    return kube.run("logs", "look").stdout


def look(kube: Kube, image: str) -> dict[str, Any]:
    """User, modules that can be found, and whether code can be written to."""
    script = """
import getpass, importlib.util, json, os, sys
try:
    open("/app/written", "w")
    writable = True
except OSError:
    writable = False
names = ["torch", "kopf", "kubernetes", "trl", "anneal_api", "anneal_operator", "anneal_trainer"]
found = [name for name in names if importlib.util.find_spec(name)]
cached = os.path.exists(importlib.util.cache_from_source(importlib.util.find_spec("pydantic").origin))
print(json.dumps({"uid": os.getuid(), "user": getpass.getuser(), "found": found, "writable": writable, "cached": cached}))
"""
    seen: dict[str, Any] = json.loads(run_in_pod(kube, image, script))
    return seen


def test_the_operator_image_holds_no_training_stack(namespace: Kube, cluster: Cluster) -> None:
    """It runs as user 1000 on a read-only root with kopf and a client, and torch cannot be found in it."""
    assert cluster.images is not None
    seen = look(namespace, cluster.images.operator)
    assert {"kopf", "kubernetes", "anneal_operator", "anneal_api"} <= set(seen["found"])
    assert not {"torch", "trl"} & set(seen["found"])
    assert (seen["uid"], seen["writable"], seen["cached"]) == (1000, False, True)


def test_the_trainer_image_holds_no_kubernetes_client(namespace: Kube, cluster: Cluster) -> None:
    """It runs as user 1000 on a read-only root with torch and TRL, and no client of Kubernetes can be found in it."""
    assert cluster.images is not None
    seen = look(namespace, cluster.images.trainer)
    assert {"torch", "trl", "anneal_trainer", "anneal_api"} <= set(seen["found"])
    assert not {"kopf", "kubernetes"} & set(seen["found"])
    assert (seen["uid"], seen["user"], seen["writable"], seen["cached"]) == (1000, "anneal", False, True)


@pytest.mark.parametrize(("python", "pinned"), [("python3", "vllm-cpu.txt"), ("/opt/anneal/bin/python", "trainer.txt")])
def test_the_image_of_servers_has_two_pythons(namespace: Kube, vllm_image: str, python: str, pinned: str) -> None:
    """`python3` is vLLM's, with the torch of the trainer; the trainer's own has the trainer's transformers and no vLLM."""
    script = """
import importlib.metadata, importlib.util, json, os
print(json.dumps([
    os.getuid(),
    importlib.util.find_spec("vllm") is not None,
    importlib.util.find_spec("torch").origin.startswith("/opt/anneal/"),
    importlib.metadata.version("transformers"),
]))
"""
    user, has_vllm, shared, transformers = json.loads(run_in_pod(namespace, vllm_image, script, python=python))
    assert (user, has_vllm, shared) == (1000, pinned == "vllm-cpu.txt", True)
    assert f"transformers=={transformers}" in (REPOSITORY / "requirements" / pinned).read_text().splitlines()


def test_the_servers_image_adds_little_to_the_trainers(cluster: Cluster, vllm_image: str) -> None:
    """They share every layer of the trainer's dependencies, so that a node keeps torch once."""
    assert cluster.images is not None
    trainer, servers = images.pushed_layers(cluster.images.trainer), images.pushed_layers(vllm_image)
    assert max(trainer) in servers
    assert sum(size for size in servers if size not in trainer) < OWN_VLLM_LIMIT


def test_the_operators_own_layers_are_small(cluster: Cluster) -> None:
    """All that the operator adds to its base is under 60 MB compressed."""
    assert cluster.images is not None
    _, *own = images.pushed_layers(cluster.images.operator)
    assert 0 < sum(own) < OWN_OPERATOR_LIMIT


@pytest.mark.parametrize("image", [images.OPERATOR, images.TRAINER], ids=lambda image: image.name)
def test_code_is_the_last_and_a_small_layer(cluster: Cluster, image: images.Image) -> None:
    """A change of code costs one layer of at most 2 MB, on top of all others."""
    assert cluster.images is not None
    *_, last = images.pushed_layers(getattr(cluster.images, image.name))
    assert 10_000 < last < 2_000_000
