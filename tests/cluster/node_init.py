"""Process 1 of a cluster's node: makes the private mounts, then only reaps.

The node lives in its own mount, network and process namespaces. When this process is killed the kernel kills all
that runs in them (control plane, containerd, shims, every container), and mounts and links go with the last of
them. That is why nothing has to be hunted down after a crash. Parts are started from outside with nsenter, so this
program knows none of them. It is run by path, so it imports nothing of its neighbours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

# The kubelet wants these values and would set them for the whole machine; over them it is shown files that it may
# think it has set.
KERNEL_VALUES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# These paths are compiled into the kubelet or CNI; each cluster gets its own behind them.
PRIVATE_DIRECTORIES = ("/var/lib/kubelet", "/var/lib/cni", "/var/log")


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def make_mounts(state: Path) -> None:
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for target in PRIVATE_DIRECTORIES:
        source = state / "private" / target.strip("/").replace("/", "-")
        source.mkdir(parents=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        mount("--bind", source, target)
    for name, value in KERNEL_VALUES.items():
        shown = Path("/run/kernel-values") / name
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(value + "\n")
        if Path("/proc/sys", name).exists():
            mount("--bind", shown, Path("/proc/sys", name))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def reap_for_ever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


def main() -> None:
    state = Path(sys.argv[1])
    # /proc is still the parent's here, so this link is our number as the host knows it.
    host_pid = Path("/proc/self").readlink().name
    make_mounts(state)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (state / "init.pid.new").write_text(host_pid)
    (state / "init.pid.new").rename(state / "init.pid")
    reap_for_ever()


if __name__ == "__main__":
    main()
