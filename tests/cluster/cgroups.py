"""The control groups a cluster's pods live under: one directory of its own in each hierarchy, of version 1 or 2.

The kubelet wants its root to exist with every controller in it. Machines differ: one directory per controller,
controllers mounted together, a unified hierarchy, or both; what is mounted is read, not assumed.
"""

from __future__ import annotations

import os
from pathlib import Path

from cluster.shell import ClusterError, wait_until

_NEEDED = ("cpu", "cpuset", "memory", "pids", "hugetlb")


def hierarchies(mountinfo: str | None = None) -> dict[Path, str]:
    """Mount point of each hierarchy, with its type (`cgroup` or `cgroup2`)."""
    found = {}
    for line in (Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo).splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            found[Path(before.split()[4])] = kind
    return found


def create(name: str) -> None:
    mounted = hierarchies()
    unified_only = set(mounted.values()) == {"cgroup2"}
    for mount, kind in mounted.items():
        if kind == "cgroup2" and unified_only:
            _delegate(mount)
        group = mount / name
        group.mkdir(exist_ok=True)
        if kind == "cgroup":
            _inherit_cpuset(mount, group)
    if unified_only:
        for mount in mounted:
            _delegate(mount / name)


def remove(name: str) -> None:
    """Remove the groups, deepest first; the kernel may take a moment to see that their processes are gone."""
    left = [mount / name for mount in hierarchies() if (mount / name).exists()]
    if left and not wait_until(lambda: all(_removed(group) for group in left), timeout=20):
        alive = ", ".join(str(group) for group in left if group.exists())
        raise ClusterError(f"control groups that cannot be removed: {alive}; see the processes in their cgroup.procs")


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        _rmdir(Path(directory))
    return not group.exists()


def _rmdir(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return


def _inherit_cpuset(parent: Path, group: Path) -> None:
    """A new cpuset of version 1 is empty and takes no process until it has processors and memory."""
    for file in ("cpuset.mems", "cpuset.cpus"):
        if (group / file).exists() and not (group / file).read_text().strip():
            (group / file).write_text((parent / file).read_text())


def _delegate(group: Path) -> None:
    """Hand the controllers that the kubelet needs to a group's children (version 2)."""
    present = (group / "cgroup.controllers").read_text().split()
    for controller in _NEEDED:
        if controller not in present:
            continue
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            raise ClusterError(
                f"controller {controller!r} cannot be handed down in {group}: {error.strerror}; in a container, start it "
                "with its own control-group namespace whose root holds no process"
            ) from error
