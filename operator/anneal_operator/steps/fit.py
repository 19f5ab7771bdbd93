"""Fit: whether the job's memory fits its GPUs, and its servers' theirs, before it queues. Owns `status.memory`.

The prepare pod has told what the models are made of, so the estimate costs nothing here: it is made for the roomiest
GPU that the job could get, and once more for each attempt, where that was placed. Only against memory that is certain
a job fails: nodes with larger GPUs may be scaled to zero. A model that its servers cannot divide among their GPUs fails
in any case.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from anneal_api import fit as fitting
from anneal_api import serving
from anneal_api.conditions import ConditionType, Reason
from anneal_api.fit import GIB, Asked, Choice, Gpu, Limits
from anneal_api.job import JobSpec
from anneal_api.modelrecord import ModelRecord
from anneal_api.status import Attempt, MemoryPart, MemoryReport
from anneal_operator import attempts as policy
from anneal_operator.choice import gpu_memory
from anneal_operator.draft import MESSAGE_LIMIT, Draft
from anneal_operator.steps.common import retries

# As many characters as the schema of status lets a part's note have.
_NOTE = 160


def fit(draft: Draft) -> bool:
    """True where the job may queue; nothing is judged once an attempt was made."""
    if draft.attempts:
        return True
    found = _judged(_question(draft, Limits()))
    _tell(draft, found.report)
    if found.indivisible:
        _failed(draft, Reason.INVALID_SPEC, found.indivisible)
        return False
    if not _certainly_too_small(draft, found) or draft.plan.spec.compute.memory_fit == "warn":
        return True
    _failed(draft, Reason.MEMORY_DOES_NOT_FIT, found.report.message or "")
    return False


def _certainly_too_small(draft: Draft, found: "_Judgement") -> bool:
    """Whether one side can get no GPU that is large enough for it."""
    trainer = found.trainer is False and draft.plan.gpu_memory_certain
    return trainer or (found.server is False and gpu_memory(draft.plan.rollout_choice)[2])


def _failed(draft: Draft, reason: Reason, message: str) -> None:
    """The data stays prepared: a corrected manifest goes on from here."""
    draft.set(ConditionType.FAILED, "True", reason, message)
    draft.set(ConditionType.RUNNING, "False", Reason.NOT_STARTED)
    draft.fields["completion_time"] = draft.now


def fitted(draft: Draft, attempt: Attempt) -> Attempt:
    """The attempt on the nodes that there are for it, with what fits the GPUs there.

    Each process's share of the batch depends on the number of nodes. After a shortage of memory less is taken,
    whatever the estimate says.
    """
    plan, placement = draft.plan, draft.placement
    known = policy.learnt(draft.attempts, retries(draft))
    limits = Limits(nodes=placement.nodes, most=known.micro_batch_size, checkpointing=known.checkpointing)
    report = _judged(_question(draft, limits)).report
    _tell(draft, report)
    on = report.gradient_checkpointing and not plan.spec.training.gradient_checkpointing
    return attempt.model_copy(
        update={
            "micro_batch_size": report.micro_batch_size,
            "gradient_checkpointing": True if on else None,
            "nodes": None if placement.nodes in (None, plan.nodes) else placement.nodes,
            "pool": _flavor(draft) or plan.pool_name,
        }
    )


def _flavor(draft: Draft) -> str | None:
    """The flavor of its GPUs; those of CPU and memory may be others."""
    flavors = draft.placement.flavors
    return flavors.get(draft.plan.pool.resource_name) or next(iter(flavors.values()), None)


@dataclass(frozen=True)
class _Question:
    """All that an estimate is made from; models and specs are compared by their text."""

    text: tuple[str, ...]
    auto: bool
    gpu: Gpu
    # Of a server that draws.
    server_gpu: Gpu
    limits: Limits
    spec: JobSpec = field(compare=False)
    models: tuple[ModelRecord, ...] = field(compare=False)


def _question(draft: Draft, limits: Limits) -> _Question:
    spec, models = draft.plan.spec, tuple(draft.value("models"))
    text = tuple(each.model_dump_json() for each in (spec, *models))
    return _Question(text, _asks_for_auto(draft), _gpu(draft), _server_gpu(draft), limits, spec, models)


@dataclass(frozen=True)
class _Judgement:
    """What the status says, and whether each side fits; None where that is not known."""

    report: MemoryReport
    trainer: bool | None
    server: bool | None = None
    # Why its servers cannot share the model.
    indivisible: str | None = None


# A job that waits is looked at every few seconds, and remedies for a large model take half a second to work out.
@lru_cache(maxsize=1024)
def _judged(question: _Question) -> _Judgement:
    """What there is to say of the memory, but for what was measured."""
    try:
        shapes = tuple(record.shape for record in question.models)
    except ValueError:
        # Of a trainer that says it in another way.
        shapes = ()
    shapes = shapes if len(shapes) == len(question.spec.models) else ()
    asked = Asked(question.spec, question.auto, shapes)
    choice = fitting.choose(asked, question.gpu, question.limits)
    found = _Judgement(_report(choice), choice.fits)
    if not shapes:
        return found
    server = serving.serving(question.spec, shapes[0], question.server_gpu.size, question.server_gpu.where)
    indivisible = serving.parallel_problem(question.spec, shapes[0])
    if server is None or indivisible:
        return replace(found, indivisible=indivisible)
    message = f"{found.report.message}; {serving.sentence(server)}"[:MESSAGE_LIMIT]
    fits = False if server.fits is False else found.report.fits
    told = found.report.model_copy(update={"message": message, "fits": fits})
    return replace(found, report=told, server=server.fits)


def _asks_for_auto(draft: Draft) -> bool:
    """The resolved spec has a number in its place."""
    training = draft.world.job["spec"].get("training") or {}
    return bool(training.get("microBatchSize") == "auto")


def _gpu(draft: Draft) -> Gpu:
    """What a GPU has where the queue has placed the job, else the roomiest one that it could get."""
    plan = draft.plan
    if not plan.gpus:
        return fitting.UNKNOWN
    placed = list(_placed(draft)) if not plan.gpu_memory_certain else []
    memory, where = max(placed, default=(plan.gpu_memory, plan.gpu_memory_source), key=lambda each: each[0] or 0)
    return Gpu(int(memory * GIB), where) if memory else fitting.UNKNOWN


def _server_gpu(draft: Draft) -> Gpu:
    """What a GPU of the servers' pool has."""
    plan = draft.plan
    if plan.rollout is None:
        return _gpu(draft)
    memory, where, _ = gpu_memory(plan.rollout_choice)
    return Gpu(int(memory * GIB), where) if memory else fitting.UNKNOWN


def _placed(draft: Draft) -> Iterator[tuple[float, str]]:
    """GiB of the GPUs that the labels of a flavor select: of declared pools, and of nodes that were found."""
    labels = draft.placement.node_selector
    for name, pool in draft.plan.settings.pools.items():
        if pool.memory_gib and pool.node_selector and pool.node_selector.items() <= labels.items():
            yield pool.memory_gib, f"pool {name}"
    for group in draft.plan.node_groups:
        if group.memory and labels.get(group.label) == group.product:
            yield group.memory, f"{group.product} nodes"


def _tell(draft: Draft, report: MemoryReport) -> None:
    """Put it into the status; what a person should know is an Event, once."""
    before: MemoryReport | None = draft.value("memory")
    measured = before.peak_gib if before and _is_same(report, before) else None
    draft.fields["memory"] = report.model_copy(update={"peak_gib": measured})
    if not draft.plan.gpus or report.message == (before and before.message):
        return
    if report.fits is False:
        draft.tell(Reason.MEMORY_DOES_NOT_FIT, report.message or "", warning=True)
    elif report.missing:
        draft.tell("MemoryUnknown", report.message or "", warning=True)


def _report(choice: Choice) -> MemoryReport:
    made, size = choice.estimate, choice.gpu.size
    return MemoryReport(
        estimated_gib=round(made.peak / GIB, 2) if made else None,
        gpu_gib=round(size / GIB, 2) if size else None,
        fits=choice.fits,
        micro_batch_size=choice.micro_batch,
        gradient_checkpointing=choice.checkpointing,
        tuned=choice.tuned or None,
        moment=made.moment if made else None,
        parts=[MemoryPart(name=p.name, gib=round(p.size / GIB, 3), note=p.note[:_NOTE]) for p in made.parts]
        if made
        else [],
        missing=list(made.missing) if made else ["weights", "activations"],
        message=fitting.sentence(choice),
    )


def _is_same(report: MemoryReport, before: MemoryReport) -> bool:
    """Whether what was measured before is of the same job in numbers."""
    names = ("micro_batch_size", "gradient_checkpointing", "estimated_gib")
    return all(getattr(report, name) == getattr(before, name) for name in names)
