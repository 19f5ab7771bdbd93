"""Where a cluster's things lie and which addresses it uses: pure values, computed from its name and number.

Everything of a running cluster is under one state directory, so that ending it is removing that directory;
what is costly to make is under one cache directory and shared by all clusters.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

STATE_ROOT = Path("/var/lib/anneal-cluster")
REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).resolve().parent
# Inside a cluster's own network the registry is always here, so image names do not differ between clusters, and
# containerd speaks plain http to localhost without being told to.
REGISTRY = "localhost:5000"
MAX_CLUSTERS = 32
_FIRST_OCTET, _SECOND_OCTET = 10, 96
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def cache_root() -> Path:
    configured = os.environ.get("ANNEAL_CACHE")
    return Path(configured).resolve() if configured else Path.home() / ".cache" / "anneal"


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"cluster name {name!r}: write 1 to 20 lower-case letters, digits and dashes, starting with a letter"
        )
    return name


@dataclass(frozen=True)
class Paths:
    """The files of one cluster."""

    name: str
    root: Path = STATE_ROOT

    @property
    def state(self) -> Path:
        return self.root / self.name

    @property
    def lock(self) -> Path:
        return self.root / f".{self.name}.lock"

    @property
    def record(self) -> Path:
        return self.state / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.state / "certificates"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def parts(self) -> Path:
        return self.state / "parts"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def context(self) -> str:
        return f"anneal-{self.name}"

    @property
    def node_name(self) -> str:
        return f"anneal-{self.name}"

    @property
    def cgroup(self) -> str:
        return f"anneal-{self.name}"


@dataclass(frozen=True)
class Subnets:
    """The addresses of cluster number `index`: one /16 of its own, so clusters side by side never meet."""

    index: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"{_FIRST_OCTET}.{_SECOND_OCTET + self.index}.0.0/16")

    def _address(self, offset: int) -> str:
        return str(self.network.network_address + offset)

    @property
    def host_ip(self) -> str:
        return self._address(1)

    @property
    def node_ip(self) -> str:
        return self._address(2)

    @property
    def services(self) -> str:
        return self._address(0x1000) + "/20"

    @property
    def api_service_ip(self) -> str:
        return self._address(0x1001)

    @property
    def dns_ip(self) -> str:
        return self._address(0x100A)

    @property
    def pods(self) -> str:
        return self._address(0x8000) + "/17"

    @property
    def host_link(self) -> str:
        return f"anneal{self.index}"


def free_index(taken: Collection[int], host_networks: Iterable[str]) -> int:
    """The first number whose addresses neither another cluster nor the host's own routes use."""
    busy = [ipaddress.IPv4Network(network, strict=False) for network in host_networks]
    for index in range(MAX_CLUSTERS):
        if index not in taken and not any(Subnets(index).network.overlaps(other) for other in busy):
            return index
    first, last = Subnets(0).network, Subnets(MAX_CLUSTERS - 1).network
    raise ValueError(f"no free network for a cluster between {first} and {last}: `down` clusters that are not used")
