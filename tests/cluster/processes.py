"""The node's namespaces and the parts that run in them: start, stop, restart, alive or not.

A part's command line is kept in a file, so a restart (a test's way to hurt a cluster) needs nothing but its name.
There is deliberately no supervisor that starts parts again: a part that dies is a fact that a test must see.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.shell import ClusterError, log_tail, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster.layout import Paths

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A session of its own and no parent left outside: started inside the node, a process becomes a child of its first one.
_DETACHED = ("setsid", "--fork")


@dataclass(frozen=True)
class Node:
    """A running node: its files, and its first process as the host numbers it.

    With the process goes its start time, as numbers are used again.
    """

    paths: Paths
    init_pid: int
    init_started: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.init_pid}", "--mount", "--net", "--pid", "--")

    @property
    def network_namespace(self) -> Path:
        return Path(f"/proc/{self.init_pid}/ns/net")

    @property
    def alive(self) -> bool:
        return process_started(self.init_pid) == self.init_started

    def run(self, argv: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 120) -> str:
        """A command inside the node that must succeed."""
        return run([*self.enter, *argv], stdin=stdin, timeout=timeout)


def process_started(pid: int) -> str | None:
    """The kernel's start time of a process that lives (a zombie does not)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def create_node(paths: Paths) -> Node:
    """New namespaces with their first process; nothing runs in them yet."""
    python = shutil.which("python3") or "python3"
    script = Path(__file__).with_name("node_init.py")
    paths.logs.mkdir(parents=True, exist_ok=True)
    log = paths.logs / "init.log"
    namespaces = ("unshare", "--mount", "--net", "--pid", "--fork")
    _spawn([*_DETACHED, *namespaces, python, "-S", str(script), str(paths.state)], log)
    pid_file = paths.state / "init.pid"
    if not wait_until(pid_file.exists, timeout=20, interval=0.02):
        raise ClusterError(f"the node's first process did not start; {log_tail(log)}")
    pid = int(pid_file.read_text())
    started = process_started(pid)
    if started is None:
        raise ClusterError(f"the node's first process ended at once; {log_tail(log)}")
    (paths.state / "init.json").write_text(json.dumps({"pid": pid, "started": started}))
    return Node(paths, pid, started)


def find_node(paths: Paths) -> Node | None:
    """The node that a state directory speaks of, if its first process is still that process."""
    try:
        known = json.loads((paths.state / "init.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return _half_made_node(paths)
    node = Node(paths, known["pid"], known["started"])
    return node if node.alive else None


def _half_made_node(paths: Paths) -> Node | None:
    """A start that was cut off between the first process's report and ours; its command line proves whose it is."""
    try:
        pid = int((paths.state / "init.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    started = process_started(pid)
    ours = b"node_init.py\0" + os.fsencode(paths.state) + b"\0"
    return Node(paths, pid, started) if started is not None and command.endswith(ours) else None


def destroy_node(node: Node) -> None:
    """Kill the first process; the kernel then kills every other one in the namespaces, and waits for them."""
    if not node.alive:
        return
    os.kill(node.init_pid, signal.SIGKILL)
    if not wait_until(lambda: not node.alive, timeout=60):
        raise ClusterError(
            f"process {node.init_pid} of cluster {node.paths.name!r} does not die; see `ps {node.init_pid}`"
        )


def start(node: Node, part: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
    """Start a part and remember how."""
    node.paths.parts.mkdir(parents=True, exist_ok=True)
    command = {"argv": [str(word) for word in argv], "env": dict(env or {})}
    (node.paths.parts / f"{part}.json").write_text(json.dumps(command, indent=1))
    start_again(node, part)


def start_again(node: Node, part: str) -> None:
    """Start a part that was stopped or has died, as it was started the first time."""
    command = json.loads((node.paths.parts / f"{part}.json").read_text())
    pid_file = node.paths.parts / f"{part}.pid"
    pid_file.unlink(missing_ok=True)
    # The shell writes its number as the node counts, then becomes the part.
    become = ["/bin/sh", "-c", 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"', str(pid_file), *command["argv"]]
    _spawn([*node.enter, *_DETACHED, *become], _log(node, part), env=command["env"])
    if not wait_until(pid_file.exists, timeout=20, interval=0.02):
        raise ClusterError(f"{part} did not start; {log_tail(_log(node, part))}")


def is_running(node: Node, part: str) -> bool:
    pid = _pid(node, part)
    if pid is None:
        return False
    process = Path(f"/proc/{node.init_pid}/root/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def stop(node: Node, part: str, *, kill: bool = False) -> None:
    """End a part: SIGTERM and, should it not end, SIGKILL; or SIGKILL at once."""
    pid = _pid(node, part)
    if pid is None or not is_running(node, part):
        return
    if not kill:
        node.run(["kill", "-TERM", str(pid)])
        if wait_until(lambda: not is_running(node, part), timeout=15, interval=0.05):
            return
    node.run(["kill", "-KILL", str(pid)])
    if not wait_until(lambda: not is_running(node, part), timeout=15, interval=0.05):
        raise ClusterError(f"{part} (process {pid} in the node) does not die")


def wait_ready(node: Node, part: str, ready: Callable[[], bool], *, timeout: float) -> None:
    """Wait for a part, and stop waiting the moment that it has died."""
    if wait_until(lambda: not is_running(node, part) or ready(), timeout=timeout, interval=0.1):
        if is_running(node, part):
            return
        raise ClusterError(f"{part} ended while starting; {log_tail(_log(node, part))}")
    raise ClusterError(f"{part} was not ready within {timeout:.0f} s; {log_tail(_log(node, part))}")


def dead_parts(node: Node) -> list[str]:
    return sorted(file.stem for file in node.paths.parts.glob("*.json") if not is_running(node, file.stem))


def _log(node: Node, part: str) -> Path:
    return node.paths.logs / f"{part}.log"


def _pid(node: Node, part: str) -> int | None:
    try:
        return int((node.paths.parts / f"{part}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _spawn(argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
    """Run what detaches itself, without this environment's settings."""
    clean = {"PATH": _SYSTEM_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
    with log.open("ab") as output:
        subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean,
            cwd="/",
            check=True,
        )
