"""What one job needs to know of the others of its namespace: a few facts, read once for each version of a job.

Not here: what follows from them (`steps.accept`, `steps.origin`, `steps.prepare`).
"""

from dataclasses import dataclass

from anneal_api.conditions import ConditionType, Reason
from anneal_api.datasetreport import DatasetReport
from anneal_api.modelrecord import ModelRecord
from anneal_api.names import base_name
from anneal_api.origin import Made, address
from anneal_api.status import JobStatus
from anneal_operator.kinds import Obj, meta, name_of, uid_of
from anneal_operator.plan import claim_and_output


@dataclass(frozen=True)
class Neighbour:
    """The few facts about another job of the namespace that matter to this one."""

    name: str
    uid: str
    created: str
    claim: str
    output: str
    # The job:// source that stands for its result, and what that is.
    address: str
    made: Made
    # The stem of its children's names, and its Workload's whole name.
    base: str
    prepare_key: str | None = None
    data_ready: bool = False
    preparing: bool = False
    accepted: bool = False
    refused_for_output: bool = False
    dataset: DatasetReport | None = None
    # The ClusterQueue that it has quota of.
    quota_of: str | None = None
    # The shapes of its models.
    models: tuple[ModelRecord, ...] = ()
    # The job:// sources that it waits for itself.
    wants: tuple[str, ...] = ()
    succeeded: bool = False
    failed: bool = False
    # A person is needed: it has failed, or cannot be carried out.
    stuck: bool = False
    # Where it is, in words: Running (step 120/400).
    state: str = ""
    message: str = ""

    def comes_before(self, *, accepted: bool, created: str, uid: str) -> bool:
        """Whether it has the first claim to what it and this job both want.

        Who is accepted already has it: to take it away would stop a job that has begun. Else the older one, and of two
        of one second that with the smaller UID.
        """
        return (not self.accepted, self.created, self.uid) < (not accepted, created, uid)

    def frees(self, before: "Neighbour") -> bool:
        """Whether jobs that waited for this one's data, as it was `before`, can go on."""
        return (self.data_ready and not before.data_ready) or (before.preparing and not self.preparing)

    def ends(self, before: "Neighbour") -> bool:
        """Whether jobs that start from this one's result have news, as it was `before`."""
        return (self.succeeded, self.stuck) != (before.succeeded, before.stuck)


def neighbour(job: Obj) -> Neighbour:
    """The facts about a job, of any validity."""
    claim, output = claim_and_output(job)
    status = JobStatus.model_validate(job.get("status") or {})
    reasons = {each.type: each.reason for each in status.conditions}
    holds = {each.type for each in status.conditions if each.status == "True"}
    at_it = reasons.get(ConditionType.DATA_READY) in {Reason.PREPARING, Reason.STARTING}
    has_job = status.children is not None and status.children.prepare is not None
    return Neighbour(
        name=name_of(job),
        uid=uid_of(job),
        created=meta(job).get("creationTimestamp", ""),
        claim=claim,
        output=output,
        prepare_key=status.prepare_key,
        data_ready=ConditionType.DATA_READY in holds,
        # One that was refused since does not go on, and must not be waited for.
        preparing=at_it and has_job and ConditionType.FAILED not in holds and ConditionType.ACCEPTED in holds,
        accepted=ConditionType.ACCEPTED in holds,
        refused_for_output=reasons.get(ConditionType.ACCEPTED) == Reason.OUTPUT_IN_USE,
        dataset=status.dataset,
        models=tuple(status.models),
        address=address(str(job.get("kind", "")), name_of(job)),
        wants=_wants(job, status),
        succeeded=ConditionType.SUCCEEDED in holds,
        failed=ConditionType.FAILED in holds,
        stuck=ConditionType.STALLED in holds,
        state=_state(status),
        message=status.message or "",
        made=_made(job, status),
        quota_of=status.queue.cluster_queue if status.queue and status.queue.quota_reserved else None,
        base=base_name(name_of(job), uid_of(job)),
    )


def _wants(job: Obj, status: JobStatus) -> tuple[str, ...]:
    """The job:// sources whose meaning is still open."""
    spec = job.get("spec") or {}
    blocks = [spec.get("model"), spec.get("reference"), *(each.get("model") for each in spec.get("rewards") or [])]
    texts = dict.fromkeys(str((block or {}).get("source") or "") for block in blocks)
    pinned = {each.source for each in status.sources}
    return tuple(text for text in texts if text.startswith("job://") and text not in pinned)


def _state(status: JobStatus) -> str:
    phase = status.phase or "not begun"
    steps = status.progress.steps if status.progress else None
    return f"{phase} (step {steps})" if steps else phase


def _made(job: Obj, status: JobStatus) -> Made:
    spec = job.get("spec") or {}
    model = spec.get("model") or {}
    return Made(
        uid=uid_of(job),
        method=str(spec.get("method") or "sft"),
        source=str(model.get("source") or ""),
        revision=str(model.get("revision") or "main"),
        adapter=spec.get("adapter") is not None,
        sources=tuple(status.sources),
        outputs=tuple(status.outputs),
    )
