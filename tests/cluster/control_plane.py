"""etcd, API server, controller manager and scheduler: upstream's programs with the flags a single node needs.

No leader election, no replicas, and etcd does not sync its disk: a test cluster is started anew, never recovered.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster import processes
from cluster.certificates import write_kubeconfig
from cluster.shell import succeeds

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.binaries import Binaries
    from cluster.layout import Subnets
    from cluster.processes import Node

_ETCD = "http://127.0.0.1:2379"
# The defaults (20 a second) are for fleets; one node's tests should wait for work, not for a rate limit.
_CLIENT_RATE = ("--kube-api-qps=300", "--kube-api-burst=600")


def start_control_plane(node: Node, subnets: Subnets, binaries: Binaries) -> None:
    """Start all four parts and wait until the API server answers."""
    _start_etcd(node, binaries)
    write_kubeconfig(node.paths, subnets, user="admin", file=node.paths.kubeconfig)
    processes.start(node, "kube-apiserver", [binaries.part("kube-apiserver"), *_api_server_flags(node, subnets)])
    processes.wait_ready(node, "kube-apiserver", lambda: api_ready(node, binaries), timeout=120)
    # These two ask the API server for its configuration once, and end if its first roles are not there yet.
    processes.start(
        node,
        "kube-controller-manager",
        [binaries.part("kube-controller-manager"), *_controller_manager_flags(node, subnets)],
    )
    processes.start(node, "kube-scheduler", [binaries.part("kube-scheduler"), *_scheduler_flags(node, subnets)])


def api_ready(node: Node, binaries: Binaries) -> bool:
    return succeeds(
        [
            binaries.part("kubectl"),
            f"--kubeconfig={node.paths.kubeconfig}",
            "--request-timeout=3s",
            "get",
            "--raw=/readyz",
        ]
    )


def _start_etcd(node: Node, binaries: Binaries) -> None:
    flags = (
        f"--data-dir={node.paths.state / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-retention=5m",
        "--log-level=warn",
    )
    processes.start(node, "etcd", [binaries.part("etcd"), *flags])


def _api_server_flags(node: Node, subnets: Subnets) -> tuple[str, ...]:
    keys = node.paths.certificates
    return (
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={subnets.node_ip}",
        f"--service-cluster-ip-range={subnets.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--client-ca-file={keys}/ca.crt",
        f"--tls-cert-file={keys}/kube-apiserver.crt",
        f"--tls-private-key-file={keys}/kube-apiserver.key",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        f"--kubelet-client-certificate={keys}/kubelet-client.crt",
        f"--kubelet-client-key={keys}/kubelet-client.key",
        # Else `kubectl logs` looks the node's name up in a DNS that does not know it.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={keys}/service-account.pub",
        f"--service-account-signing-key-file={keys}/service-account.key",
        f"--requestheader-client-ca-file={keys}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={keys}/front-proxy-client.crt",
        f"--proxy-client-key-file={keys}/front-proxy-client.key",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    )


def _client_config(node: Node, subnets: Subnets, user: str) -> Path:
    file = node.paths.config / f"{user}.kubeconfig"
    write_kubeconfig(node.paths, subnets, user=user, file=file)
    return file


def _controller_manager_flags(node: Node, subnets: Subnets) -> tuple[str, ...]:
    keys = node.paths.certificates
    config = _client_config(node, subnets, "kube-controller-manager")
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--allocate-node-cidrs",
        f"--cluster-cidr={subnets.pods}",
        "--node-cidr-mask-size=22",
        f"--service-cluster-ip-range={subnets.services}",
        "--use-service-account-credentials",
        f"--root-ca-file={keys}/ca.crt",
        f"--service-account-private-key-file={keys}/service-account.key",
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        *_CLIENT_RATE,
    )


def _scheduler_flags(node: Node, subnets: Subnets) -> tuple[str, ...]:
    kubeconfig = _client_config(node, subnets, "kube-scheduler")
    config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 300, "burst": 600},
    }
    file = node.paths.config / "scheduler.json"
    file.write_text(json.dumps(config, indent=1))
    return (
        f"--config={file}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
    )
