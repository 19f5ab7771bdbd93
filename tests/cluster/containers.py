"""Hurting a cluster on purpose: kill a container's process, stop, start or restart a part of the node.

What a test does here happens to real clusters without being asked for; no object in the API announces it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster import addons, processes
from cluster.binaries import PARTS
from cluster.shell import ClusterError

if TYPE_CHECKING:
    from cluster.lifecycle import Cluster

_CTR = ("ctr", "--namespace=k8s.io")
_NODE_PARTS = ("containerd", "registry", *(part for part in PARTS if part != "kubectl"))


def kill_container(cluster: Cluster, namespace: str, pod: str, *, container: str | None = None) -> None:
    """SIGKILL to the first process of a pod's container (its only one, unless named), as the OOM killer would."""
    cluster.node.run([*_CTR, "tasks", "kill", "--signal=SIGKILL", container_id(cluster, namespace, pod, container)])


def container_id(cluster: Cluster, namespace: str, pod: str, container: str | None = None) -> str:
    """The runtime's name of a pod's running container."""
    found = addons.kubectl(
        cluster.node.paths, cluster.binaries, "get", "pod", pod, f"--namespace={namespace}", "--output=json"
    )
    statuses = json.loads(found)["status"].get("containerStatuses", [])
    running = {status["name"]: status["containerID"] for status in statuses if "running" in status["state"]}
    wanted = [container] if container else list(running)
    if len(wanted) != 1 or wanted[0] not in running:
        raise ClusterError(
            f"pod {namespace}/{pod}: asked for container {container or '(the only one)'}; running are "
            f"{', '.join(sorted(running)) or 'none'}"
        )
    return str(running[wanted[0]]).removeprefix("containerd://")


def stop_part(cluster: Cluster, part: str, *, kill: bool = False) -> None:
    """End kubelet, kube-apiserver, etcd, …; it stays down until `start_part`."""
    processes.stop(cluster.node, _known(part), kill=kill)


def start_part(cluster: Cluster, part: str) -> None:
    processes.start_again(cluster.node, _known(part))


def restart_part(cluster: Cluster, part: str, *, kill: bool = False) -> None:
    stop_part(cluster, part, kill=kill)
    start_part(cluster, part)


def _known(part: str) -> str:
    if part not in _NODE_PARTS:
        raise ValueError(f"part {part!r}: write one of {', '.join(_NODE_PARTS)}")
    return part
