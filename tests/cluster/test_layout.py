"""Names and addresses: clusters side by side never meet, and a bad name says what a good one is."""

import ipaddress
import itertools

import pytest

from cluster.layout import MAX_CLUSTERS, Subnets, check_name, free_index

ALL = [Subnets(index) for index in range(MAX_CLUSTERS)]


def test_no_two_clusters_share_an_address() -> None:
    """Whatever two numbers clusters have, their networks do not overlap."""
    assert not any(one.network.overlaps(other.network) for one, other in itertools.combinations(ALL, 2))


@pytest.mark.parametrize("subnets", ALL[:: MAX_CLUSTERS - 1], ids=["first", "last"])
def test_the_parts_of_a_network_are_disjoint(subnets: Subnets) -> None:
    """Link, services and pods lie inside the cluster's network and apart from each other."""
    link = ipaddress.IPv4Network(f"{subnets.host_ip}/30", strict=False)
    parts = [link, ipaddress.IPv4Network(subnets.services), ipaddress.IPv4Network(subnets.pods)]
    assert ipaddress.IPv4Address(subnets.node_ip) in link
    assert all(part.subnet_of(subnets.network) for part in parts)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(parts, 2))
    services = ipaddress.IPv4Network(subnets.services)
    assert all(ipaddress.IPv4Address(ip) in services for ip in (subnets.api_service_ip, subnets.dns_ip))


def test_names_of_host_links_differ_and_fit_the_kernel() -> None:
    """Every cluster's link has a name of its own of at most 15 characters."""
    names = {subnets.host_link for subnets in ALL}
    assert len(names) == MAX_CLUSTERS
    assert max(map(len, names)) <= 15


@pytest.mark.parametrize(
    ("taken", "routes", "expected"),
    [
        ((), (), 0),
        ((0, 1), (), 2),
        ((), ("10.96.0.0/14",), 4),
        ((5,), ("10.96.0.0/14", "10.100.7.0/24", "192.0.2.2"), 6),
    ],
    ids=["first", "after other clusters", "beside the host's routes", "beside both"],
)
def test_a_free_network_is_chosen(taken: tuple[int, ...], routes: tuple[str, ...], expected: int) -> None:
    """The first network that neither a cluster nor a route of the host uses is taken."""
    assert free_index(taken, routes) == expected


def test_no_free_network_says_what_to_do() -> None:
    """When everything is taken, the message names the range and the remedy."""
    with pytest.raises(ValueError, match=r"no free network .*10\.96\.0\.0/16 and 10\.127\.0\.0/16.*`down`"):
        free_index((), ["10.0.0.0/8"])


@pytest.mark.parametrize("name", ["", "Dev", "-a", "a-", "a_b", "../x", "a" * 21, ".unpacking"])
def test_a_bad_name_is_refused(name: str) -> None:
    """A name that could not be a directory, a link and a node at once is refused with what is accepted."""
    with pytest.raises(ValueError, match="1 to 20 lower-case letters"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "dev", "e2e", "a-1", "a" * 20])
def test_a_good_name_is_taken(name: str) -> None:
    """Short lower-case names are accepted as they are."""
    assert check_name(name) == name
