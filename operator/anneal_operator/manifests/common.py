"""What all children share: identity, labels, ownership."""

from anneal_api.meta import (
    API_VERSION,
    JOB_NAME_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    OWNER_KIND_LABEL,
    OWNER_NAME_ANNOTATION,
    OWNER_UID_LABEL,
)
from anneal_api.names import owner_label
from anneal_operator.kinds import Kind, Obj
from anneal_operator.plan import Plan


def labels(plan: Plan, **more: str) -> dict[str, str]:
    """The labels of every child; `more` keys are label keys given by `**{...}`."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        OWNER_UID_LABEL: plan.uid,
        OWNER_KIND_LABEL: plan.job.kind,
        JOB_NAME_LABEL: owner_label(plan.name),
        **more,
    }


def owner_reference(plan: Plan) -> Obj:
    """Deleting the job deletes what carries this; it never holds up the job's own deletion."""
    return {
        "apiVersion": API_VERSION,
        "kind": plan.job.kind,
        "name": plan.name,
        "uid": plan.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child(kind: Kind, plan: Plan, name: str, extra_labels: dict[str, str] | None = None, **body: object) -> Obj:
    """A child of `plan`'s job, with its labels and owner."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": plan.namespace,
            "labels": labels(plan, **(extra_labels or {})),
            "annotations": {OWNER_NAME_ANNOTATION: plan.name},
            "ownerReferences": [owner_reference(plan)],
        },
        **body,
    }
