"""The prepare Job: a CPU pod that fetches the model and prepares the data before any GPU is asked for.

It takes the pool's zones, since a volume that binds late lands where its first pod runs, and must not land where no GPU
is. It takes neither the pool's other labels nor its GPUs: a CPU pod has no business on a GPU node.
"""

from anneal_api.exitcodes import USER_ERRORS
from anneal_api.meta import PREPARE_KEY_ANNOTATION, ROLE_LABEL, ROLE_PREPARE
from anneal_operator.kinds import JOB, Obj
from anneal_operator.manifests import pods
from anneal_operator.manifests.common import child
from anneal_operator.plan import Plan
from anneal_operator.pods import CONTAINER

ZONE_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
SHARED_MEMORY = "64Mi"
# Pods in all: what may pass by itself, such as a hub that cannot be reached, is tried again.
TRIES = 4
_FAILURE_POLICY = {
    "rules": [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(USER_ERRORS)},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


def build(plan: Plan) -> Obj:
    """The Job."""
    wanted = plan.spec.compute.prepare
    selector = {key: value for key, value in plan.pool.node_selector.items() if key in ZONE_LABELS}
    role = pods.Role(
        name=ROLE_PREPARE,
        command="prepare",
        resources=pods.resources(cpu=wanted.cpu, memory=wanted.memory, shared_memory=SHARED_MEMORY, devices={}),
        shared_memory=SHARED_MEMORY,
        labels={},
        affinity=pods.in_zones(plan.choice.zones),
        node_selector=selector,
    )
    spec = {
        "backoffLimit": TRIES - 1,
        "completions": 1,
        "parallelism": 1,
        "podFailurePolicy": _FAILURE_POLICY,
        # A pod that is being deleted may still write: only a finished one is replaced.
        "podReplacementPolicy": "Failed",
        "template": _once(pods.template(plan, role)),
    }
    job = child(JOB, plan, plan.prepare_name, {ROLE_LABEL: ROLE_PREPARE}, spec=spec)
    job["metadata"]["annotations"][PREPARE_KEY_ANNOTATION] = plan.prepare_key
    return job


def _once(template: Obj) -> Obj:
    """A Job wants it in the template; a PyTorchJob says it beside."""
    return {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
