"""Which pool a job gets, and what is known of the GPUs there: the chart's pools first, then what nodes tell. Pure.

A pool that was found from labels becomes a `Pool` like one that is declared, so that nothing after this asks where it
came from. Not here: whether the job fits into it (`steps.pool_checks`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from anneal_api.compute import ComputeSpec
from anneal_api.rollout import RolloutSpec
from anneal_operator.kinds import Obj
from anneal_operator.pools import NodeGroup, matches, slug
from anneal_operator.settings import DEFAULT_POOL, Pool

NO_POOL = Pool()


@dataclass(frozen=True)
class Choice:
    """The pool of a job; one without constraints where the job names none (or one that does not exist)."""

    name: str | None = None
    pool: Pool = NO_POOL
    # The nodes of it that there are.
    groups: tuple[NodeGroup, ...] = ()
    # False: what the job names is neither declared nor found.
    known: bool = True
    # Where storage that binds late must bind, so that the GPUs are there too.
    zones: tuple[str, ...] = ()
    # Whether the job or the pool says which GPUs, so that it cannot get any others.
    narrow: bool = False


def choose(
    compute: ComputeSpec, pools: Mapping[str, Pool], groups: Sequence[NodeGroup], *, kept: str | None = None
) -> Choice:
    """The pool of a job; an attempt that is under way has `kept` its own."""
    for name in filter(None, (kept, compute.pool)):
        if found := _named(name, pools, groups):
            return found
    if compute.gpu_type:
        return _of_type(compute.gpu_type, compute, pools, groups) or Choice(known=False)
    if compute.pool:
        return Choice(compute.pool, known=False)
    if DEFAULT_POOL in pools:
        return _declared(DEFAULT_POOL, pools, groups)
    return Choice(groups=tuple(each for each in groups if each.resource == NO_POOL.resource_name))


def choose_for_servers(
    servers: RolloutSpec,
    compute: ComputeSpec,
    pools: Mapping[str, Pool],
    groups: Sequence[NodeGroup],
    *,
    kept: str | None = None,
) -> Choice:
    """The pool that the servers of a job name: each is a pod, as a node of the trainer is."""
    return choose(as_compute(servers, compute), pools, groups, kept=kept)


def as_compute(servers: RolloutSpec, compute: ComputeSpec) -> ComputeSpec:
    """What servers ask for in the trainer's terms."""
    asked = {"pool": servers.pool, "gpu_type": servers.gpu_type, "cpu": servers.cpu, "memory": servers.memory}
    sizes = {"nodes": servers.servers, "min_nodes": None, "gpus_per_node": servers.gpus or 0}
    return compute.model_copy(update={**asked, **sizes})


def _named(name: str, pools: Mapping[str, Pool], groups: Iterable[NodeGroup]) -> Choice | None:
    if name in pools:
        return _declared(name, pools, groups)
    found = [each for each in groups if each.name == name]
    return _found(name, found) if found else None


def _declared(name: str, pools: Mapping[str, Pool], groups: Iterable[NodeGroup]) -> Choice:
    pool = pools[name]
    here = tuple(each for each in groups if name in each.pools)
    narrow = bool(pool.node_selector or pool.gpu_type)
    return Choice(name, pool, here, zones=tuple(pool.zones), narrow=narrow)


def _of_type(
    wanted: str, compute: ComputeSpec, pools: Mapping[str, Pool], groups: Iterable[NodeGroup]
) -> Choice | None:
    """The first declared pool of this type that the job fits into, else the first one, else the nodes that have it."""
    declared = [name for name in sorted(pools) if matches(wanted, pools[name].gpu_type or "")]
    if declared:
        fitting = (name for name in declared if not any(shortages(pools[name], compute)))
        return _declared(next(fitting, declared[0]), pools, groups)
    found = [each for each in groups if each.product and matches(wanted, each.product)]
    return _found(slug(wanted), found) if found else None


def _found(name: str, groups: Sequence[NodeGroup]) -> Choice:
    """Nodes as a pool. A pod asks for one resource: of two vendors' GPUs the first one's are taken.

    It says nothing that changes with single nodes, such as taints and zones: a job that queues for it would ask for
    something else with every such change, and lose its place.
    """
    mine = tuple(each for each in groups if each.resource == groups[0].resource)
    resource, names = mine[0].resource, {each.name for each in mine}
    tolerations = [{"key": resource, "operator": "Exists"}]
    pool = Pool.model_validate({**_selection(mine), "resourceName": resource, "tolerations": tolerations})
    # Of nodes without a zone nobody knows where they are.
    zones = sorted({zone for each in mine for zone in each.zones}) if all(each.zones for each in mine) else ()
    return Choice(names.pop() if len(names) == 1 else name, pool, mine, zones=tuple(zones), narrow=True)


def _selection(groups: Iterable[NodeGroup]) -> Obj:
    """One product is selected; of several, which may be named by several labels, one must match."""
    products: dict[str, set[str]] = {}
    for each in groups:
        products.setdefault(each.label, set()).add(each.product)
    named = [(label, sorted(values)) for label, values in products.items()]
    if len(named) == 1 and len(named[0][1]) == 1:
        return {"nodeSelector": {named[0][0]: named[0][1][0]}}
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": values}]} for key, values in named]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"affinity": {"nodeAffinity": required}}


def shortages(pool: Pool, compute: ComputeSpec) -> Iterator[str]:
    """The fields that ask for more than a declared pool can ever have."""
    gpus, least = compute.gpus_per_node, compute.min_nodes or compute.nodes
    if not gpus or not pool.resource_name:
        return
    if pool.gpus_per_node and gpus > pool.gpus_per_node:
        yield "gpusPerNode"
    elif pool.nodes and least > places(pool, gpus):
        yield "minNodes" if compute.min_nodes else "nodes"


def places(pool: Pool, gpus: int) -> int:
    """How many pods with so many GPUs it has room for: several on a node, if it says how many GPUs that has."""
    return (pool.nodes or 0) * ((pool.gpus_per_node or gpus) // gpus)


@lru_cache(maxsize=256)
def most_beside(nodes: int, gpus: int, pods: tuple[int, int], other: int) -> int:
    """How many pods with `other` GPUs find a place beside so many pods with so many GPUs; negative if these do not.

    >>> most_beside(2, 8, (2, 5), 4), most_beside(2, 8, (1, 5), 4)
    (0, 2)
    """
    count, each = pods
    never = -nodes * gpus - 1
    # The most beside 0, 1, 2, … of those pods, with one node more each time.
    best = [0, *([never] * count)]
    for _ in range(nodes):
        best = [
            max(best[done - here] + (gpus - here * each) // other for here in range(min(done, gpus // each) + 1))
            for done in range(count + 1)
        ]
    return best[count]


def gpu_memory(choice: Choice) -> tuple[float | None, str, bool]:
    """GiB of the roomiest GPU that the job could get, where that is from, and whether it can get no other."""
    if choice.pool.memory_gib:
        return choice.pool.memory_gib, f"pool {choice.name}", True
    known = [each for each in choice.groups if each.memory]
    if not known:
        return None, "", False
    roomiest = max(known, key=lambda each: each.memory or 0)
    certain = choice.narrow and len(known) == len(choice.groups)
    return roomiest.memory, f"{roomiest.product} nodes", certain
