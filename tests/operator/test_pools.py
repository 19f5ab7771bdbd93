"""What nodes tell of their GPUs, and which pool a job gets of what is declared and what is found."""

from typing import Any

import pytest

from anneal_api.compute import ComputeSpec
from anneal_operator.choice import Choice, choose, gpu_memory, shortages
from anneal_operator.kinds import Obj
from anneal_operator.plan import plan_of
from anneal_operator.pools import NodeGroup, discover, matches, slug
from anneal_operator.settings import Pool
from simulated.builders import make_job, make_node, make_settings, stamp

ONLY_CPU = {"nvidia.com/gpu": "0"}


def seen(node: Obj, **pools: Pool) -> NodeGroup:
    """The group of one node."""
    (found,) = discover([node], pools)
    return found


def pool(**fields: Any) -> Pool:
    """A declared pool."""
    return Pool.model_validate(fields)


def compute(**fields: Any) -> ComputeSpec:
    """What a job asks for."""
    return ComputeSpec.model_validate(fields)


LABELLED: dict[str, tuple[dict[str, Any], tuple[str, str, str, int, float | None]]] = {
    "nvidia": (
        {}, ("NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.product", "nvidia.com/gpu", 8, 81559 / 1024),
    ),
    "nvidia-slices": (
        {"product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "gpus": 7, "mib": 4864},
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.product", "nvidia.com/gpu", 7, 4.75),
    ),
    "amd": (
        {"labels": {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM", "amd.com/gpu.vram": "192G"},
         "allocatable": {"amd.com/gpu": "8", **ONLY_CPU}},
        ("AMD_Instinct_MI300X_OAM", "amd.com/gpu.product-name", "amd.com/gpu", 8, 192),
    ),
    "gke": (
        {"labels": {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}, "gpus": 4},
        ("nvidia-a100-80gb", "cloud.google.com/gke-accelerator", "nvidia.com/gpu", 4, 80),
    ),
    "karpenter": (
        {"labels": {"karpenter.k8s.aws/instance-gpu-name": "l4", "karpenter.k8s.aws/instance-gpu-memory": "22888"},
         "gpus": 1},
        ("l4", "karpenter.k8s.aws/instance-gpu-name", "nvidia.com/gpu", 1, 22888 / 1024),
    ),
    "eks-auto-mode": (
        {"labels": {"eks.amazonaws.com/instance-gpu-name": "a10g", "eks.amazonaws.com/instance-gpu-memory": "22888"},
         "gpus": 1},
        ("a10g", "eks.amazonaws.com/instance-gpu-name", "nvidia.com/gpu", 1, 22888 / 1024),
    ),
    "instance-type": (
        {"labels": {"node.kubernetes.io/instance-type": "p4d.24xlarge"}},
        ("p4d.24xlarge", "node.kubernetes.io/instance-type", "nvidia.com/gpu", 8, None),
    ),
    "no-label": ({"labels": {}}, ("", "", "nvidia.com/gpu", 8, None)),
    "no-device-plugin-yet": (
        {"allocatable": ONLY_CPU},
        ("NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.product", "nvidia.com/gpu", 8, 81559 / 1024),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("node", "expected"), LABELLED.values(), ids=LABELLED)
def test_gpus_are_known_by_the_labels_of_vendors_and_clouds(node: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Product, the label that has it, the resource to ask for, GPUs of a node and GiB of a GPU."""
    found = seen(make_node(**node))
    assert (found.product, found.label, found.resource, found.gpus, found.memory) == expected


@pytest.mark.parametrize(
    "node",
    [
        {"labels": {}, "gpus": 0},
        {"labels": {"node.kubernetes.io/instance-type": "m5.large"}, "gpus": 0},
        {"gpus": "many"},
    ],
    ids=["none", "instance-type-alone", "nonsense"],
)
def test_a_node_without_gpus_is_no_pool(node: dict[str, Any]) -> None:
    """The type of an instance tells nothing by itself."""
    assert discover([make_node(**node)], {}) == ()


def test_nodes_with_the_same_gpus_are_one_group_and_others_are_apart() -> None:
    """The number of GPUs, their memory and being a part of one each make another group."""
    nodes = [
        make_node("a"), make_node("b", allocatable={"cpu": "128"}),
        make_node("c", gpus=4), make_node("d", product="NVIDIA-H100-80GB-HBM3-SHARED", gpus=32),
    ]  # fmt: skip
    found = discover(nodes, {})
    assert [(each.name, each.gpus, each.nodes) for each in found] == [
        ("nvidia-h100-80gb-hbm3", 8, 2), ("nvidia-h100-80gb-hbm3", 4, 1), ("nvidia-h100-80gb-hbm3-shared", 32, 1),
    ]  # fmt: skip
    assert found[0].cpu == 128


@pytest.mark.parametrize(
    "node",
    [{"ready": False}, {"cordoned": True}, {"allocatable": ONLY_CPU}],
    ids=["not-ready", "cordoned", "no-device-plugin-yet"],
)
def test_a_node_without_room_is_known_but_not_counted(node: dict[str, Any]) -> None:
    """A job for such GPUs waits; it is not told that there are none of the kind."""
    assert [(each.gpus, each.nodes) for each in discover([make_node(**node), make_node("other")], {})] == [(8, 1)]


def test_a_declared_pool_has_the_nodes_that_its_selector_and_zones_match() -> None:
    """By any label, and only those with its resource."""
    labels = {"gpu": "h100", "topology.kubernetes.io/zone": "a"}
    pools = {
        "here": pool(nodeSelector={"gpu": "h100"}, zones=["a", "b"]), "all": pool(), "amd": pool(resourceName="amd.com/gpu"),
        "elsewhere": pool(zones=["c"]), "other": pool(nodeSelector={"gpu": "a100"}),
    }  # fmt: skip
    assert seen(make_node(labels=labels), **pools).pools == {"here", "all"}


WANTED = [
    ("NVIDIA-H100-80GB-HBM3", "nvidia-h100-80gb-hbm3", True),
    ("h100", "NVIDIA-H100-80GB-HBM3", True),
    ("H100-80gb", "NVIDIA-H100-80GB-HBM3", True),
    ("a100-80gb", "NVIDIA-A100-SXM4-40GB", False),
    ("h100", "NVIDIA-GH200-480GB", False),
    ("mi300x", "AMD_Instinct_MI300X_OAM", True),
    ("a100", "Standard_NC24ads_A100_v4", True),
    ("a100", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", False),
    ("a100-mig-1g.5gb", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", True),
    ("t4", "Tesla-T4-SHARED", False),
    ("t4-shared", "Tesla-T4-SHARED", True),
    ("h100", "", False),
]


@pytest.mark.parametrize(("wanted", "product", "expected"), WANTED)
def test_a_kind_of_gpu_is_all_the_words_that_are_asked_for(wanted: str, product: str, *, expected: bool) -> None:
    """Whole words only; a part of a GPU, or a shared one, only for who asks for it."""
    assert matches(wanted, product) is expected


def test_a_product_makes_a_name_that_a_job_can_write() -> None:
    """Whatever is in a label value, and however long."""
    assert slug("AMD_Instinct_MI300X_OAM") == "amd-instinct-mi300x-oam"
    assert len(slug("a-" * 40)) <= 63


H100, NVL, A100, L4 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-NVL", "NVIDIA-A100-SXM4-40GB", "NVIDIA-L4"
NODES = (
    make_node("h1", product=H100), make_node("h2", product=H100),
    make_node("n1", product=NVL, gpus=4, mib=95830), make_node("a1", product=A100, mib=40960),
)  # fmt: skip
DECLARED = {
    "big": pool(gpuType=H100, gpusPerNode=8, nodes=4),
    "a-small": pool(gpuType=H100, gpusPerNode=4, nodeSelector={"nvidia.com/gpu.product": H100}),
    "tight": pool(nodeSelector={"nvidia.com/gpu.product": NVL}, memoryGiB=90),
}
DEFAULT = {"default": pool(resourceName="")}
CHOSEN: dict[str, tuple[dict[str, Any], dict[str, Pool], str | None, bool]] = {
    "declared": ({"pool": "big"}, DECLARED, "big", True),
    "declared-before-found": ({"pool": "nvidia-l4"}, {"nvidia-l4": pool()}, "nvidia-l4", True),
    "found": ({"pool": "nvidia-h100-nvl"}, DECLARED, "nvidia-h100-nvl", True),
    "neither": ({"pool": "b200"}, DECLARED, "b200", False),
    "neither-and-default": ({"pool": "b200"}, DEFAULT, "b200", False),
    "type-first-by-name": ({"gpuType": "h100", "gpusPerNode": 4}, DECLARED, "a-small", True),
    "type-that-fits": ({"gpuType": "h100", "gpusPerNode": 8}, DECLARED, "big", True),
    "type-that-fits-nowhere": ({"gpuType": "h100", "gpusPerNode": 16}, DECLARED, "a-small", True),
    "type-found": ({"gpuType": "a100"}, DECLARED, "nvidia-a100-sxm4-40gb", True),
    "type-of-several-products": ({"gpuType": "H100"}, {}, "h100", True),
    "type-unknown": ({"gpuType": "b200"}, DECLARED, None, False),
    "default": ({"gpusPerNode": 0}, DEFAULT, "default", True),
    "nothing": ({}, DECLARED, None, True),
}


@pytest.mark.parametrize(("asked", "pools", "name", "known"), CHOSEN.values(), ids=CHOSEN)
def test_the_pool_of_a_job(asked: dict[str, Any], pools: dict[str, Pool], name: str | None, *, known: bool) -> None:
    """Declared pools come first, then what nodes have, then the pool called default, then no constraint."""
    found = choose(compute(**asked), pools, discover(NODES, pools))
    assert (found.name, found.known) == (name, known)


def found_pool(**asked: Any) -> Pool:
    """The pool that is found for a job, with nothing declared."""
    return choose(compute(**asked), {}, discover(NODES, {})).pool


def test_a_found_pool_selects_its_product_and_tolerates_its_taint() -> None:
    """One product by the node selector, several by an affinity in which one of them must match."""
    one = found_pool(pool="nvidia-a100-sxm4-40gb")
    assert (one.node_selector, one.affinity) == ({"nvidia.com/gpu.product": A100}, None)
    assert (one.tolerations, one.resource_name) == ([{"key": "nvidia.com/gpu", "operator": "Exists"}], "nvidia.com/gpu")
    several = found_pool(gpuType="h100")
    assert several.node_selector == {}
    assert several.tolerations == one.tolerations
    assert several.affinity is not None
    (term,) = several.affinity.as_manifest()["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": [H100, NVL]}]}


def test_products_that_other_labels_name_are_alternatives() -> None:
    """Half of the cluster may be labelled by the vendor and half by the cloud."""
    nodes = [make_node(product=H100), make_node("g", labels={"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"})]
    affinity = choose(compute(gpuType="h100"), {}, discover(nodes, {})).pool.affinity
    assert affinity is not None
    assert affinity.node_affinity is not None
    required = affinity.node_affinity.required_during_scheduling_ignored_during_execution
    assert required is not None
    assert {term.match_expressions[0].key for term in required.node_selector_terms} == {
        "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator",
    }  # fmt: skip


def test_the_zones_of_found_nodes_are_known_but_constrain_no_trainer() -> None:
    """A volume that the prepare pod binds must land where the GPUs are; if any node has no zone, nobody knows."""
    zoned = make_node(labels={"nvidia.com/gpu.product": L4, "topology.kubernetes.io/zone": "b"})
    found = choose(compute(gpuType="l4"), {}, discover([zoned], {}))
    assert (found.zones, found.pool.zones) == (("b",), [])
    mixed = discover([zoned, make_node("plain", product=L4, gpus=4)], {})
    assert choose(compute(gpuType="l4"), {}, mixed).zones == ()


def test_what_a_found_pool_asks_for_does_not_change_with_single_nodes() -> None:
    """A job that queues for it would lose its place."""
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    labels = {"nvidia.com/gpu.product": L4, "topology.kubernetes.io/zone": "c"}
    before, after = [make_node(product=L4)], [make_node(labels=labels, gpus=4, taints=[taint], cordoned=True)]
    asked = [choose(compute(gpuType="l4"), {}, discover(nodes, {})).pool for nodes in (before, after)]
    assert asked[0] == asked[1]


MEMORY: dict[str, tuple[dict[str, Any], dict[str, Pool], tuple[float | None, str, bool]]] = {
    "declared": ({"pool": "tight"}, DECLARED, (90, "pool tight", True)),
    "of-the-pools-nodes": ({"pool": "a-small"}, DECLARED, (81559 / 1024, f"{H100} nodes", True)),
    "named": ({"pool": "nvidia-a100-sxm4-40gb"}, {}, (40, f"{A100} nodes", True)),
    "roomiest-of-a-type": ({"gpuType": "h100"}, {}, (95830 / 1024, f"{NVL} nodes", True)),
    "roomiest-of-all": ({}, {}, (95830 / 1024, f"{NVL} nodes", False)),
    "pool-without-selector": ({"pool": "any"}, {"any": pool()}, (95830 / 1024, f"{NVL} nodes", False)),
    "nothing-known": ({"pool": "empty"}, {"empty": pool(nodeSelector={"gpu": "b200"})}, (None, "", False)),
}


@pytest.mark.parametrize(("asked", "pools", "expected"), MEMORY.values(), ids=MEMORY)
def test_the_memory_of_the_roomiest_gpu_that_a_job_could_get(
    asked: dict[str, Any], pools: dict[str, Pool], expected: tuple[float | None, str, bool]
) -> None:
    """It is certain where the chart says it or the job cannot land on other GPUs."""
    assert gpu_memory(choose(compute(**asked), pools, discover(NODES, pools))) == expected


def test_memory_that_only_some_nodes_tell_is_not_certain() -> None:
    """The GPUs that nobody labelled may be roomier."""
    nodes = [make_node(product=L4, mib=23034), make_node("b", labels={"nvidia.com/gpu.product": L4})]
    assert gpu_memory(choose(compute(gpuType="l4"), {}, discover(nodes, {})))[2] is False


SHORT: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "fits": ({"gpusPerNode": 8, "nodes": 4}, {"gpusPerNode": 8, "nodes": 4}, []),
    "gpus": ({"gpusPerNode": 9}, {"gpusPerNode": 8}, ["gpusPerNode"]),
    "nodes": ({"gpusPerNode": 8, "nodes": 5}, {"gpusPerNode": 8, "nodes": 4}, ["nodes"]),
    "nodes-without-gpus-per-node": ({"nodes": 5}, {"nodes": 4}, ["nodes"]),
    "two-on-a-node": ({"gpusPerNode": 4, "nodes": 8}, {"gpusPerNode": 8, "nodes": 4}, []),
    "fewer-will-do": ({"gpusPerNode": 8, "nodes": 5, "minNodes": 4}, {"gpusPerNode": 8, "nodes": 4}, []),
    "fewest": ({"gpusPerNode": 8, "nodes": 9, "minNodes": 5}, {"gpusPerNode": 8, "nodes": 4}, ["minNodes"]),
    "cpu": ({"gpusPerNode": 0, "nodes": 9}, {"gpusPerNode": 8, "nodes": 4}, []),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "declared", "expected"), SHORT.values(), ids=SHORT)
def test_what_a_declared_pool_can_never_have(
    asked: dict[str, Any], declared: dict[str, Any], expected: list[str]
) -> None:
    """A node may hold several pods; with minNodes it is enough if the fewest find room."""
    assert list(shortages(pool(**declared), compute(**asked))) == expected


def test_an_attempt_that_is_under_way_keeps_its_pool() -> None:
    """Other nodes or values do not move it; the next attempt chooses anew."""
    job = make_job(compute={"gpuType": "h100", "gpusPerNode": 2})
    groups = discover(NODES, {})
    settings = make_settings(pools={})
    running = {"number": 1, "startTime": stamp(0), "pool": "a-flavor-of-the-queue"}
    for attempt, expected in ((running, "nvidia-h100-nvl"), ({**running, "endTime": stamp(9)}, "h100")):
        status = {"pool": "nvidia-h100-nvl", "attempts": [attempt]}
        assert plan_of({**job, "status": status}, settings, groups).pool_name == expected
    gone = {**job, "status": {"pool": "was-declared", "attempts": [running]}}
    assert plan_of(gone, settings, groups).pool_name == "h100"


def test_without_nodes_and_pools_nothing_is_constrained() -> None:
    """As in a cluster whose nodes the operator may not list."""
    assert choose(compute(), {}, ()) == Choice()
