"""The vLLM servers that draw answers while a job trains: a Deployment, and the headless Service that names their pods.

The base model is read from the job's claim. With adapters, a small container beside each server fetches every new one
from the trainer and loads it; with nccl the trainer speaks to the servers alone, and meets fresh ones in each attempt.
Of the job's `compute.pod` they take labels, annotations, environment and tolerations, and its nodeSelector where they
run in the trainer's pool; not its volumes, which are for the trainer's code.
"""

from collections.abc import Iterable
from pathlib import Path

from anneal_api import vllm
from anneal_api.base import quantity_value
from anneal_api.compute import PodOptions
from anneal_api.meta import (
    ADAPTERS_DIR,
    ATTEMPT_LABEL,
    LOADER_PORT,
    OWNER_NAME_ANNOTATION,
    OWNER_UID_LABEL,
    ROLE_LABEL,
    ROLE_ROLLOUT,
    SCRATCH_DIR,
    VLLM_PORT,
    VOLUMES_DIR,
)
from anneal_api.resolve import digest
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import RolloutSpec
from anneal_operator.kinds import DEPLOYMENT, SERVICE, Obj, meta
from anneal_operator.manifests import last_words, pods
from anneal_operator.manifests.common import child, labels
from anneal_operator.placement import ANYWHERE, Placement
from anneal_operator.plan import Plan
from anneal_operator.pods import SERVER_CONTAINER

# What the pods are made of, on the Deployment and on each of them: others are of an earlier spec or attempt.
DIGEST_LABEL = "anneal.dev/servers"
LOADER_CONTAINER = "loader"
# An answer that is being drawn when they are stopped is drawn again by others.
_GRACE_SECONDS = 30
_STARTUP_PERIOD = 5
_LAST_WORDS = Path(last_words.__file__).read_text(encoding="utf-8")
_CACHES = {
    # Without a name for the user, PyTorch's compiler finds no directory.
    "USER": "anneal",
    "LOGNAME": "anneal",
    "VLLM_CACHE_ROOT": f"{SCRATCH_DIR}/vllm",
    "VLLM_CONFIG_ROOT": f"{SCRATCH_DIR}/vllm-config",
    "XDG_CONFIG_HOME": f"{SCRATCH_DIR}/config",
}
# It streams files to disk, and holds none of them.
_LOADER_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}


def build(plan: Plan, placement: Placement, *, attempt: int = 1) -> Obj:
    """The Deployment; `attempt` is the one that the servers are for."""
    rollout = _of(plan)[1]
    template = _template(plan, placement, {ATTEMPT_LABEL: str(attempt)} if rollout.weight_sync == "nccl" else {})
    made_of = digest([rollout.servers, template])
    template["metadata"]["labels"][DIGEST_LABEL] = made_of
    body = {
        "replicas": rollout.servers,
        # A pod beside the old one would wait for GPUs that the old one holds.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": {**_selector(plan), DIGEST_LABEL: made_of}},
        "template": template,
    }
    return child(DEPLOYMENT, plan, plan.rollout_name, {ROLE_LABEL: ROLE_ROLLOUT, DIGEST_LABEL: made_of}, spec=body)


def service(plan: Plan) -> Obj:
    """The headless Service: its name stands for the addresses of the pods that are ready."""
    ports = [{"name": "vllm", "port": VLLM_PORT, "protocol": "TCP"}]
    body = {"clusterIP": "None", "selector": _selector(plan), "ports": ports}
    return child(SERVICE, plan, plan.rollout_name, {ROLE_LABEL: ROLE_ROLLOUT}, spec=body)


def request(plan: Plan) -> Obj:
    """What one server asks for, as a queue needs to know it: resources, and the nodes that it may go to."""
    return pods.asked(_template(plan, ANYWHERE, {}))


def made_of(obj: Obj) -> str:
    """What the pods of a Deployment, or a pod of one, are made of."""
    return str((meta(obj).get("labels") or {}).get(DIGEST_LABEL, ""))


def image(plan: Plan) -> str:
    """The servers' image."""
    _, rollout = _of(plan)
    return rollout.image or plan.settings.rollout_image


def _of(plan: Plan) -> tuple[RLHFSpec, RolloutSpec]:
    spec = plan.servers
    assert spec is not None, "only jobs with servers are asked about them"
    assert spec.rollout is not None, "resolve() fills it"
    return spec, spec.rollout


def _selector(plan: Plan) -> dict[str, str]:
    return {OWNER_UID_LABEL: plan.uid, ROLE_LABEL: ROLE_ROLLOUT}


def _template(plan: Plan, placement: Placement, more: dict[str, str]) -> Obj:
    options, (_, rollout) = plan.spec.compute.pod or PodOptions(), _of(plan)
    own = labels(plan, **{ROLE_LABEL: ROLE_ROLLOUT}, **placement.labels, **more)
    return {
        "metadata": {
            "labels": {**options.labels, **own},
            "annotations": {**options.annotations, **placement.annotations, OWNER_NAME_ANNOTATION: plan.name},
        },
        "spec": {
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [_server(plan), *([_loader(plan)] if _has_loader(rollout) else [])],
            "volumes": list(_volumes(plan)),
            **_around(plan, placement, options),
        },
    }


def _around(plan: Plan, placement: Placement, options: PodOptions) -> Obj:
    pool, (_, rollout) = plan.rollout_pool, _of(plan)
    # It says which of the trainer's nodes; a pool of the servers' own has others.
    theirs = {} if rollout.pool or rollout.gpu_type else options.node_selector
    return pods.around(
        plan,
        affinity=pods.placed(plan, pool),
        node_selector={**pool.node_selector, **placement.node_selector, **theirs},
        tolerations=(*pool.tolerations, *placement.tolerations),
    )


def _has_loader(rollout: RolloutSpec) -> bool:
    return rollout.weight_sync == "adapter"


def _server(plan: Plan) -> Obj:
    spec, rollout = _of(plan)
    return {
        "name": SERVER_CONTAINER,
        "image": image(plan),
        "imagePullPolicy": plan.settings.image_pull_policy,
        # Spelt out, as images differ in their entry points.
        "command": ["python3", "-c", _LAST_WORDS, "python3", "-m", vllm.MODULE],
        "args": vllm.arguments(spec, model=plan.model_directory, port=VLLM_PORT),
        "env": _environment(plan),
        "ports": [{"name": "vllm", "containerPort": VLLM_PORT, "protocol": "TCP"}],
        "resources": _resources(plan),
        "securityContext": pods.CONTAINER_SECURITY,
        # Of one that is killed there is nothing to tell: its last lines are of what went well.
        "terminationMessagePolicy": "File",
        "volumeMounts": list(_mounts(plan)),
        **_probes(rollout),
    }


def _probes(rollout: RolloutSpec) -> Obj:
    """Once it serves, the loader answers for it: it knows of servers that answer and draw nothing."""
    healthy = {"path": "/health", "port": VLLM_PORT}
    ready = {"path": "/ready", "port": LOADER_PORT} if _has_loader(rollout) else healthy
    alive = {"path": "/live", "port": LOADER_PORT} if _has_loader(rollout) else healthy
    return {
        "startupProbe": {
            "httpGet": healthy,
            "periodSeconds": _STARTUP_PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": -(-rollout.start_timeout_seconds // _STARTUP_PERIOD),
        },
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _environment(plan: Plan) -> list[Obj]:
    spec, rollout = _of(plan)
    own = {**pods.SCRATCH_ENV, **_CACHES, **vllm.environment(spec)}
    if vllm.on_cpu(spec):
        # Left alone, it would bind a thread to every core of the node, and so would the server beside it.
        cores = str(max(1, int(quantity_value(str(rollout.cpu)))))
        own |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": cores}
    options = plan.spec.compute.pod or PodOptions()
    return [*(each.dump() for each in options.env if each.name not in own), *pods.plain(own)]


def _resources(plan: Plan) -> Obj:
    (_, rollout), pool = _of(plan), plan.rollout_pool
    wanted = rollout.gpus and pool.resource_name
    devices = {**pool.extra_resources, pool.resource_name: str(rollout.gpus)} if wanted else {}
    shared = _shared_memory(rollout)
    return pods.resources(cpu=str(rollout.cpu), memory=str(rollout.memory), shared_memory=shared, devices=devices)


def _shared_memory(rollout: RolloutSpec) -> str:
    """The GPUs of one server exchange what they computed there, where they have no better way."""
    return f"{2 * rollout.gpus}Gi" if rollout.gpus else "256Mi"


def _loader(plan: Plan) -> Obj:
    return {
        "name": LOADER_CONTAINER,
        "image": plan.settings.operator_image,
        "imagePullPolicy": plan.settings.image_pull_policy,
        "command": ["python", "-m", "anneal_trainer.rollout.loader"],
        "ports": [{"name": "loader", "containerPort": LOADER_PORT, "protocol": "TCP"}],
        "resources": _LOADER_RESOURCES,
        "securityContext": pods.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_SCRATCH, {"name": "adapters", "mountPath": ADAPTERS_DIR}],
    }


_SCRATCH = {"name": "scratch", "mountPath": SCRATCH_DIR}


def _claims(plan: Plan) -> Iterable[tuple[str, str]]:
    return ((f"claim-{index}", claim) for index, claim in enumerate((plan.claim, *plan.source_claims)))


def _volumes(plan: Plan) -> Iterable[Obj]:
    _, rollout = _of(plan)
    yield {"name": "scratch", "emptyDir": {}}
    yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shared_memory(rollout)}}
    if _has_loader(rollout):
        yield {"name": "adapters", "emptyDir": {}}
    for name, claim in _claims(plan):
        yield {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _mounts(plan: Plan) -> Iterable[Obj]:
    _, rollout = _of(plan)
    yield _SCRATCH
    yield {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108  the kernel's name for it
    if _has_loader(rollout):
        yield {"name": "adapters", "mountPath": ADAPTERS_DIR, "readOnly": True}
    for name, claim in _claims(plan):
        yield {"name": name, "mountPath": f"{VOLUMES_DIR}/{claim}", "readOnly": True}
