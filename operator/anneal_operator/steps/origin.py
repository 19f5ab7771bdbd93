"""Origin: a job that starts from another one's result waits for it, then holds on to what it found.

What a `job://` source stands for is written into `status.sources` once the job that it names has succeeded, and stays
so for this job's life: a source that is deleted or made anew later changes nothing. Until then nothing is made.
What can never work is an objection (`Accepted`); what may still come is waited for (`DataReady`).
Not here: what a result means to its followers (`anneal_api.origin`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from anneal_api import origin as origins
from anneal_api.conditions import ConditionType, Reason
from anneal_api.model import ModelSource
from anneal_operator.draft import Draft
from anneal_operator.neighbours import Neighbour
from anneal_operator.plan import Plan
from anneal_operator.steps.common import Objection
from anneal_operator.steps.prepare import delete_outdated, resumed, suspended

# Ends are told at once; this is for the step that the message shows.
LOOK_AGAIN = timedelta(seconds=60)


def origin(draft: Draft) -> bool:
    """True once it is known what every job:// source stands for."""
    _pin(draft)
    draft.fields["sources"] = list(draft.plan.sources)
    if not draft.plan.unpinned:
        return True
    # Of an earlier spec, before this one named a job.
    delete_outdated(draft)
    draft.fields |= {"prepare_key": None, "dataset": None}
    if draft.plan.spec.run_policy.suspend:
        return suspended(draft)
    resumed(draft)
    draft.own(prepare=None)
    by_address = _by_address(draft.world.neighbours)
    waits = [_waits(named, by_address, draft.plan.namespace) for named in draft.plan.unpinned]
    draft.set(ConditionType.DATA_READY, "False", Reason.WAITING_FOR_JOB, "; ".join(dict.fromkeys(waits)))
    draft.wake_at(draft.world.now + LOOK_AGAIN)
    return False


def _pin(draft: Draft) -> None:
    """Take in what has succeeded; `objections` have found nothing against it."""
    by_address = _by_address(draft.world.neighbours)
    found = {named.source: by_address.get(named.source) for named in draft.plan.unpinned}
    pins = [origins.pin(source, job.made) for source, job in found.items() if job and job.succeeded]
    if pins:
        draft.plan = replace(draft.plan, sources=(*draft.plan.sources, *pins))


def _waits(named: ModelSource, by_address: Mapping[str, Neighbour], namespace: str) -> str:
    name, job = origins.shown(named.source), by_address.get(named.source)
    if job is None:
        # Waited for all the same: a job of this kind may follow under that name.
        known = origins.other_kind(named.source) in by_address
        remedy = f"{origins.correction(named.source)}, or apply {name}" if known else "apply it"
        return f"waits for {name}: there is none in namespace {namespace}; {remedy}"
    why = f": {job.message}" if job.stuck else ""
    return f"waits for {name}, which is {job.state}{why}"


def objections(plan: Plan, neighbours: Iterable[Neighbour]) -> Iterator[Objection]:
    """What no waiting helps against."""
    by_address = _by_address(neighbours)
    for named in plan.unpinned:
        yield from _objections(named, by_address.get(named.source), plan, by_address)


def _objections(
    named: ModelSource, job: Neighbour | None, plan: Plan, by_address: Mapping[str, Neighbour]
) -> Iterator[Objection]:
    mine = origins.address(plan.job.kind, plan.name)
    if loop := _way(named.source, mine, by_address):
        names = " -> ".join(map(origins.shown, (mine, *loop)))
        yield Reason.INVALID_SPEC, f"{named}: jobs that start from one another never begin: {names}"
    if job is None:
        return
    if problem := origins.misuse(named, method=plan.spec.method, made=job.made):
        yield Reason.INVALID_SPEC, problem
    if job.failed:
        name = origins.shown(named.source)
        remedy = f"correct {name}, or delete it and apply it again: this job goes on when that one has succeeded"
        yield Reason.SOURCE_JOB_FAILED, f"{named}: {name} has failed: {job.message}; {remedy}"
    if job.succeeded and (problem := origins.no_start(named, job.made)):
        yield Reason.INVALID_SPEC, problem


def _way(start: str, end: str, by_address: Mapping[str, Neighbour]) -> list[str]:
    """The jobs from `start` to `end` of which each waits for the next; empty if none leads there."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop(0)
        if way[-1] == end:
            return way
        job = by_address.get(way[-1])
        further = [each for each in (job.wants if job else ()) if each not in seen]
        seen.update(further)
        ways += [[*way, each] for each in further]
    return []


def _by_address(neighbours: Iterable[Neighbour]) -> dict[str, Neighbour]:
    return {each.address: each for each in neighbours}
