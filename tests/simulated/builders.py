"""Small jobs, pods and worlds: what a test does not name has a sensible value. Not here: anything with behaviour."""

from datetime import UTC, datetime, timedelta
from typing import Any

from anneal_api.meta import ATTEMPT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, OWNER_UID_LABEL, ROLE_LABEL
from anneal_operator.kinds import Obj, format_time
from anneal_operator.settings import Settings, parse_settings

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = """
trainerImage: registry.example/anneal-trainer:1
operatorImage: registry.example/anneal-operator:1
rolloutImage: registry.example/vllm:v0.31.0
pools:
  cpu: {resourceName: ""}
  h100:
    nodeSelector: {gpu: h100, topology.kubernetes.io/zone: a}
    tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
    resourceName: nvidia.com/gpu
    gpusPerNode: 8
    zones: [a, b]
"""


def at(seconds: float) -> datetime:
    """A moment after the start of the test's time."""
    return START + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    """The same, as the API server writes it."""
    return format_time(at(seconds))


def make_settings(**changes: Any) -> Settings:
    """Operator settings with a CPU pool and one of GPUs."""
    settings = parse_settings(SETTINGS, namespace="anneal-system")
    return settings.model_copy(update=changes)


def make_spec(**spec: Any) -> dict[str, Any]:
    """A spec that every check accepts: one CPU node on an existing claim."""
    return {
        "model": {"source": "volume://runs/model"},
        "adapter": {"r": 4},
        "datasets": [{"source": "volume://runs/train.jsonl"}],
        "storage": {"volume": {"claimName": "runs"}},
        "compute": {"gpusPerNode": 0, **spec.pop("compute", {})},
        "training": {"globalBatchSize": 8, "microBatchSize": 4, **spec.pop("training", {})},
        **spec,
    }


def make_job(
    name: str = "bot", *, uid: str = "", status: Obj | None = None, created: float = 0, generation: int = 1, **spec: Any
) -> Obj:
    """A FineTuneJob as the API server returns it."""
    return {
        "apiVersion": "anneal.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid or f"uid-{name[:20]}",
            "resourceVersion": "1",
            "generation": generation,
            "creationTimestamp": stamp(created),
        },
        "spec": make_spec(**spec),
        **({"status": status} if status else {}),
    }


def make_rlhf_job(name: str, *, source: str, method: str = "dpo", created: float = 0, **spec: Any) -> Obj:
    """An RLHFJob that starts from `source`."""
    job = make_job(name, created=created, method=method, **{"model": {"source": source}, **spec})
    return {**job, "kind": "RLHFJob"}


def make_grpo_job(name: str = "bot", **spec: Any) -> Obj:
    """An RLHFJob that draws its answers from servers; `rollout` says how."""
    online = {"rewards": [{"name": "short", "length": {"most": 10}}], "training": {"globalBatchSize": 8}}
    return make_rlhf_job(name, source="volume://runs/model", method="grpo", **(online | spec))


def make_pod(  # noqa: PLR0913  a pod can be many things
    name: str = "bot-1-master-0", *, uid: str = "uid-bot", role: str = "trainer", attempt: int = 1, index: int = 0,
    phase: str = "Running", started: float | None = None, created: float = 0, node: str | None = "node-1",
    exit_code: int | None = None, reason: str = "", message: str = "", ended: float = 60,
    conditions: list[Obj] | None = None, waiting: Obj | None = None, deleting: bool = False,
) -> Obj:  # fmt: skip
    """A pod of a job."""
    state: Obj = {}
    if exit_code is not None:
        state["terminated"] = {
            "exitCode": exit_code, "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": message, "startedAt": stamp(started or created), "finishedAt": stamp(ended),
        }  # fmt: skip
        phase = "Succeeded" if exit_code == 0 else "Failed"
    elif waiting:
        state["waiting"] = waiting
    elif started is not None:
        state["running"] = {"startedAt": stamp(started)}
    metadata: Obj = {
        "name": name, "namespace": "team", "uid": f"{name}-uid", "resourceVersion": "5",
        "creationTimestamp": stamp(created),
        "labels": {
            MANAGED_BY_LABEL: MANAGED_BY, OWNER_UID_LABEL: uid, ROLE_LABEL: role, ATTEMPT_LABEL: str(attempt),
            "training.kubeflow.org/replica-index": str(index),
        },
    }  # fmt: skip
    if deleting:
        metadata["deletionTimestamp"] = stamp(ended)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": conditions or [],
            "containerStatuses": [{"name": "pytorch", "state": state}],
        },
    }


def make_node(  # noqa: PLR0913  a node can be many things
    name: str = "node-1", *, product: str = "NVIDIA-H100-80GB-HBM3", gpus: int | str = 8, mib: int = 81559,
    labels: dict[str, str] | None = None, allocatable: dict[str, str] | None = None, taints: list[Obj] | None = None,
    ready: bool = True, cordoned: bool = False,
) -> Obj:  # fmt: skip
    """A node whose GPUs were labelled by NVIDIA's labeller; `labels` replaces its labels."""
    known = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": str(mib), "nvidia.com/gpu.count": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": known if labels is None else labels},
        "spec": {"taints": taints or [], **({"unschedulable": True} if cordoned else {})},
        "status": {
            "allocatable": {
                "cpu": "95690m", "memory": "1056270000Ki", "nvidia.com/gpu": str(gpus), **(allocatable or {}),
            },
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }  # fmt: skip
