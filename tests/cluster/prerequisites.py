"""What a machine must have before anything is started: every lack found at once, each one clear line.

Debian packages that are missing are not a lack where apt-get can install them. Looking changes nothing but apt's
package lists, and those only when a missing package cannot be found in the ones that are there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import cgroups
from cluster.layout import cache_root
from cluster.shell import ClusterError, PrerequisiteError, run, run_logged, step, succeeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "buildah",
    "debootstrap",
    "docker-registry",
    "busybox-static",
    "iptables",
    "conntrack",
    "iproute2",
    "openssl",
    "util-linux",
    "mount",
    "ca-certificates",
    "debian-archive-keyring",
)
MINIMUM_GO = (1, 26)
MINIMUM_MEMORY_GIB = 4
GIB = 1 << 30
_NO_SERVICES = Path("/usr/sbin/policy-rc.d")
_APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def check_machine(*, go_version: str, needs_go: bool, disk: Mapping[Path, float]) -> tuple[str, ...]:
    """Install the packages that are missing, or raise with every line of what this machine lacks.

    `disk` is the gigabytes that will be written below each directory.
    """
    absent = missing_packages()
    problems = [
        *platform_problems(sys.platform, platform.machine()),
        *root_problems(os.geteuid()),
        *(go_problems(go_version) if needs_go else ()),
        *disk_problems(disk),
        *memory_problems(Path("/proc/meminfo").read_text()),
        *(kernel_problems() if os.geteuid() == 0 else ()),
        *package_problems(absent),
    ]
    if problems:
        raise PrerequisiteError(problems)
    return absent


def install_packages(packages: Sequence[str]) -> None:
    """Install without starting any of the services that some packages bring: the cluster runs its own."""
    if not packages:
        return
    log = cache_root() / "logs" / "apt.log"
    mask = not _NO_SERVICES.exists()
    with step(f"installing {' '.join(packages)}"):
        if mask:
            _NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
            _NO_SERVICES.chmod(0o755)
        try:
            command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
            run_logged(command, log, env={**os.environ, **_APT_ENVIRONMENT})
        finally:
            if mask:
                _NO_SERVICES.unlink()


def platform_problems(system: str, machine: str) -> list[str]:
    problems = []
    if system != "linux":
        problems.append(f"operating system: this is {system}; the cluster needs Linux (its kernel runs the containers)")
    if machine not in ("x86_64", "aarch64"):
        problems.append(f"processor: this is {machine}; the cluster is built for x86_64 and aarch64")
    return problems


def root_problems(user: int) -> list[str]:
    if user == 0:
        return []
    return [f"root: this is user {user}; namespaces, mounts and packages need root: run it with sudo"]


def go_problems(version: str) -> list[str]:
    wanted = ".".join(map(str, MINIMUM_GO))
    if not version:
        return [f"Go: there is no `go` on PATH; Kubernetes is built from source with Go {wanted} or newer: install it"]
    match = re.match(r"go(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) >= MINIMUM_GO:
        return []
    return [f"Go: this is {version}; Kubernetes is built from source with Go {wanted} or newer: install that"]


def disk_problems(disk: Mapping[Path, float]) -> list[str]:
    """What lies on one file system is added up before it is compared."""
    needs: dict[int, tuple[list[Path], float]] = {}
    for directory, gigabytes in disk.items():
        existing = _existing(directory)
        paths, total = needs.get(existing.stat().st_dev, ([], 0.0))
        needs[existing.stat().st_dev] = ([*paths, directory], total + gigabytes)
    problems = []
    for paths, needed in needs.values():
        free = shutil.disk_usage(_existing(paths[0])).free / GIB
        if free < needed:
            where = " and ".join(str(path) for path in paths)
            problems.append(f"disk: {free:.1f} GiB are free for {where}; {needed:.1f} GiB are needed: free some")
    return problems


def memory_problems(meminfo: str) -> list[str]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    available = int(match[1]) * 1024 / GIB if match else 0.0
    if available >= MINIMUM_MEMORY_GIB:
        return []
    return [
        f"memory: {available:.1f} GiB are available; the cluster needs {MINIMUM_MEMORY_GIB} GiB: end other programs"
    ]


def kernel_problems() -> list[str]:
    problems = []
    if not succeeds(["unshare", "--mount", "--net", "--pid", "--fork", "true"]):
        problems.append(
            "namespaces: this machine does not let root make mount, network and process namespaces; "
            "in a container, start it privileged"
        )
    if not cgroups.hierarchies():
        problems.append(
            "control groups: none are mounted; mount cgroup2 at /sys/fs/cgroup, or in a container start it privileged"
        )
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not succeeds(["modprobe", "overlay"]):
        problems.append("overlay: the kernel has no overlay file system and `modprobe overlay` fails: load that module")
    return problems


def missing_packages() -> tuple[str, ...]:
    if shutil.which("dpkg-query") is None:
        return PACKAGES
    listed = _query(PACKAGES)
    return tuple(package for package in PACKAGES if listed.get(package) != "installed")


def package_problems(absent: Sequence[str]) -> list[str]:
    if not absent:
        return []
    names = " ".join(absent)
    if shutil.which("apt-get") is None:
        return [f"packages: there is no apt-get here to install what is missing: {names}"]
    if os.geteuid() != 0:
        return []  # root is missing too, and said so; its package lists are not ours to update
    simulate = ["apt-get", "install", "--simulate", "--no-install-recommends", *absent]
    if succeeds(simulate):
        return []
    try:
        run(["apt-get", "update"], timeout=300)
        run(simulate)
    except ClusterError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        return [f"packages: apt-get cannot install {names} ({reason}): check its sources and the network"]
    return []


def _query(packages: Sequence[str]) -> dict[str, str]:
    # dpkg-query exits with 1 when it knows nothing of a package, and still lists the others.
    script = 'dpkg-query --show --showformat="\\${Package} \\${db:Status-Status}\\n" "$@" 2>/dev/null || true'
    lines = run(["sh", "-c", script, "sh", *packages]).splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _existing(directory: Path) -> Path:
    while not directory.exists():
        directory = directory.parent
    return directory
