"""GPU pools that nobody declared: what the labels of nodes tell of the GPUs there are. Pure.

Nodes are told apart by their product, the memory of a GPU and how many a node has; a pool is named for its product, so
that a job can name it. A node that is cordoned or not ready has no room, yet its kind is known: a job for it waits
instead of being refused. Taints are not looked at: that of the GPUs is tolerated anyway, and a job may tolerate others,
so what is said of nodes here is the most that a job could get.

Not here: nodes that are to be made on demand (the chart's pools declare those), parts of GPUs that have a resource of
their own (nvidia.com/mig-…), and which of the pools a job gets (`choice`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from anneal_api.base import quantity_value
from anneal_operator.kinds import Obj, labels_of
from anneal_operator.settings import Pool

ZONE_LABEL = "topology.kubernetes.io/zone"
NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
# Who names the product, the best informed first: the vendors' own labellers, then clouds and provisioners.
PRODUCT_LABELS = (
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
)
# Only of nodes that are known to have GPUs.
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
MIB_LABELS = (
    "nvidia.com/gpu.memory",
    "karpenter.k8s.aws/instance-gpu-memory",
    "eks.amazonaws.com/instance-gpu-memory",
)
AMD_MEMORY = "amd.com/gpu.vram"
_COUNT_LABELS = (
    "nvidia.com/gpu.count",
    "cloud.google.com/gke-accelerator-count",
    "karpenter.k8s.aws/instance-gpu-count",
    "eks.amazonaws.com/instance-gpu-count",
)
# A part of a GPU, or one that is shared, is another product than the whole: only who asks for it gets it.
_PARTIAL = frozenset({"mig", "shared"})


GroupKind = tuple[str, str, str, int, float, tuple[str, ...]]


@dataclass(frozen=True)
class NodeGroup:
    """Nodes with the same GPUs."""

    # The product as a label value, and as a name of a pool; empty if no label tells.
    product: str
    label: str
    resource: str
    # Of one node.
    gpus: int
    # GiB of one GPU.
    memory: float | None = None
    # The chart's pools whose selector and zones these nodes match.
    pools: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    # Ready and open to pods.
    nodes: int = 0
    # Of the largest of these nodes: cores and bytes.
    cpu: float = 0
    ram: float = 0

    @property
    def name(self) -> str:
        """The pool's name."""
        return slug(self.product)

    @property
    def kind(self) -> GroupKind:
        """What tells it from other groups; the roomier ones of a product are the first."""
        return self.product, self.label, self.resource, -self.gpus, -(self.memory or 0), tuple(sorted(self.pools))


def slug(product: str) -> str:
    """A product as a name.

    >>> slug("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb")
    'nvidia-a100-sxm4-40gb-mig-1g-5gb'
    """
    return re.sub(r"[^a-z0-9]+", "-", product.lower())[:63].strip("-")


def words(product: str) -> frozenset[str]:
    """The words of a product's name."""
    return frozenset(re.split(r"[-_ ]+", product.lower())) - {""}


def matches(wanted: str, product: str) -> bool:
    """Whether a product is of the kind that a job asks for: the same name, or all the words that are asked for.

    >>> matches("a100-80gb", "NVIDIA-A100-SXM4-80GB"), matches("h100", "NVIDIA-GH200-480GB")
    (True, False)
    """
    if wanted.lower() == product.lower():
        return True
    asked, has = words(wanted), words(product)
    return bool(asked) and asked <= has and has & _PARTIAL <= asked


def discover(nodes: Iterable[Obj], pools: Mapping[str, Pool]) -> tuple[NodeGroup, ...]:
    """The groups of a cluster's nodes that have GPUs, by product, the larger nodes first."""
    groups: dict[GroupKind, NodeGroup] = {}
    for node in nodes:
        if (one := _group_of(node, pools)) is not None:
            groups[one.kind] = _together(groups[one.kind], one) if one.kind in groups else one
    return tuple(groups[kind] for kind in sorted(groups))


def _together(one: NodeGroup, other: NodeGroup) -> NodeGroup:
    return replace(
        one,
        zones=one.zones | other.zones,
        nodes=one.nodes + other.nodes,
        cpu=max(one.cpu, other.cpu),
        ram=max(one.ram, other.ram),
    )


def _group_of(node: Obj, pools: Mapping[str, Pool]) -> NodeGroup | None:
    """The group that one node makes; None if it has no GPU."""
    labels, allocatable = labels_of(node), (node.get("status") or {}).get("allocatable") or {}
    resource = _resource(labels, allocatable)
    if resource is None:
        return None
    free = _whole(allocatable.get(resource))
    gpus = free or max(_whole(labels.get(label)) for label in _COUNT_LABELS)
    if not gpus:
        return None
    label = next((each for each in (*PRODUCT_LABELS, INSTANCE_TYPE) if labels.get(each)), "")
    product = labels.get(label, "")
    return NodeGroup(
        product=product,
        label=label,
        resource=resource,
        gpus=gpus,
        memory=_memory(labels, product),
        pools=frozenset(name for name, pool in pools.items() if _is_of(pool, resource, labels)),
        zones=frozenset(filter(None, [labels.get(ZONE_LABEL)])),
        nodes=1 if free and _is_open(node) else 0,
        cpu=_amount(allocatable.get("cpu")),
        ram=_amount(allocatable.get("memory")),
    )


def _resource(labels: Mapping[str, str], allocatable: Mapping[str, str]) -> str | None:
    """What a pod asks for to get one of these GPUs; without a device plugin yet, by who named the product."""
    offered = [each for each in (NVIDIA, AMD) if each in allocatable]
    if offered:
        return max(offered, key=lambda each: _whole(allocatable[each]))
    label = next((each for each in PRODUCT_LABELS if labels.get(each)), None)
    if label is None:
        return None
    return AMD if label.startswith("amd.com/") else NVIDIA


def _memory(labels: Mapping[str, str], product: str) -> float | None:
    """GiB of one GPU: as labelled, else as the product's name tells."""
    mib = next((_whole(labels[label]) for label in MIB_LABELS if label in labels), 0)
    if mib:
        return mib / 1024
    if vram := re.fullmatch(r"(\d+)G", labels.get(AMD_MEMORY, "")):
        return float(vram[1])
    named = [int(word[:-2]) for word in words(product) if re.fullmatch(r"\d+gb", word)]
    return float(named[0]) if len(named) == 1 and not words(product) & _PARTIAL else None


def _is_of(pool: Pool, resource: str, labels: Mapping[str, str]) -> bool:
    if pool.resource_name != resource or not pool.node_selector.items() <= labels.items():
        return False
    return not pool.zones or labels.get(ZONE_LABEL) in pool.zones


def _is_open(node: Obj) -> bool:
    """Whether new pods are let on it."""
    if (node.get("spec") or {}).get("unschedulable"):
        return False
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


def _amount(quantity: str | None) -> float:
    """A quantity; 0 for what is not one that is known here."""
    try:
        return quantity_value(quantity or "0")
    except (ValueError, KeyError):
        return 0.0
