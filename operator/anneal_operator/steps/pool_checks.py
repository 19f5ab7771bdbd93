"""What speaks against a job's pool: objections, which refuse it, and warnings, which do not. Pure.

What the chart declares is final: a job that asks for more can never run, and is refused with the numbers. What nodes
tell is of this moment: nodes come and go, so a job that asks for more is told so and waits for them. How many GPUs are
in use is not looked at: that is for queues and the scheduler.
"""

import difflib
from collections.abc import Iterable, Iterator

from anneal_api.base import quantity_value
from anneal_api.conditions import Reason
from anneal_api.words import counted
from anneal_operator.choice import places, shortages
from anneal_operator.plan import Plan
from anneal_operator.pools import words
from anneal_operator.steps.common import Objection

GIB = 2**30


def objections(plan: Plan) -> Iterator[Objection]:
    """Why the job can never run in its pool, or has none."""
    if not plan.choice.known:
        yield Reason.UNKNOWN_POOL, _unknown_type(plan) if plan.spec.compute.gpu_type else _unknown_pool(plan)
        return
    pool, gpus = plan.pool, plan.spec.compute.gpus_per_node
    if plan.pool_name is not None and gpus and not pool.resource_name:
        has = f"pool {plan.pool_name!r} has no GPUs: write 0, or choose another pool"
        yield Reason.INVALID_SPEC, f"spec.compute.gpusPerNode: {gpus}, but {has}"
    for field in shortages(pool, plan.spec.compute):
        yield Reason.DOES_NOT_FIT_POOL, _shortage(plan, field)


def _shortage(plan: Plan, field: str) -> str:
    name, pool, compute = plan.pool_name, plan.pool, plan.spec.compute
    gpus = compute.gpus_per_node
    if field == "gpusPerNode":
        has = f"a node of pool {name!r} has {pool.gpus_per_node}: write at most that, and more nodes"
        return f"spec.compute.gpusPerNode: {gpus}, but {has}"
    asked = compute.min_nodes if field == "minNodes" else compute.nodes
    has = f"pool {name!r} has {counted(pool.nodes or 0, 'node')}, with room for {counted(places(pool, gpus), 'pod')}"
    return f"spec.compute.{field}: {asked}, but {has} of {counted(gpus, 'GPU')}: ask for fewer, or choose another pool"


def _unknown_pool(plan: Plan) -> str:
    name = str(plan.spec.compute.pool)
    declared, found = sorted(plan.settings.pools), sorted({each.name for each in plan.node_groups} - {""})
    known = ", ".join(declared) or "none: the chart's values name no pools, so leave spec.compute.pool out"
    more = f"; those that nodes have: {', '.join(found)}" if found else ""
    meant = _did_you_mean(name, [*declared, *found])
    return f"spec.compute.pool: {name!r} is not a pool of this cluster{meant}; its pools are: {known}{more}"


def _unknown_type(plan: Plan) -> str:
    wanted = str(plan.spec.compute.gpu_type)
    declared = sorted({pool.gpu_type for pool in plan.settings.pools.values() if pool.gpu_type})
    found = sorted({each.product for each in plan.node_groups} - {""})
    here = f"pools have {', '.join(declared) or 'none'}; nodes have {', '.join(found) or 'none'}"
    remedy = (
        "write one of them or some of its words; for nodes that are made on demand, declare a pool with this gpuType"
    )
    meant = _did_you_mean(wanted, [*declared, *found])
    return f"spec.compute.gpuType: {wanted!r} is not a kind of GPU of this cluster{meant}: {here}; {remedy}"


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    """The nearest name, whole or by one of its words: h10 is near to NVIDIA-H100-80GB-HBM3."""
    parts = {part: name for name in known for part in (name.lower(), *words(name))}
    close = difflib.get_close_matches(text.lower(), parts, n=1, cutoff=0.75)
    return f" (did you mean {parts[close[0]]}?)" if close else ""


def warnings(plan: Plan) -> list[str]:
    """What the nodes that there are have too little of; nothing where no node tells of its GPUs."""
    compute, groups = plan.spec.compute, plan.choice.groups
    gpus = compute.gpus_per_node
    if not gpus or not plan.node_groups or not plan.choice.known:
        return []
    where = f"pool {plan.pool_name}" if plan.pool_name else "this cluster"
    if not groups:
        return [f"{where} has no node with GPUs now"]
    most = max(each.gpus for each in groups)
    if gpus > most:
        return [f"spec.compute.gpusPerNode is {gpus}, and no node of {where} has more than {counted(most, 'GPU')} now"]
    return [*_too_few(plan, where), *_too_small(plan, where)]


def _too_few(plan: Plan, where: str) -> Iterator[str]:
    compute = plan.spec.compute
    field, least = ("minNodes", compute.min_nodes) if compute.min_nodes else ("nodes", compute.nodes)
    room = sum(each.nodes * (each.gpus // compute.gpus_per_node) for each in plan.choice.groups)
    if room < (least or 0):
        nodes = counted(sum(each.nodes for each in plan.choice.groups), "node")
        pods = f"room for {counted(room, 'pod')} of {counted(compute.gpus_per_node, 'GPU')}"
        yield f"spec.compute.{field} is {least}, and {where} has {nodes} now, with {pods}"


def _too_small(plan: Plan, where: str) -> Iterator[str]:
    """Against the largest node that has enough GPUs."""
    compute = plan.spec.compute
    enough = [each for each in plan.choice.groups if each.gpus >= compute.gpus_per_node]
    cpu, ram = max(each.cpu for each in enough), max(each.ram for each in enough)
    if cpu and quantity_value(str(compute.cpu)) > cpu:
        yield f"spec.compute.cpu is {compute.cpu}, and no such node of {where} has more than {cpu:g} now"
    memory = quantity_value(str(compute.memory)) + quantity_value(str(compute.shared_memory))
    if ram and memory > ram:
        asked = f"spec.compute.memory and sharedMemory are {memory / GIB:.1f} GiB together"
        yield f"{asked}, and no such node of {where} has more than {ram / GIB:.1f} GiB now"
