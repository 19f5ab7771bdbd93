"""GPUs that are not there, and more nodes than there are: what the scheduler and the operator see, without hardware.

The cluster's one real node can say that it has GPUs: pods that ask for them run, on the CPU, and the scheduler counts.
Simulated nodes are Node objects that say that they are Ready, and a heartbeat that keeps them so. They have everything
but room for pods (`pods: 0`), so nothing is ever bound to them. A taint would say that too, but the pools under test
would have to tolerate it, and their pods would then land there and wait for a kubelet for ever.

A second kubelet in a network of its own, or kwok, would be one more program for what no test needs: every pod that must
run finds its place on the real node.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from cluster import addons
from cluster.shell import ClusterError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.lifecycle import Cluster

GPU = "nvidia.com/gpu"
_LEASES = "kube-node-lease"
# Nodes are given up 50 s after their last heartbeat.
_HEARTBEAT_SECONDS = 10
_LEASE_SECONDS = 40


@dataclass(frozen=True)
class SimulatedNode:
    """What a node says of itself: labels (such as nvidia.com/gpu.product), devices and taints."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=lambda: {GPU: 8})
    taints: tuple[Mapping[str, str], ...] = ()


def advertise(cluster: Cluster, devices: Mapping[str, int], *, timeout: float = 60) -> None:
    """Let the real node have these extended resources; 0 takes one away. A restart of its kubelet zeroes them."""
    before = _node(cluster)["status"]["capacity"]
    patch = json.dumps(device_patch(devices, before))
    _kubectl(cluster, "patch", "node", cluster.node_name, "--subresource=status", "--type=json", f"--patch={patch}")

    def follows() -> bool:
        allocatable = _node(cluster)["status"]["allocatable"]
        return all(int(allocatable.get(name, 0)) == count for name, count in devices.items())

    if not wait_until(follows, timeout=timeout, interval=0.5):
        raise ClusterError(f"node {cluster.node_name} did not offer {dict(devices)} within {timeout:.0f} s")


def device_patch(devices: Mapping[str, int], present: Mapping[str, str]) -> list[dict[str, str]]:
    """Both of capacity and allocatable: the kubelet computes the second from the first, but only every ten seconds."""
    operations = []
    for name, count in devices.items():
        escaped = name.replace("~", "~0").replace("/", "~1")
        for part in ("capacity", "allocatable"):
            path = f"/status/{part}/{escaped}"
            if count:
                operations.append({"op": "add", "path": path, "value": str(count)})
            elif name in present:
                operations.append({"op": "remove", "path": path})
    return operations


def label(cluster: Cluster, labels: Mapping[str, str | None]) -> None:
    """Set labels of the real node; None removes one."""
    patch = json.dumps({"metadata": {"labels": dict(labels)}})
    _kubectl(cluster, "patch", "node", cluster.node_name, "--type=merge", f"--patch={patch}")


@contextmanager
def simulated_nodes(cluster: Cluster, *nodes: SimulatedNode) -> Iterator[None]:
    """These nodes exist and are Ready in the block."""
    names = [node.name for node in nodes]
    stop = Event()
    beating = Thread(target=_beat, args=(cluster, names, stop), daemon=True)
    try:
        for node in nodes:
            _apply(cluster, manifest(node))
            _apply(cluster, status(node), "--subresource=status")
        beating.start()
        yield
    finally:
        stop.set()
        if beating.is_alive():
            beating.join()
        _kubectl(cluster, "delete", "nodes", *names, "--ignore-not-found")
        _kubectl(cluster, "delete", "leases", *names, f"--namespace={_LEASES}", "--ignore-not-found")


def manifest(node: SimulatedNode) -> dict[str, Any]:
    """The object, without its status."""
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.labels}
    # Kubernetes adds and removes taints of its own: an empty list here would be a claim on them.
    spec = {"taints": [dict(taint) for taint in node.taints]} if node.taints else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}, "spec": spec}


def status(node: SimulatedNode) -> dict[str, Any]:
    """Ready, with the devices, and with room for no pod."""
    now = _now()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Simulated",
        "message": "no kubelet runs this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    resources = {"cpu": "64", "memory": "512Gi", "pods": "0"} | {name: str(n) for name, n in node.devices.items()}
    content = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}, "status": content}


def _beat(cluster: Cluster, names: list[str], stop: Event) -> None:
    """Renew the nodes' leases, as their kubelets would; a beat that fails is made up for by the next."""
    while True:
        try:
            _apply(cluster, {"apiVersion": "v1", "kind": "List", "items": [_lease(name) for name in names]})
        except ClusterError:
            if stop.is_set():
                return
        if stop.wait(_HEARTBEAT_SECONDS):
            return


def _lease(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": _LEASES},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": _now()},
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _node(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kubectl(cluster, "get", "node", cluster.node_name, "--output=json"))
    return found


def _apply(cluster: Cluster, manifest: dict[str, Any], *flags: str) -> None:
    arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=simulated", *flags, "-f", "-")
    _kubectl(cluster, *arguments, stdin=json.dumps(manifest))


def _kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    return addons.kubectl(cluster.node.paths, cluster.binaries, *arguments, stdin=stdin)
