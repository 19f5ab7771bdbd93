"""Finish: when it ended, and what is removed after its time to live.

The children go; the job, its status and its storage stay, since a GitOps tool would create a deleted job again.
"""

from datetime import timedelta

from anneal_api.conditions import ConditionType
from anneal_api.status import Children
from anneal_operator import kueue
from anneal_operator.draft import Draft
from anneal_operator.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    PYTORCH_JOB,
    SERVICE,
    WORKLOAD,
    is_deleting,
    parse_time,
)
from anneal_operator.steps.rollout import take_down
from anneal_operator.world import Amendment, Doomed


def finish(draft: Draft) -> bool:
    """Record the end; remove the children when their time has come."""
    if draft.value("completion_time") is None:
        draft.fields["completion_time"] = draft.now
    take_down(draft, "the job is over")
    _free_quota(draft)
    _left_queue(draft)
    ttl = (draft.world.job.get("spec") or {}).get("runPolicy", {}).get("ttlSecondsAfterFinished")
    ended = parse_time(draft.value("completion_time"))
    if ttl is None or ended is None:
        return False
    due = ended + timedelta(seconds=ttl)
    if draft.world.now < due:
        draft.wake_at(due)
        return False
    _remove_children(draft)
    return False


def _free_quota(draft: Draft) -> None:
    """Tell the queue that it is over; nothing else that was to be told matters then."""
    workloads = [kueue.view(obj) for obj in draft.world.children.workloads]
    succeeded = draft.is_true(ConditionType.SUCCEEDED)
    message = draft.message(ConditionType.SUCCEEDED if succeeded else ConditionType.FAILED)
    draft.amend = [
        Amendment(kueue.finished(each, succeeded=succeeded, message=message, now=draft.now), status=True)
        for each in workloads
        if not each.finished and not each.deleting
    ]


def _left_queue(draft: Draft) -> None:
    """The status keeps where it ran, and says no longer that it has quota or waits."""
    if (report := draft.value("queue")) is not None:
        gone: dict[str, object] = {"quota_reserved": False, "since": None, "position": None, "ahead": []}
        draft.fields["queue"] = report.model_copy(update=gone)


def _remove_children(draft: Draft) -> None:
    children = draft.world.children
    by_kind = {
        PYTORCH_JOB: children.pytorch_jobs,
        JOB: children.prepare_jobs,
        WORKLOAD: children.workloads,
        CONFIG_MAP: children.config_maps,
        NETWORK_POLICY: children.network_policies,
        DEPLOYMENT: children.deployments,
        SERVICE: children.services,
    }
    for kind, objects in by_kind.items():
        draft.delete += [Doomed(kind, obj) for obj in objects if not is_deleting(obj)]
    draft.children = Children(claim=draft.children.claim)
