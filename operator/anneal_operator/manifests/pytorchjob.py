"""The PyTorchJob of one attempt.

One node is a Master alone; several nodes are Workers alone. With both, the training-operator would inject an init
container into every worker that *restricted* namespaces refuse and air-gapped ones cannot pull. Restarts, deadlines and
retries of Kubeflow v1 are not reliable: an attempt runs once, and `attempts` decides what comes next.
"""

from dataclasses import replace

from anneal_api.meta import (
    ATTEMPT_LABEL,
    ENV_ATTEMPT,
    ENV_GRADIENT_CHECKPOINTING,
    ENV_MICRO_BATCH_SIZE,
    ENV_ROLLOUT_HOST,
    OWNER_UID_LABEL,
    RENDEZVOUS_PORT,
    ROLE_LABEL,
    ROLE_TRAINER,
)
from anneal_api.status import Attempt
from anneal_operator.affinity import keep_apart
from anneal_operator.kinds import PYTORCH_JOB, Obj
from anneal_operator.manifests import pods
from anneal_operator.manifests.common import child
from anneal_operator.placement import ANYWHERE, Placement
from anneal_operator.plan import Plan
from anneal_operator.pods import REPLICA_INDEX_LABEL

# Seconds from having a place to training: pulling a large image, mounting volumes. torchrun's own limit is 600.
_LATEST_START = 900


def build(plan: Plan, attempt: Attempt, placement: Placement) -> Obj:
    """The PyTorchJob; what the attempt has of its own, and where a queue has placed it, beside what the job says."""
    name, nodes = plan.attempt_name(attempt.number), attempt.nodes or plan.nodes
    numbered = {ATTEMPT_LABEL: str(attempt.number)}
    role = replace(
        _role(plan, nodes, placement),
        labels={**placement.labels, **numbered},
        annotations=placement.annotations,
        env=tuple(_environment(plan, attempt, name, nodes)),
    )
    replica = "Master" if nodes == 1 else "Worker"
    spec = {
        "nprocPerNode": str(max(1, plan.spec.compute.gpus_per_node)),
        "runPolicy": {"cleanPodPolicy": "Running"},
        "pytorchReplicaSpecs": {
            replica: {"replicas": nodes, "restartPolicy": "Never", "template": pods.template(plan, role)}
        },
    }
    return child(PYTORCH_JOB, plan, name, {ROLE_LABEL: ROLE_TRAINER, **numbered}, spec=spec)


def request(plan: Plan) -> Obj:
    """What one pod asks for, as a queue needs to know it: resources, and the nodes that it may go to."""
    return pods.request(plan, _role(plan, plan.nodes, ANYWHERE))


def _role(plan: Plan, nodes: int, placement: Placement) -> pods.Role:
    return pods.Role(
        name=ROLE_TRAINER,
        command="train",
        resources=_resources(plan),
        shared_memory=_shared_memory(plan),
        labels={},
        affinity=_affinity(plan, nodes),
        node_selector={**plan.pool.node_selector, **placement.node_selector},
        tolerations=(*plan.pool.tolerations, *placement.tolerations),
        processes=max(1, plan.spec.compute.gpus_per_node),
        image=plan.settings.colocate_image if plan.colocates else "",
    )


def _resources(plan: Plan) -> Obj:
    compute, pool = plan.spec.compute, plan.pool
    gpus = compute.gpus_per_node
    devices = {**pool.extra_resources, pool.resource_name: str(gpus)} if gpus and pool.resource_name else {}
    return pods.resources(
        cpu=str(compute.cpu), memory=str(compute.memory), shared_memory=_shared_memory(plan), devices=devices
    )


def _shared_memory(plan: Plan) -> str:
    return str(plan.spec.compute.shared_memory)


def _environment(plan: Plan, attempt: Attempt, name: str, nodes: int) -> list[Obj]:
    values = {
        ENV_ATTEMPT: str(attempt.number),
        # The prepare pod has fetched everything: a GPU never waits for a download.
        "HF_HUB_OFFLINE": "1",
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(max(1, plan.spec.compute.gpus_per_node)),
        "PET_MASTER_PORT": str(RENDEZVOUS_PORT),
        **_given(plan, attempt),
    }
    if nodes == 1:
        return pods.plain(values | {"PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1"})
    rank = {"fieldRef": {"fieldPath": f"metadata.labels['{REPLICA_INDEX_LABEL}']"}}
    return [
        *pods.plain(values | {"PET_MASTER_ADDR": f"{name}-worker-0", "PET_RDZV_CONF": f"timeout={_patience(plan)}"}),
        {"name": "PET_NODE_RANK", "valueFrom": rank},
    ]


def _patience(plan: Plan) -> int:
    """Seconds that a pod waits for the others: a lack of places is the operator's to end, and images take time."""
    return plan.spec.run_policy.scheduling_timeout_seconds + _LATEST_START


def _given(plan: Plan, attempt: Attempt) -> dict[str, str]:
    """Where answers are drawn, and what this attempt does in another way than the spec says."""
    given = {ENV_ROLLOUT_HOST: plan.rollout_name} if plan.servers else {}
    if attempt.micro_batch_size not in (None, plan.spec.training.micro_batch_size):
        given[ENV_MICRO_BATCH_SIZE] = str(attempt.micro_batch_size)
    if attempt.gradient_checkpointing is not None:
        given[ENV_GRADIENT_CHECKPOINTING] = str(attempt.gradient_checkpointing).lower()
    return given


def _affinity(plan: Plan, nodes: int) -> Obj:
    """Several pods prefer different nodes, but a small cluster may put them on one."""
    affinity = pods.placed(plan, plan.pool)
    if nodes == 1:
        return affinity
    same_job = {"labelSelector": {"matchLabels": {OWNER_UID_LABEL: plan.uid}}}
    term = {**same_job, "topologyKey": pods.HOST}
    return keep_apart(affinity, {"weight": 100, "podAffinityTerm": term})
