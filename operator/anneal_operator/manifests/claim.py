"""The storage claim of a job that names none. It has no owner: results outlive the job."""

from anneal_api.meta import OWNER_NAME_ANNOTATION
from anneal_operator.kinds import CLAIM, Obj
from anneal_operator.manifests.common import labels
from anneal_operator.plan import Plan


def build(plan: Plan) -> Obj:
    """The claim."""
    storage = plan.settings.storage
    spec: Obj = {
        "accessModes": list(storage.access_modes),
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.default_class:
        spec["storageClassName"] = storage.default_class
    return {
        "apiVersion": CLAIM.api_version,
        "kind": CLAIM.name,
        "metadata": {
            "name": plan.claim,
            "namespace": plan.namespace,
            "labels": labels(plan),
            "annotations": {OWNER_NAME_ANNOTATION: plan.name},
        },
        "spec": spec,
    }
