"""The pod template that prepare and training share: volumes, environment, and what *restricted* admits.

The job's own options (`compute.pod`) can add but never replace what is set here. Not here: which node (the callers).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anneal_api.base import quantity_value
from anneal_api.compute import ExtraVolume, PodOptions
from anneal_api.meta import (
    CONFIG_DIR,
    ENV_GRACE_SECONDS,
    ENV_POD_NAME,
    GRACE_SECONDS,
    OWNER_NAME_ANNOTATION,
    OWNER_UID_LABEL,
    PROGRESS_PORT,
    REWARDS_DIR,
    ROLE_LABEL,
    ROLE_ROLLOUT,
    ROLE_TRAINER,
    SCRATCH_DIR,
    TERMINATION_MESSAGE_PATH,
    VOLUMES_DIR,
)
from anneal_operator.affinity import keep_together, require
from anneal_operator.kinds import Obj
from anneal_operator.manifests.common import labels
from anneal_operator.plan import Plan
from anneal_operator.pods import CONTAINER
from anneal_operator.pools import ZONE_LABEL
from anneal_operator.settings import Pool

USER = 1000
# The topology in which every node is a place of its own.
HOST = "kubernetes.io/hostname"
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    # Without this the kubelet walks every file of a big volume before each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Caches that libraries would put into a home that cannot be written.
SCRATCH_ENV = {
    "HOME": SCRATCH_DIR,
    "HF_HOME": f"{SCRATCH_DIR}/huggingface",
    "XDG_CACHE_HOME": f"{SCRATCH_DIR}/cache",
    "TRITON_CACHE_DIR": f"{SCRATCH_DIR}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH_DIR}/inductor",
    "MPLCONFIGDIR": f"{SCRATCH_DIR}/matplotlib",
}


@dataclass(frozen=True)
class Role:
    """What tells one kind of pod from the other."""

    name: str
    command: str
    resources: Obj
    shared_memory: str
    labels: dict[str, str]
    env: tuple[Obj, ...] = ()
    affinity: Obj | None = None
    node_selector: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    tolerations: tuple[Obj, ...] = ()
    image: str = ""
    # That compute at once, and share the CPU.
    processes: int = 1


def template(plan: Plan, role: Role) -> Obj:
    """The pod template of a role."""
    options = plan.spec.compute.pod or PodOptions()
    return {
        "metadata": {
            "labels": {**options.labels, **labels(plan, **{ROLE_LABEL: role.name, **role.labels})},
            "annotations": {**options.annotations, **(role.annotations or {}), OWNER_NAME_ANNOTATION: plan.name},
        },
        "spec": _pod_spec(plan, role, options),
    }


def request(plan: Plan, role: Role) -> Obj:
    """What a pod of this role asks for."""
    whole = asked(template(plan, role))
    return {**whole, "spec": {**whole["spec"], "restartPolicy": "Never"}}


def asked(template: Obj) -> Obj:
    """Of a template, what decides where a pod can go and what it takes there."""
    spec = {
        key: template["spec"][key] for key in ("affinity", "nodeSelector", "tolerations") if key in template["spec"]
    }
    # Not the image: another one is no other request, and must not cost a job its place in the queue.
    containers = [{key: each[key] for key in ("name", "resources")} for each in template["spec"]["containers"]]
    return {"metadata": {"labels": template["metadata"]["labels"]}, "spec": {**spec, "containers": containers}}


def _pod_spec(plan: Plan, role: Role, options: PodOptions) -> Obj:
    selector = {**(role.node_selector or {}), **options.node_selector}
    return {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [_container(plan, role, options)],
        "volumes": [*_own_volumes(plan, role), *(_extra_volume(*each) for each in enumerate(options.volumes))],
        **around(plan, affinity=role.affinity, node_selector=selector, tolerations=role.tolerations),
    }


def around(plan: Plan, *, affinity: Obj | None, node_selector: Mapping[str, str], tolerations: Iterable[Obj]) -> Obj:
    """A pod's spec beside its containers: where it may go, as whom it runs, with which secrets it is pulled."""
    compute, options = plan.spec.compute, plan.spec.compute.pod or PodOptions()
    pull_secrets = [*plan.settings.image_pull_secrets, *(each.name for each in compute.image_pull_secrets)]
    optional: Obj = {
        "affinity": affinity,
        "nodeSelector": dict(node_selector),
        "tolerations": [*tolerations, *(each.dump() for each in options.tolerations)],
        "serviceAccountName": compute.service_account_name,
        # With a queue it is a WorkloadPriorityClass, which pods do not know.
        "priorityClassName": None if plan.spec.queue else plan.spec.priority_class,
        "imagePullSecrets": [{"name": name} for name in dict.fromkeys(pull_secrets)],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        **{key: value for key, value in optional.items() if value},
    }


def _container(plan: Plan, role: Role, options: PodOptions) -> Obj:
    container: Obj = {
        "name": CONTAINER,
        "image": role.image or plan.settings.trainer_image,
        "imagePullPolicy": plan.settings.image_pull_policy,
        "args": [role.command],
        "env": _environment(role, options),
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT, "protocol": "TCP"}],
        "resources": role.resources,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": [*_own_mounts(plan), *(_extra_mount(*each) for each in enumerate(options.volumes))],
    }
    if plan.spec.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret.name}} for secret in plan.spec.secrets]
    return container


def _environment(role: Role, options: PodOptions) -> list[Obj]:
    """Ours come last: the kubelet lets the last of two equal names win."""
    own = {**SCRATCH_ENV, ENV_GRACE_SECONDS: str(GRACE_SECONDS)}
    theirs = [each.dump() for each in options.env if each.name not in own]
    if not any(each["name"] == "OMP_NUM_THREADS" for each in theirs):
        own["OMP_NUM_THREADS"] = _threads(role)
    pod_name = {"name": ENV_POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [*theirs, *plain(own), pod_name, *role.env]


def _threads(role: Role) -> str:
    """Threads of one process: its share of the CPU request.

    Left alone, each process would take a thread for every core of the node: pods that share it would starve each
    other, and the order of sums, and with it the last bits of a loss, would depend on where a pod lands.
    """
    cores = quantity_value(role.resources["requests"]["cpu"])
    return str(max(1, int(cores) // role.processes))


def plain(values: dict[str, str]) -> list[Obj]:
    """Environment variables with constant values."""
    return [{"name": name, "value": value} for name, value in values.items()]


def _own_volumes(plan: Plan, role: Role) -> Iterable[Obj]:
    yield {"name": "config", "configMap": {"name": plan.config_name}}
    yield {"name": "scratch", "emptyDir": {}}
    yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": role.shared_memory}}
    for index, claim in enumerate((plan.claim, *plan.source_claims)):
        yield {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim}}
    for index, name in enumerate(plan.spec.reward_config_maps):
        yield {"name": f"reward-{index}", "configMap": {"name": name}}


def _own_mounts(plan: Plan) -> Iterable[Obj]:
    yield {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}
    yield {"name": "scratch", "mountPath": SCRATCH_DIR}
    yield {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108  the kernel's name for it
    for index, claim in enumerate((plan.claim, *plan.source_claims)):
        mount = {"name": f"claim-{index}", "mountPath": f"{VOLUMES_DIR}/{claim}"}
        yield mount if index == 0 else {**mount, "readOnly": True}
    for index, name in enumerate(plan.spec.reward_config_maps):
        yield {"name": f"reward-{index}", "mountPath": f"{REWARDS_DIR}/{name}", "readOnly": True}


def _extra_volume(index: int, volume: ExtraVolume) -> Obj:
    """The job's own volumes are numbered, so that they cannot be named like ours."""
    source = volume.dump()
    kinds = ("configMap", "secret", "persistentVolumeClaim", "emptyDir")
    return {"name": f"extra-{index}", **{kind: source[kind] for kind in kinds if kind in source}}


def _extra_mount(index: int, volume: ExtraVolume) -> Obj:
    return {"name": f"extra-{index}", "mountPath": volume.mount_path, "readOnly": volume.read_only}


def resources(*, cpu: str, memory: str, shared_memory: str, devices: dict[str, str]) -> Obj:
    """Requests and limits. /dev/shm counts as the container's memory, so it is part of the limit."""
    total = f"{int(quantity_value(memory) + quantity_value(shared_memory))}"
    return {
        "requests": {"cpu": cpu, "memory": total, **devices},
        "limits": {"memory": total, **devices},
    }


def placed(plan: Plan, pool: Pool) -> Obj:
    """The affinity of a pod that trains or draws: the pool's own and its zones, and the node of a claim that has one.

    A pod on another node would be stuck there: no scheduler looks at which node a volume is attached to.
    """
    affinity = in_zones(pool.zones, pool.affinity.as_manifest() if pool.affinity else None)
    if not plan.on_one_node:
        return affinity
    # It holds for the first of them too, as that is one of those it asks for.
    roles = {"key": ROLE_LABEL, "operator": "In", "values": [ROLE_TRAINER, ROLE_ROLLOUT]}
    selector = {"matchLabels": {OWNER_UID_LABEL: plan.uid}, "matchExpressions": [roles]}
    return keep_together(affinity, {"labelSelector": selector, "topologyKey": HOST})


def in_zones(zones: Sequence[str], affinity: Obj | None = None) -> Obj:
    """The affinity with the pool's zones in it; empty where nothing is asked for."""
    within = [{"key": ZONE_LABEL, "operator": "In", "values": list(zones)}] if zones else []
    return require(affinity or {}, *within)
