"""The link between the host and a node: one veth pair, and routes to the cluster's own addresses.

Nothing else of the host's network is touched: no forwarding, no NAT, no firewall rule. Pods reach nothing outside
the cluster, and the pair with its routes is gone when the node's namespace is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster.shell import ClusterError, run, succeeds, wait_until

if TYPE_CHECKING:
    from cluster.layout import Subnets
    from cluster.processes import Node


def host_networks() -> list[str]:
    """The networks the host routes to, its default route aside."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show"]) or "[]")
    return [route["dst"] for route in routes if route["dst"] != "default"]


def connect(node: Node, subnets: Subnets) -> None:
    link = subnets.host_link
    disconnect(subnets)
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(node.init_pid)])
    run(["ip", "address", "add", f"{subnets.host_ip}/30", "dev", link])
    run(["ip", "link", "set", link, "up"])
    node.run(["ip", "address", "add", f"{subnets.node_ip}/30", "dev", "eth0"])
    node.run(["ip", "link", "set", "eth0", "up"])
    # The kubelet and the API server want a default route to know their own address by. It also lets pods answer
    # the host, which is how an operator that a developer runs outside the cluster reaches them.
    node.run(["ip", "route", "add", "default", "via", subnets.host_ip])
    for destination in (subnets.pods, subnets.services):
        run(["ip", "route", "add", destination, "via", subnets.node_ip])


def disconnect(subnets: Subnets) -> None:
    """Remove the pair, should a killed start have left it; the node's end goes with the host's."""
    if not _exists(subnets):
        return
    # It may be just going by itself, with the namespace of a node that was killed.
    succeeds(["ip", "link", "delete", subnets.host_link])
    if not wait_until(lambda: not _exists(subnets), timeout=20):
        raise ClusterError(
            f"network link {subnets.host_link} cannot be deleted; try `ip link delete {subnets.host_link}`"
        )


def _exists(subnets: Subnets) -> bool:
    return succeeds(["ip", "link", "show", "dev", subnets.host_link])
