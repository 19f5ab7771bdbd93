"""What speaks against a job's pool: objections, which refuse it, and warnings, which do not. Pure.

What the chart declares is final: a job that asks for more can never run, and is refused with the numbers. What nodes
tell is of this moment: nodes come and go, so a job that asks for more is told so and waits for them. How many GPUs are
in use is not looked at: that is for queues and the scheduler.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from anneal_api.base import quantity_value
from anneal_api.compute import ComputeSpec
from anneal_api.conditions import Reason
from anneal_api.words import counted
from anneal_operator.choice import Choice, as_compute, most_beside, places, shortages
from anneal_operator.plan import Plan
from anneal_operator.pools import words
from anneal_operator.steps.common import Objection

GIB = 2**30


def objections(plan: Plan) -> Iterator[Objection]:
    """Why the job can never run in its pools, or has none."""
    yield from _pool_objections(plan, _trainer(plan))
    if (servers := _servers(plan)) is None:
        return
    if servers.choice is not plan.choice:
        yield from _pool_objections(plan, servers)
    elif plan.choice.known:
        yield from _together(plan, servers)


@dataclass(frozen=True)
class _Side:
    """The trainer, or the servers that draw for it, in the same terms. Of the names of fields each has its own."""

    block: str
    compute: ComputeSpec
    choice: Choice
    names: Mapping[str, str]

    def field(self, name: str) -> str:
        """A field as the manifest calls it."""
        return f"spec.{self.block}.{self.names.get(name, name)}"


def _trainer(plan: Plan) -> _Side:
    return _Side("compute", plan.spec.compute, plan.choice, {})


def _servers(plan: Plan) -> _Side | None:
    if plan.rollout is None:
        return None
    names = {"gpusPerNode": "gpus" if plan.rollout.tensor_parallel == 1 else "tensorParallel", "nodes": "replicas"}
    return _Side("rollout", as_compute(plan.rollout, plan.spec.compute), plan.rollout_choice, names)


def _pool_objections(plan: Plan, side: _Side) -> Iterator[Objection]:
    compute, choice = side.compute, side.choice
    if not choice.known:
        yield Reason.UNKNOWN_POOL, _unknown_type(plan, side) if compute.gpu_type else _unknown_pool(plan, side)
        return
    pool, gpus = choice.pool, compute.gpus_per_node
    if choice.name is not None and gpus and not pool.resource_name:
        has = f"pool {choice.name!r} has no GPUs: write 0, or choose another pool"
        yield Reason.INVALID_SPEC, f"{side.field('gpusPerNode')}: {gpus}, but {has}"
    for field in shortages(pool, compute):
        yield Reason.DOES_NOT_FIT_POOL, _shortage(side, field)


def _together(plan: Plan, servers: _Side) -> Iterator[Objection]:
    """Trainer and servers in one pool, of which each might have its place without the other."""
    pool, gpus, compute = plan.pool, servers.compute.gpus_per_node, plan.spec.compute
    if alone := list(_pool_objections(plan, servers)):
        yield from alone
    elif gpus and compute.gpus_per_node and pool.resource_name and pool.nodes and pool.gpus_per_node:
        least = compute.min_nodes or compute.nodes
        room = most_beside(pool.nodes, pool.gpus_per_node, (least, compute.gpus_per_node), gpus)
        if 0 <= room < servers.compute.nodes:
            yield Reason.DOES_NOT_FIT_POOL, _too_much_together(plan, least)


def _too_much_together(plan: Plan, least: int) -> str:
    assert plan.rollout is not None, "it has servers"
    pool, compute = plan.pool, plan.spec.compute
    trainer = f"{counted(least, 'training pod')} of {counted(compute.gpus_per_node, 'GPU')}"
    servers = f"{counted(plan.rollout.servers, 'server')} of {counted(plan.rollout.gpus or 0, 'GPU')}"
    has = f"{counted(pool.nodes or 0, 'node')} of {counted(pool.gpus_per_node or 0, 'GPU')}"
    return (
        f"spec.rollout.replicas: {trainer} and {servers} are needed at once, but pool {plan.pool_name!r} has {has}: "
        "ask for fewer of either, name another pool in spec.rollout.pool, or write rollout.mode: colocate"
    )


def _shortage(side: _Side, field: str) -> str:
    name, pool, compute = side.choice.name, side.choice.pool, side.compute
    gpus = compute.gpus_per_node
    if field == "gpusPerNode":
        more = "nodes" if side.block == "compute" else "replicas"
        has = f"a node of pool {name!r} has {pool.gpus_per_node}: write at most that, and more {more}"
        return f"{side.field(field)}: {gpus}, but {has}"
    asked = compute.min_nodes if field == "minNodes" else compute.nodes
    has = f"pool {name!r} has {counted(pool.nodes or 0, 'node')}, with room for {counted(places(pool, gpus), 'pod')}"
    return f"{side.field(field)}: {asked}, but {has} of {counted(gpus, 'GPU')}: ask for fewer, or choose another pool"


def _unknown_pool(plan: Plan, side: _Side) -> str:
    name, field = str(side.compute.pool), f"spec.{side.block}.pool"
    declared, found = sorted(plan.settings.pools), sorted({each.name for each in plan.node_groups} - {""})
    known = ", ".join(declared) or f"none: the chart's values name no pools, so leave {field} out"
    more = f"; those that nodes have: {', '.join(found)}" if found else ""
    meant = _did_you_mean(name, [*declared, *found])
    return f"{field}: {name!r} is not a pool of this cluster{meant}; its pools are: {known}{more}"


def _unknown_type(plan: Plan, side: _Side) -> str:
    wanted = str(side.compute.gpu_type)
    declared = sorted({pool.gpu_type for pool in plan.settings.pools.values() if pool.gpu_type})
    found = sorted({each.product for each in plan.node_groups} - {""})
    here = f"pools have {', '.join(declared) or 'none'}; nodes have {', '.join(found) or 'none'}"
    remedy = (
        "write one of them or some of its words; for nodes that are made on demand, declare a pool with this gpuType"
    )
    meant = _did_you_mean(wanted, [*declared, *found])
    return f"spec.{side.block}.gpuType: {wanted!r} is not a kind of GPU of this cluster{meant}: {here}; {remedy}"


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    """The nearest name, whole or by one of its words: h10 is near to NVIDIA-H100-80GB-HBM3."""
    parts = {part: name for name in known for part in (name.lower(), *words(name))}
    close = difflib.get_close_matches(text.lower(), parts, n=1, cutoff=0.75)
    return f" (did you mean {parts[close[0]]}?)" if close else ""


def warnings(plan: Plan) -> list[str]:
    """What the nodes that there are have too little of; nothing where no node tells of its GPUs."""
    sides = [_trainer(plan), *filter(None, [_servers(plan)])]
    return [words for side in sides for words in _warnings(plan, side)]


def _warnings(plan: Plan, side: _Side) -> list[str]:
    compute, groups = side.compute, side.choice.groups
    gpus = compute.gpus_per_node
    if not gpus or not plan.node_groups or not side.choice.known:
        return []
    where = f"pool {side.choice.name}" if side.choice.name else "this cluster"
    if not groups:
        return [f"{where} has no node with GPUs now"]
    most = max(each.gpus for each in groups)
    if gpus > most:
        has = f"no node of {where} has more than {counted(most, 'GPU')} now"
        return [f"{side.field('gpusPerNode')} is {gpus}, and {has}"]
    return [*_too_few(side, where), *_too_small(side, where)]


def _too_few(side: _Side, where: str) -> Iterator[str]:
    compute = side.compute
    field, least = ("minNodes", compute.min_nodes) if compute.min_nodes else ("nodes", compute.nodes)
    room = sum(each.nodes * (each.gpus // compute.gpus_per_node) for each in side.choice.groups)
    if room < (least or 0):
        nodes = counted(sum(each.nodes for each in side.choice.groups), "node")
        pods = f"room for {counted(room, 'pod')} of {counted(compute.gpus_per_node, 'GPU')}"
        yield f"{side.field(field)} is {least}, and {where} has {nodes} now, with {pods}"


def _too_small(side: _Side, where: str) -> Iterator[str]:
    """Against the largest node that has enough GPUs."""
    compute = side.compute
    enough = [each for each in side.choice.groups if each.gpus >= compute.gpus_per_node]
    cpu, ram = max(each.cpu for each in enough), max(each.ram for each in enough)
    if cpu and quantity_value(str(compute.cpu)) > cpu:
        yield f"{side.field('cpu')} is {compute.cpu}, and no such node of {where} has more than {cpu:g} now"
    memory = quantity_value(str(compute.memory)) + quantity_value(str(compute.shared_memory or 0))
    if ram and memory > ram:
        both = "memory" if compute.shared_memory is None else "memory and sharedMemory"
        asked = f"{side.field(both)} are {memory / GIB:.1f} GiB together"
        yield f"{asked}, and no such node of {where} has more than {ram / GIB:.1f} GiB now"
