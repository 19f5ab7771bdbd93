"""A node's namespaces with real processes in them: parts start, stop and start again, and the end takes all along."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import lifecycle, network, processes
from cluster.layout import MAX_CLUSTERS, Paths, Subnets, free_index
from cluster.network import host_networks
from cluster.processes import Node
from cluster.shell import ClusterError, wait_until

SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with nothing in it."""
    paths = Paths("unit", root=tmp_path)
    paths.state.mkdir()
    made = processes.create_node(paths)
    yield made
    processes.destroy_node(made)


def in_namespace_of(node: Node) -> set[int]:
    """All processes of the host that share the node's network."""
    wanted = node.network_namespace.readlink()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").readlink() == wanted:
                found.add(int(process.name))
        except OSError:
            continue
    return found


def test_a_part_stops_and_starts_again(node: Node) -> None:
    """A part that was ended is seen as dead, and comes back as it was started."""
    processes.start(node, "part", SLEEP)
    assert processes.is_running(node, "part")
    processes.stop(node, "part")
    assert processes.dead_parts(node) == ["part"]
    processes.start_again(node, "part")
    assert processes.dead_parts(node) == []


def test_the_end_of_the_node_is_the_end_of_all_its_processes(node: Node) -> None:
    """Children that detached themselves die too, and so do their mounts."""
    processes.start(node, "part", ["/bin/sh", "-c", "setsid --fork sleep 1000; sleep 1000"])
    running = in_namespace_of(node)
    assert len(running) >= 3
    processes.destroy_node(node)
    # `unshare`, which waits for the first process, ends a moment after it.
    assert wait_until(lambda: not [pid for pid in running if processes.process_started(pid)], timeout=10)
    assert str(node.paths.state) not in Path("/proc/self/mountinfo").read_text()


def test_a_node_is_found_again_and_not_mistaken(node: Node) -> None:
    """A later process finds the node by its files; a number that now is another process is not the node."""
    assert processes.find_node(node.paths) == node
    record = node.paths.state / "init.json"
    record.write_text(record.read_text().replace(str(node.init_pid), str(os.getpid())))
    assert processes.find_node(node.paths) is None


def test_a_start_that_was_cut_off_is_found(node: Node) -> None:
    """A node whose record was not written yet is known by its first process's command line."""
    (node.paths.state / "init.json").unlink()
    assert processes.find_node(node.paths) == node
    (node.paths.state / "init.pid").write_text(str(os.getpid()))
    assert processes.find_node(node.paths) is None


def test_a_part_that_dies_at_once_is_told_with_its_last_words(node: Node) -> None:
    """Waiting ends the moment the part has died, and the message has its log's name and end."""
    processes.start(node, "part", ["/bin/sh", "-c", "echo no such flag >&2; exit 3"])
    with pytest.raises(ClusterError, match=r"part ended while starting; log: .*part\.log") as raised:
        processes.wait_ready(node, "part", lambda: False, timeout=30)
    assert "no such flag" in str(raised.value)


def test_the_host_reaches_the_node_and_nothing_is_left(node: Node) -> None:
    """A server in the node answers over the link; connecting and disconnecting twice is harmless."""
    # From the end of the range: clusters that start meanwhile take theirs from its beginning.
    subnets = Subnets(free_index(range(MAX_CLUSTERS - 4), host_networks()))
    processes.start(node, "server", [sys.executable, "-m", "http.server", "8000"])
    network.connect(node, subnets)
    network.connect(node, subnets)
    try:
        assert subnets.pods in host_networks()
        assert wait_until(lambda: answers(subnets.node_ip, 8000), timeout=20)
    finally:
        network.disconnect(subnets)
        network.disconnect(subnets)
    assert not {subnets.pods, subnets.services} & set(host_networks())


def answers(address: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_down_without_a_cluster_does_nothing() -> None:
    """Taking down what is not there succeeds, however often, and leaves no file."""
    for _ in range(2):
        lifecycle.down("never-started")
    paths = Paths("never-started")
    assert not paths.state.exists()
    assert not paths.lock.exists()
