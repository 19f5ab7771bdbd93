"""Bring a cluster up, take it down, say how it is: what tests, the demo and the command line call.

Both are idempotent and safe side by side (a lock per name). `up` returns a running cluster as it is; of a broken one it
removes what is left and starts anew, for etcd's data are not worth saving in a test cluster.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import addons, cgroups, network, node, prerequisites, processes, scratch_images, storage
from cluster.binaries import Binaries, ensure_binaries, go_version, missing_programs
from cluster.buildah import remove_images
from cluster.certificates import make_certificates
from cluster.control_plane import api_ready, start_control_plane
from cluster.images import BUILD_GIB, ImageNames, ensure_images, layers_missing, preload, registry_storage
from cluster.layout import REGISTRY, STATE_ROOT, Paths, Subnets, cache_root, check_name, free_index
from cluster.shell import ClusterError, locked, step, wait_until
from cluster.unpacked import ensure_unpacked, link_copy, remove_unused

DEFAULT_NAME = "anneal"
# Measured: a cluster writes 0.3 GiB in its first minutes; building its programs fills Go's caches with 7.
_STATE_GIB = 1.0
_PROGRAMS_GIB = 8.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster, and everything a test needs to work with it."""

    name: str
    kubeconfig: Path
    context: str
    kubectl: Path
    helm: Path
    node_name: str
    node_ip: str
    host_ip: str
    registry: str
    images: ImageNames | None
    node: processes.Node
    binaries: Binaries

    @property
    def network_namespace(self) -> Path:
        return self.node.network_namespace


@dataclass(frozen=True)
class _Made:
    """What was built before a cluster is started."""

    binaries: Binaries
    images: ImageNames | None
    unpacked: Path | None


def up(name: str = DEFAULT_NAME, *, images: bool = True) -> Cluster:
    """A running cluster of this name with the current images; started if there is none."""
    paths = Paths(check_name(name))
    prepare_machine(images=images, cluster=not paths.state.exists())
    made = _make(images=images)
    with locked(paths.lock, f"another process that uses cluster {name!r}"):
        running = _running(paths, made.binaries)
        if running is None:
            _remove(paths)
            running = _start(paths, made)
        elif made.images:
            with step(f"cluster {name!r} is running; its images"):
                preload(running, *made.images.all)
        _write_record(paths, images=made.images and asdict(made.images))
        return _cluster(running, made.binaries)


def down(name: str = DEFAULT_NAME) -> None:
    """Leave nothing of the cluster behind; nothing happens if there is none."""
    paths = Paths(check_name(name))
    if not STATE_ROOT.exists():
        return
    with locked(paths.lock, f"another process that uses cluster {name!r}"):
        if paths.state.exists():
            with step(f"removing cluster {name!r}"):
                _remove(paths)
                remove_unused()
        paths.lock.unlink()


def find(name: str = DEFAULT_NAME) -> Cluster | None:
    """The running cluster of this name, with the programs it was started from; nothing is built or changed."""
    paths = Paths(check_name(name))
    programs = _read_record(name).get("programs", {})
    binaries = Binaries(tuple((program, Path(directory)) for program, directory in programs.items()))
    machine = _running(paths, binaries) if programs else None
    return None if machine is None else _cluster(machine, binaries)


def names() -> list[str]:
    """Every cluster that has left a state directory, running or not."""
    if not STATE_ROOT.exists():
        return []
    return sorted(entry.name for entry in STATE_ROOT.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def recycle_volumes(name: str = DEFAULT_NAME) -> int:
    """Empty the volumes whose claims are deleted and offer them again; how many there were."""
    cluster = find(name)
    if cluster is None:
        raise ClusterError(f"cluster {name!r} is not running")
    return storage.recycle_volumes(cluster.node.paths, cluster.binaries)


def clean_cache() -> None:
    """Remove built programs and images; a running cluster runs from them."""
    left = names()
    if left:
        raise ClusterError(f"the cache is in use by clusters {', '.join(left)}: `down` them first")
    with step(f"removing {cache_root()}"):
        remove_images()
        shutil.rmtree(cache_root(), ignore_errors=True)


def prepare_machine(*, images: bool, cluster: bool = True) -> None:
    """Check everything at once, then install the packages that are missing."""
    version = go_version()
    programs = missing_programs(version) if cluster else []
    disk = {
        STATE_ROOT: _STATE_GIB if cluster else 0.0,
        cache_root(): (_PROGRAMS_GIB if programs else 0.0) + (BUILD_GIB if images and layers_missing() else 0.0),
    }
    absent = prerequisites.check_machine(go_version=version, needs_go=bool(programs), disk=disk)
    prerequisites.install_packages(absent)


def _make(*, images: bool) -> _Made:
    binaries = ensure_binaries()
    if not images:
        return _Made(binaries, None, None)
    image_names = ensure_images()
    return _Made(binaries, image_names, ensure_unpacked(image_names))


def _start(paths: Paths, made: _Made) -> processes.Node:
    begun = time.monotonic()
    subnets = _reserve(paths, made)
    machine = processes.create_node(paths)
    try:
        _start_parts(machine, subnets, made)
    except BaseException:
        # Nothing may go on running; the state directory stays for its logs until the next `up` or `down`.
        processes.destroy_node(machine)
        raise
    _write_record(paths, ready=True, seconds=round(time.monotonic() - begun, 1))
    return machine


def _start_parts(machine: processes.Node, subnets: Subnets, made: _Made) -> None:
    paths, binaries = machine.paths, made.binaries
    with step("network, certificates and containerd"):
        network.connect(machine, subnets)
        make_certificates(paths, subnets)
        if made.unpacked:
            link_copy(made.unpacked, paths.state / "containerd")
        node.start_containerd(machine, paths.state / "containerd")
        node.start_registry(machine, registry_storage())
        scratch_images.import_images(machine, scratch_images.cluster_images(binaries))
        if made.images:
            preload(machine, *made.images.all)
    with step("control plane"):
        start_control_plane(machine, subnets, binaries)
    with step("node"):
        node.start_kubelet(machine, subnets, binaries)
        node.start_proxy(machine, subnets, binaries)
        addons.apply_addons(paths, subnets, binaries)
        storage.create_storage(paths, binaries)
        _wait_for_node(machine, binaries)
    with step("DNS and training-operator"):
        addons.wait_for_addons(paths, binaries)


def _wait_for_node(machine: processes.Node, binaries: Binaries) -> None:
    paths = machine.paths

    def ready() -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        try:
            return addons.kubectl(paths, binaries, "get", "node", paths.node_name, f"-o=jsonpath={path}") == "True"
        except ClusterError:
            return False

    processes.wait_ready(machine, "kubelet", ready, timeout=120)


def _reserve(paths: Paths, made: _Made) -> Subnets:
    """Take a free network; the record that says so is written under a lock that all clusters share."""
    with locked(STATE_ROOT / ".networks.lock", "another cluster's choice of a network"):
        taken = [record["index"] for record in map(_read_record, names()) if record]
        subnets = Subnets(free_index(taken, network.host_networks()))
        paths.state.mkdir(mode=0o755)
        unpacked = str(made.unpacked) if made.unpacked else None
        programs = {program: str(directory) for program, directory in made.binaries.directories}
        _write_record(paths, index=subnets.index, programs=programs, unpacked=unpacked)
    return subnets


def _running(paths: Paths, binaries: Binaries) -> processes.Node | None:
    """The node if it was started whole, from these programs, and every part of it lives."""
    record = _read_record(paths.name)
    machine = processes.find_node(paths)
    programs = {program: str(directory) for program, directory in binaries.directories}
    if machine is None or not record.get("ready") or record.get("programs") != programs:
        return None
    return None if processes.dead_parts(machine) or not api_ready(machine, binaries) else machine


def _read_record(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Paths(name).record.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_record(paths: Paths, **changes: object) -> None:
    new = paths.record.with_suffix(".new")
    new.write_text(json.dumps(_read_record(paths.name) | changes, indent=1))
    new.rename(paths.record)


def _remove(paths: Paths) -> None:
    """Processes first, with them their mounts and links; then control groups; then files."""
    if not paths.state.exists():
        return
    machine = processes.find_node(paths)
    if machine is not None:
        processes.destroy_node(machine)
    record = _read_record(paths.name)
    if record:
        network.disconnect(Subnets(record["index"]))
    cgroups.remove(paths.cgroup)
    # A process that was being killed may still create a file; a second look is enough.
    if not wait_until(lambda: _deleted(paths.state), timeout=60):
        raise ClusterError(
            f"{paths.state} cannot be deleted: something still writes there; see `fuser -vm {paths.state}`"
        )


def _deleted(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _cluster(machine: processes.Node, binaries: Binaries) -> Cluster:
    paths = machine.paths
    record = _read_record(paths.name)
    subnets = Subnets(record["index"])
    return Cluster(
        name=paths.name,
        kubeconfig=paths.kubeconfig,
        context=paths.context,
        kubectl=binaries.part("kubectl"),
        helm=binaries.program("helm"),
        node_name=paths.node_name,
        node_ip=subnets.node_ip,
        host_ip=subnets.host_ip,
        registry=REGISTRY,
        images=ImageNames(**record["images"]) if record.get("images") else None,
        node=machine,
        binaries=binaries,
    )
