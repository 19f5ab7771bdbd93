"""`spec.compute`: where the job runs and what it asks of a node.

The pod options are those that a namespace with the *restricted* Pod Security Standard admits. There is no
securityContext, no host path and no container override: the operator owns those.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from anneal_api.base import (
    ABSOLUTE_PATH,
    IDENTIFIER,
    LABEL_KEY,
    LABEL_VALUE,
    Block,
    LabelName,
    ObjectName,
    Quantity,
    Rule,
    ShortText,
    at_most_one,
    bounded,
    exactly_one,
)

LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE, max_length=63)]
AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]
EnvName = Annotated[str, StringConstraints(pattern=IDENTIFIER, max_length=128)]
GpuType = Annotated[str, StringConstraints(pattern=LABEL_VALUE, min_length=1, max_length=63)]
MountPath = Annotated[str, StringConstraints(pattern=ABSOLUTE_PATH, max_length=512)]

# Set by the operator; a pod that overrides them would not train as the status says.
RESERVED_ENV_PREFIXES = ("ANNEAL_", "PET_")
_OWN_KEYS = ("anneal.dev/", "training.kubeflow.org/")


class EnvVar(Block):
    """A plain environment variable. Secret values come through `spec.secrets`."""

    name: EnvName = Field(description="The variable's name.")
    value: Annotated[str, StringConstraints(max_length=8192)] = Field(description="The value of the variable.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!self.name.startsWith('ANNEAL_') && !self.name.startsWith('PET_')",
            message="variables that start with ANNEAL_ or PET_ are set by the operator: choose another name",
            holds=lambda e: not e.name.startswith(RESERVED_ENV_PREFIXES),
            field="name",
        ),
    )


class Toleration(Block):
    """A taint that the pods tolerate, beside those of the pool."""

    key: ShortText | None = Field(default=None, description="The taint's key; absent with operator Exists: every key.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How the value is compared.")
    value: LabelValue | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Absent: every effect."
    )
    toleration_seconds: int | None = Field(default=None, ge=0, description="For NoExecute: how long the pod stays.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.operator) && self.operator == 'Exists' ? !has(self.value) : has(self.key)",
            message="operator Exists takes no value; operator Equal needs a key",
            holds=lambda t: t.value is None if t.operator == "Exists" else t.key is not None,
        ),
    )


class NamedSource(Block):
    """A ConfigMap of the job's namespace."""

    name: ObjectName = Field(description="The name of that object.")


class SecretSource(Block):
    """A Secret of the job's namespace, mounted by the kubelet; the operator never reads it."""

    secret_name: ObjectName = Field(description="The name of that object.")


class ClaimSource(Block):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: ObjectName = Field(description="The name of that object.")


class EmptyDirSource(Block):
    """Scratch space that lives as long as the pod."""

    size_limit: Quantity = Field(description="The most it may hold, like 50Gi.")


class ExtraVolume(Block):
    """A volume mounted into every pod of the job. Exactly one kind, of those that *restricted* admits."""

    name: LabelName = Field(description="A name for the volume, unique in the job.")
    mount_path: MountPath = Field(description="Where it is mounted.")
    read_only: bool = Field(default=True, description="Mounted read-only.")
    config_map: NamedSource | None = Field(default=None, description="A ConfigMap.")
    secret: SecretSource | None = Field(default=None, description="A Secret, mounted as files.")
    persistent_volume_claim: ClaimSource | None = Field(default=None, description="A claim, mounted as a directory.")
    empty_dir: EmptyDirSource | None = Field(default=None, description="Scratch space; set readOnly: false.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.configMap), has(self.secret), has(self.persistentVolumeClaim), has(self.emptyDir)].filter(x, x).size() == 1",
            message="write exactly one of configMap, secret, persistentVolumeClaim and emptyDir",
            holds=lambda v: exactly_one(v.config_map, v.secret, v.persistent_volume_claim, v.empty_dir),
        ),
        Rule(
            cel="!(self.mountPath == '/anneal' || self.mountPath.startsWith('/anneal/') || self.mountPath.startsWith('/tmp') || self.mountPath.startsWith('/dev'))",
            message="/anneal, /tmp and /dev are mounted by the operator: choose another path",
            holds=lambda v: v.mount_path != "/anneal" and not v.mount_path.startswith(("/anneal/", "/tmp", "/dev")),
            field="mountPath",
        ),
    )


def _no_own_keys(field: str) -> Rule:
    """Labels and annotations that the operator selects by cannot be overridden."""

    def holds(options: "PodOptions") -> bool:
        return not any(key.startswith(_OWN_KEYS) for key in getattr(options, field))

    starts = " && ".join(f"!k.startsWith('{key}')" for key in _OWN_KEYS)
    return Rule(
        cel=f"!has(self.{field}) || self.{field}.all(k, {starts})",
        message="keys under anneal.dev/ and training.kubeflow.org/ are the operator's: choose another prefix",
        holds=holds,
        field=field,
    )


class PodOptions(Block):
    """What a job may add to its pods."""

    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels added to every pod."
    )
    annotations: dict[LabelKey, AnnotationValue] = Field(
        default_factory=dict, max_length=32, description="Annotations added to every pod."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=16, description="Node labels required beside the pool's."
    )
    tolerations: list[Toleration] = bounded("Tolerations beside the pool's.", most=16)
    env: list[EnvVar] = bounded("Environment variables of the container.", most=64)
    volumes: list[ExtraVolume] = bounded("Further volumes.", most=16)

    rules: ClassVar[tuple[Rule, ...]] = (_no_own_keys("labels"), _no_own_keys("annotations"))


class PrepareResources(Block):
    """What the CPU pod that reads and tokenizes the data asks for. No GPU."""

    cpu: Quantity = Field(default="1", description="CPU request.")
    memory: Quantity = Field(default="4Gi", description="Memory request and limit.")


class ComputeSpec(Block):
    """Nodes, GPUs and pod options."""

    pool: LabelName | None = Field(
        default=None,
        description="A GPU pool by name: one that the operator's Helm values name, or one that was found from the labels of nodes. Default, if gpuType is absent: the pool called default, if there is one, else no constraint.",
    )
    gpu_type: GpuType | None = Field(
        default=None,
        description="A kind of GPU instead of a pool: the whole product name (NVIDIA-H100-80GB-HBM3) or some of its words (h100, a100-80gb).",
    )
    nodes: int = Field(default=1, ge=1, le=1024, description="Pods of the trainer, one a node.")
    min_nodes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="With a queue: start with fewer nodes than nodes, down to this many, if there is no quota for more. The global batch stays what it is. Default: all nodes or none.",
    )
    gpus_per_node: int = Field(
        default=1,
        ge=0,
        le=64,
        description="GPUs a pod, each with one process; 0 trains on the CPU with one process a pod (development pools).",
    )
    cpu: Quantity | None = Field(default=None, description="CPU request a pod. Default: 4 a GPU, or 1 without.")
    memory: Quantity | None = Field(
        default=None,
        description="Memory request and limit a pod, without sharedMemory. Default: 64Gi a GPU, or 4Gi without.",
    )
    memory_fit: Literal["fail", "warn", "autotune"] = Field(
        default="fail",
        description="What happens if the memory that the job is estimated to need is more than a GPU has: fail refuses the job before it is queued, warn says so and goes on, autotune lowers the micro batch and then turns on gradientCheckpointing until it fits. The global batch stays what it is.",
    )
    shared_memory: Quantity | None = Field(
        default=None,
        description="Size of /dev/shm, which NCCL and data loaders use. It counts as memory, so the pod's limit is memory + sharedMemory. Default: 2Gi a GPU, or 256Mi without.",
    )
    service_account_name: ObjectName | None = Field(
        default=None, description="For cloud identities; no Kubernetes token is ever mounted."
    )
    image_pull_secrets: list[NamedSource] = bounded("Secrets to pull the images with.", most=8)
    prepare: PrepareResources = Field(default_factory=PrepareResources, description="Resources of the prepare pod.")
    pod: PodOptions | None = Field(
        default=None,
        description="Labels, environment, tolerations and volumes added to the pods. Servers of rollout take no volume, and nodeSelector only in the trainer's pool.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.pool) && has(self.gpuType))",
            message="pool and gpuType both say where the job runs: write one of them",
            holds=lambda c: at_most_one(c.pool, c.gpu_type),
            field="gpuType",
        ),
        Rule(
            cel="!has(self.gpuType) || self.gpusPerNode > 0",
            message="gpuType needs gpusPerNode of 1 or more: leave it out to train on CPUs",
            holds=lambda c: c.gpu_type is None or c.gpus_per_node > 0,
            field="gpuType",
        ),
        Rule(
            cel="!has(self.minNodes) || self.minNodes <= self.nodes",
            message="minNodes is at most nodes: nodes is how many the job would like, minNodes how few it takes",
            holds=lambda c: c.min_nodes is None or c.min_nodes <= c.nodes,
            field="minNodes",
        ),
    )

    @property
    def world_size(self) -> int:
        """Number of training processes over all pods."""
        return self.nodes * max(1, self.gpus_per_node)

    @property
    def fewest_processes(self) -> int:
        """The same with as few nodes as the job takes."""
        return (self.min_nodes or self.nodes) * max(1, self.gpus_per_node)
