"""The session's cluster, with the chart installed, and a *restricted* namespace for each test.

ANNEAL_E2E_CLUSTER=NAME uses (and keeps) a cluster of that name, for work by hand; by default a cluster `e2e` is started
and removed at the end. A person's current context is never looked at.
"""

import hashlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster import devices, images, lifecycle
from cluster import kueue as real_kueue
from cluster.containers import kill_container as kill_main_container
from e2e.harness import Kube, Storage, claim_manifests
from e2e.install import SYSTEM, install, make_namespace
from e2e.online import make_taught
from e2e.tiny import make_tiny


@pytest.fixture(scope="session")
def cluster() -> Iterator[lifecycle.Cluster]:
    """A real cluster with both images; removed again unless it was named."""
    kept = os.environ.get("ANNEAL_E2E_CLUSTER")
    name = kept or "e2e"
    yield lifecycle.up(name)
    if not kept:
        lifecycle.down(name)


@pytest.fixture(scope="session")
def system(cluster: lifecycle.Cluster) -> Kube:
    """The operator, installed by the chart as a user would."""
    return install(cluster, {"progressIntervalSeconds": 1})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the cluster are the first, since they take longest.

    Those that ask for Kueue are the last of them, so that others never met it. Before these comes the one that sees it
    come, and after them the one that sees it go.
    """
    order = ("kueue_goes", "kueue", "kueue_comes")

    def rank(item: pytest.Item) -> tuple[bool, int]:
        asked = getattr(item, "fixturenames", ())
        place = next((place for place, name in enumerate(order) if name in asked), len(order))
        return Path(__file__).parent not in item.path.parents, -place

    items.sort(key=rank)


@pytest.fixture(scope="session")
def kueue(system: Kube, cluster: lifecycle.Cluster) -> Iterator[None]:
    """The real Kueue, which manages every Job and pod of the tests' namespaces that it is not told to leave alone."""
    del system  # it is there first, as on a cluster that gets Kueue later
    real_kueue.install(cluster)
    yield
    real_kueue.uninstall(cluster)


@pytest.fixture
def kueue_comes(system: Kube, cluster: lifecycle.Cluster, request: pytest.FixtureRequest) -> Callable[[], None]:
    """A cluster without Kueue, and what installs it: for the session, as the fixture `kueue` does."""
    del system
    real_kueue.uninstall(cluster)  # of a cluster that was kept
    return lambda: request.getfixturevalue("kueue")


@pytest.fixture
def kueue_goes(kueue: None, cluster: lifecycle.Cluster) -> Callable[[], None]:
    """What removes Kueue before its time."""
    del kueue
    return lambda: real_kueue.uninstall(cluster)


@pytest.fixture
def kill_kueue(kueue: None, system: Kube, kill_container: Callable[[str, str], None]) -> Callable[[], None]:
    """SIGKILL to Kueue's controller; the kubelet starts it again."""
    del kueue
    inside = replace(system, namespace=real_kueue.NAMESPACE)

    def kill() -> None:
        (pod,) = inside.objects("pods")
        kill_container(inside.namespace, pod["metadata"]["name"])

    return kill


@pytest.fixture(scope="session")
def gpus(cluster: lifecycle.Cluster) -> Iterator[int]:
    """The node says that it has so many GPUs; their pods run, on the CPU."""
    count = 2
    devices.advertise(cluster, {devices.GPU: count})
    yield count
    devices.advertise(cluster, {devices.GPU: 0})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `tiny/model` and `tiny/train.jsonl`."""
    root = tmp_path_factory.mktemp("seed")
    make_tiny(root / "tiny")
    return root


@pytest.fixture(scope="session")
def taught(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `taught/model` and `taught/prompts.jsonl`: what online jobs learn from."""
    root = tmp_path_factory.mktemp("online")
    make_taught(tiny / "tiny/model", root / "taught")
    return root


@pytest.fixture(scope="session")
def vllm_image(cluster: lifecycle.Cluster) -> str:
    """The image of the servers that draw answers, on the node; the chart names it whether it is there or not."""
    return images.ensure_vllm(cluster.node)


@pytest.fixture(scope="session")
def dry(system: Kube) -> Kube:
    """Kubectl in a namespace in which nothing is ever made: for tests of admission alone."""
    make_namespace(system, "e2e-dry")
    return replace(system, namespace="e2e-dry")


@pytest.fixture
def kube(system: Kube, cluster: lifecycle.Cluster, request: pytest.FixtureRequest, runs: Storage) -> Kube:
    """Kubectl in the test's own namespace, in which the claim `runs` is already seeded."""
    del system, runs
    return Kube(cluster.kubectl, cluster.kubeconfig, namespace_of(request))


def namespace_of(request: pytest.FixtureRequest) -> str:
    """A namespace named for the test, and for none but it: the one of the test before may still be ending."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    return f"e2e-{words}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:5]}"


@pytest.fixture
def storage_directory(cluster: lifecycle.Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Makes directories on the node for volumes; they go with the test."""
    root = cluster.node.paths.volumes / namespace_of(request)
    yield lambda claim: seeded(root / claim, request.getfixturevalue("tiny"))
    shutil.rmtree(root, ignore_errors=True)


def seeded(directory: Path, tiny: Path) -> Path:
    """A directory with the tiny model and its data, of the user that pods run as."""
    shutil.copytree(tiny, directory)
    subprocess.run(["chown", "-R", "1000:1000", str(directory)], check=True)
    return directory


@pytest.fixture
def runs(
    system: Kube, cluster: lifecycle.Cluster, request: pytest.FixtureRequest, storage_directory: Callable[[str], Path]
) -> Iterator[Storage]:
    """The namespace and its seeded claim `runs`; everything is deleted after the test."""
    inside = replace(system, namespace=namespace_of(request))
    with namespace_with_claim(inside, cluster, lambda: storage_directory("runs")) as storage:
        yield storage


@contextmanager
def namespace_with_claim(kube: Kube, cluster: lifecycle.Cluster, make: Callable[[], Path]) -> Iterator[Storage]:
    """The namespace of `kube` with a claim `runs` on the directory that is made."""
    namespace = kube.namespace
    make_namespace(kube, namespace)
    directory = make()
    kube.apply(*claim_manifests(namespace=namespace, claim="runs", directory=directory, node=cluster.node_name))
    yield Storage("runs", directory)
    # Jobs first, so that their pods end at once instead of being given their grace period as orphans. The next test
    # has a namespace of its own and need not wait for the end of this one.
    kube.run("delete", "namespace", namespace, "--wait=false")
    kube.run("delete", "pods", "--all", "-n", namespace, "--grace-period=0", "--force", check=False)
    kube.run("delete", "pv", "-l", f"anneal-e2e={namespace}", "--wait=false")


@dataclass(frozen=True)
class Team:
    """A namespace that tests share, so that its data is prepared once."""

    kube: Kube
    storage: Storage


@pytest.fixture(scope="session")
def team(system: Kube, cluster: lifecycle.Cluster, kueue: None, gpus: int, tiny: Path) -> Iterator[Team]:
    """A team's namespace beside a real Kueue, on a node with GPUs; tests make queues and jobs of their own names."""
    del kueue, gpus
    # In a cluster that is kept, the one of the session before may still be ending.
    kube = replace(system, namespace=f"e2e-team-{secrets.token_hex(3)}")
    root = cluster.node.paths.volumes / kube.namespace
    with namespace_with_claim(kube, cluster, lambda: seeded(root / "runs", tiny)) as storage:
        yield Team(kube, storage)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def node(cluster: lifecycle.Cluster) -> str:
    """The node's name."""
    return cluster.node_name


@pytest.fixture
def kill_container(cluster: lifecycle.Cluster) -> Callable[..., None]:
    """SIGKILL to the main process of a pod's container (its only one, unless named), from the node."""

    def kill(namespace: str, pod: str, container: str | None = None) -> None:
        kill_main_container(cluster, namespace, pod, container=container)

    return kill


def operator_pods(system: Kube) -> list[dict[str, Any]]:
    """The operator's pods."""
    return system.objects("pods", "app.kubernetes.io/component=operator")


@pytest.fixture
def kill_operator(system: Kube, kill_container: Callable[[str, str], None]) -> Callable[[], None]:
    """SIGKILL to the operator; the kubelet starts it again."""

    def kill() -> None:
        (pod,) = operator_pods(system)
        kill_container(SYSTEM, pod["metadata"]["name"])

    return kill


@pytest.fixture
def operator_down(system: Kube) -> Callable[[], AbstractContextManager[None]]:
    """A block of time in which no operator runs."""

    @contextmanager
    def down() -> Iterator[None]:
        system.run("scale", "deployment/anneal", "--replicas=0")
        system.until("the operator is down", lambda: not operator_pods(system), seconds=60)
        try:
            yield
        finally:
            system.run("scale", "deployment/anneal", "--replicas=1")
            system.run("rollout", "status", "deployment/anneal", "--timeout=120s")

    return down
