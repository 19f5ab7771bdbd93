"""What runs pods: containerd with runc and CNI, the kubelet, kube-proxy, and the image registry they pull from.

Debian's containerd and plugins, Kubernetes' own kubelet and proxy. The CNI plugin is `ptp`, a routed link per pod: with
a bridge, answers of a Service's pod on the same node skip the translation back unless the kernel filters bridges.
No plugin here enforces NetworkPolicy.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster import cgroups, processes
from cluster.certificates import write_kubeconfig
from cluster.layout import REGISTRY
from cluster.shell import succeeds

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.binaries import Binaries
    from cluster.layout import Subnets
    from cluster.processes import Node

PAUSE_IMAGE = "localhost/anneal-pause:1"
MAX_PODS = 250

_CONTAINERD = """\
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE runc dies when it lowers a score: "can't get final child's PID from pipe: EOF".
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"""


def start_containerd(node: Node, root: Path) -> None:
    """Start containerd; it waits for its network configuration, which needs the node's pod addresses."""
    file = node.paths.config / "containerd.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    cni = node.paths.config / "cni"
    cni.mkdir()
    file.write_text(_CONTAINERD.format(root=root, pause=PAUSE_IMAGE, cni=cni))
    processes.start(node, "containerd", ["/usr/bin/containerd", "--config", file, "--log-level", "warn"])
    processes.wait_ready(node, "containerd", lambda: succeeds([*node.enter, "ctr", "version"]), timeout=60)


def start_registry(node: Node, storage: Path) -> None:
    """Serve the images that were pushed before; nothing else listens on the node's loopback port."""
    file = node.paths.config / "registry.yml"
    file.write_text(registry_config(storage))
    processes.start(node, "registry", ["/usr/bin/docker-registry", "serve", file])


def registry_config(storage: Path) -> str:
    """No cache of descriptors: other processes push into the same storage."""
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY.replace("localhost", "127.0.0.1")},
    }
    return json.dumps(config)


def start_kubelet(node: Node, subnets: Subnets, binaries: Binaries) -> None:
    cgroups.create(node.paths.cgroup)
    _write_cni(node, subnets)
    kubeconfig = node.paths.config / "kubelet.kubeconfig"
    write_kubeconfig(node.paths, subnets, user="kubelet", file=kubeconfig)
    file = node.paths.config / "kubelet.json"
    file.write_text(json.dumps(_kubelet_config(node, subnets), indent=1))
    flags = (
        f"--config={file}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.paths.node_name}",
        f"--node-ip={subnets.node_ip}",
    )
    processes.start(node, "kubelet", [binaries.part("kubelet"), *flags])


def start_proxy(node: Node, subnets: Subnets, binaries: Binaries) -> None:
    kubeconfig = node.paths.config / "kube-proxy.kubeconfig"
    write_kubeconfig(node.paths, subnets, user="kube-proxy", file=kubeconfig)
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node.paths.node_name,
        "clusterCIDR": subnets.pods,
        # Zero leaves the machine's own limits of connection tracking alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }
    file = node.paths.config / "kube-proxy.json"
    file.write_text(json.dumps(config, indent=1))
    processes.start(node, "kube-proxy", [binaries.part("kube-proxy"), f"--config={file}"])


def _kubelet_config(node: Node, subnets: Subnets) -> dict[str, object]:
    keys = node.paths.certificates
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{keys}/ca.crt"}},
        "tlsCertFile": f"{keys}/kubelet.crt",
        "tlsPrivateKeyFile": f"{keys}/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.paths.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [subnets.dns_ip],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "maxPods": MAX_PODS,
        "serializeImagePulls": False,
        "kubeAPIQPS": 300,
        "kubeAPIBurst": 600,
        "registryPullQPS": 0,
        # A developer's disk is rarely half empty: neither evict pods nor drop images because of it.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _write_cni(node: Node, subnets: Subnets) -> None:
    pods = subnets.pods.partition("/")[0] + "/22"
    link = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    config = {
        "cniVersion": "0.4.0",
        "name": "anneal",
        "plugins": [link, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
    (node.paths.config / "cni" / "10-anneal.conflist").write_text(json.dumps(config, indent=1))
