"""A job as the operator means to carry it out: every default filled, every name decided. Pure.

Not here: whether it may be carried out (`steps.accept`), and the objects themselves (`manifests`).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from anneal_api.job import Job, JobSpec
from anneal_api.jobfile import JobFile
from anneal_api.manifest import parse_job
from anneal_api.meta import VOLUMES_DIR
from anneal_api.model import ModelSource
from anneal_api.names import attempt_name, base_name, prepare_name, preview_name, rollout_name, run_directory
from anneal_api.policy import RunPolicy
from anneal_api.resolve import digest, resolve
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import RolloutSpec
from anneal_api.sources import parse_source
from anneal_api.status import SourceReport
from anneal_operator.choice import Choice, choose, choose_for_servers, gpu_memory
from anneal_operator.kinds import Obj, meta, name_of, uid_of
from anneal_operator.pools import NodeGroup
from anneal_operator.settings import Pool, Settings


@dataclass(frozen=True)
class Plan:
    """One job, resolved."""

    job: Job
    settings: Settings
    # What its job:// sources stand for, as far as that is known.
    sources: tuple[SourceReport, ...] = ()
    # The cluster's nodes with GPUs, as far as they are known.
    node_groups: tuple[NodeGroup, ...] = ()
    # Of the attempt that is under way: it stays where it is.
    kept_pool: str | None = None
    kept_rollout_pool: str | None = None
    # Whether the trainer and its servers share a claim that one node can use.
    on_one_node: bool = False

    @property
    def spec(self) -> JobSpec:
        """The spec with every default filled."""
        return self.job.spec

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.job.metadata["uid"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.job.metadata["namespace"])

    @cached_property
    def base(self) -> str:
        """The stem of its children's names."""
        return base_name(self.name, self.uid)

    @property
    def owns_claim(self) -> bool:
        """Whether the operator makes the storage claim."""
        return self.spec.storage is None

    @property
    def claim(self) -> str:
        """The claim that everything is kept on."""
        return self.spec.storage.volume.claim_name if self.spec.storage else self.base

    @property
    def run_directory(self) -> str:
        """The job's own directory on it."""
        return run_directory(self.name, self.uid)

    @cached_property
    def output(self) -> str:
        """Where the result goes, below the claim."""
        return self.spec.output.path or f"{self.run_directory}/output"

    @cached_property
    def job_file(self) -> str:
        """The text that the pods read. How often a job may fail is none of their business, and may change."""
        spec = self.spec.model_copy(update={"run_policy": RunPolicy()})
        job = self.job.model_copy(update={"spec": spec})
        return JobFile(job=job, storage_claim=self.claim, sources=self.sources).encode()

    @cached_property
    def config_name(self) -> str:
        """The ConfigMap's name holds its content's digest: a pod never sees another content than was meant for it."""
        return f"{self.base}-{digest(self.job_file)[:6]}"

    @cached_property
    def prepare_key(self) -> str:
        """What the prepared data is shared by."""
        return self._file.prepare_key

    @property
    def _file(self) -> JobFile:
        return JobFile(job=self.job, storage_claim=self.claim, sources=self.sources)

    @property
    def model_directory(self) -> str:
        """Where pods find the model that is trained."""
        claims = (self.claim, *self.source_claims)
        return str(self._file.directory(self.spec.models[0], {claim: Path(VOLUMES_DIR) / claim for claim in claims}))

    @property
    def prepare_name(self) -> str:
        """The prepare Job."""
        return prepare_name(self.name, self.uid, self.prepare_key)

    def preview_name(self, digest: str) -> str:
        """The ConfigMap with the preview that has this digest."""
        return preview_name(self.name, self.uid, digest)

    def attempt_name(self, number: int) -> str:
        """The PyTorchJob of an attempt."""
        return attempt_name(self.name, self.uid, number)

    @cached_property
    def choice(self) -> Choice:
        """The pool that the job gets."""
        return choose(self.spec.compute, self.settings.pools, self.node_groups, kept=self.kept_pool)

    @property
    def pool_name(self) -> str | None:
        """The pool's name: declared, or found; none where nothing is asked for and none is called default."""
        return self.choice.name

    @property
    def pool(self) -> Pool:
        """The pool; one without constraints where the job names none (or one that does not exist)."""
        return self.choice.pool

    @property
    def servers(self) -> RLHFSpec | None:
        """The spec, if answers are drawn by servers beside the trainer."""
        spec = self.spec
        own = isinstance(spec, RLHFSpec) and spec.rollout is not None and spec.rollout.mode == "server"
        return spec if own and isinstance(spec, RLHFSpec) else None

    @property
    def colocates(self) -> bool:
        """Whether the trainer runs servers on its own GPUs."""
        rollout = self.spec.rollout if isinstance(self.spec, RLHFSpec) else None
        return rollout is not None and rollout.mode == "colocate"

    @property
    def rollout_name(self) -> str:
        """The servers' Deployment and Service."""
        return rollout_name(self.name, self.uid)

    @property
    def rollout(self) -> RolloutSpec | None:
        """What the spec says of them; None where there are none."""
        return self.servers.rollout if self.servers else None

    @cached_property
    def rollout_choice(self) -> Choice:
        """The pool of its servers: the trainer's, unless they name another one."""
        if self.rollout is None or not (self.rollout.pool or self.rollout.gpu_type):
            return self.choice
        kept = self.kept_rollout_pool
        return choose_for_servers(self.rollout, self.spec.compute, self.settings.pools, self.node_groups, kept=kept)

    @property
    def rollout_pool(self) -> Pool:
        """The same, without its name."""
        return self.rollout_choice.pool

    @property
    def rollout_gpus(self) -> int:
        """GPUs of all servers."""
        return self.rollout.servers * (self.rollout.gpus or 0) if self.rollout else 0

    @property
    def gpus_text(self) -> str:
        """GPUs for people: of the trainer, and of the servers behind a plus."""
        return f"{self.gpus} + {self.rollout_gpus}" if self.rollout else str(self.gpus)

    @property
    def gpu_memory(self) -> float | None:
        """GiB of the roomiest GPU that the job could get; None if nothing tells."""
        return gpu_memory(self.choice)[0]

    @property
    def gpu_memory_source(self) -> str:
        """What tells: "pool h100", "NVIDIA-H100-80GB-HBM3 nodes"."""
        return gpu_memory(self.choice)[1]

    @property
    def gpu_memory_certain(self) -> bool:
        """Whether the job can get no GPU with more: declared, or the GPUs that it names."""
        return gpu_memory(self.choice)[2]

    @property
    def nodes(self) -> int:
        """Training pods."""
        return self.spec.compute.nodes

    @property
    def gpus(self) -> int:
        """GPUs over all nodes."""
        return self.spec.compute.nodes * self.spec.compute.gpus_per_node

    def share(self, nodes: int | None = None) -> int:
        """Sequences of a step that each process has, on all nodes or fewer."""
        compute = self.spec.compute
        return self.spec.training.global_batch // ((nodes or compute.nodes) * max(1, compute.gpus_per_node))

    @property
    def node_counts(self) -> tuple[int, ...]:
        """The numbers of nodes that the job can train on with the same global batch, the least first.

        Each process has whole groups of answers.
        """
        compute = self.spec.compute
        unit = max(1, compute.gpus_per_node) * self.spec.group
        counts = range(compute.min_nodes or compute.nodes, compute.nodes + 1)
        return tuple(n for n in counts if self.spec.training.global_batch % (n * unit) == 0)

    @cached_property
    def source_claims(self) -> tuple[str, ...]:
        """Claims that are only read from, sorted."""
        models = (model.source for model in (*self.spec.models, *self.spec.judges))
        named = (*models, *(each.source for _, each in self.spec.all_datasets))
        made = (uri for pin in self.sources for uri in (pin.base, *(adapter.uri for adapter in pin.adapters)))
        claims = {parse_source(source).claim for source in (*named, *made)}
        return tuple(sorted(claims - {"", self.claim}))

    @property
    def unpinned(self) -> list[ModelSource]:
        """The job:// sources of which it is not known yet what they stand for."""
        pinned = {pin.source for pin in self.sources}
        return [each for each in job_sources(self.spec) if each.source not in pinned]


def plan_of(
    job: Obj, settings: Settings, node_groups: tuple[NodeGroup, ...] = (), *, on_one_node: bool = False
) -> Plan:
    """The plan of a job; ManifestError holds every problem of its spec."""
    identity = {key: meta(job)[key] for key in ("name", "namespace", "uid")}
    document = {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": identity, "spec": job.get("spec")}
    parsed = parse_job(document)
    wanted = {each.source for each in job_sources(parsed.spec)}
    known = (SourceReport.model_validate(pin) for pin in (job.get("status") or {}).get("sources") or [])
    sources = tuple(pin for pin in known if pin.source in wanted)
    resolved = parsed.model_copy(update={"spec": resolve(parsed.spec)})
    return Plan(resolved, settings, sources, node_groups, *_kept_pools(job), on_one_node)


def _kept_pools(job: Obj) -> tuple[str | None, str | None]:
    """Of the attempt that is under way. What the attempt itself has may be a queue's word for where it is."""
    status = job.get("status") or {}
    attempts = status.get("attempts") or []
    if not attempts or attempts[-1].get("endTime"):
        return None, None
    return status.get("pool"), (status.get("rollout") or {}).get("pool")


def job_sources(spec: JobSpec) -> list[ModelSource]:
    """The models and reward models of a spec that other jobs make."""
    return [each for each in (*spec.models, *spec.judges) if parse_source(each.source).scheme == "job"]


def claim_and_output(job: Obj) -> tuple[str, str]:
    """Where a job of any validity would write: for comparing neighbours without parsing them all."""
    spec = job.get("spec") or {}
    base = base_name(name_of(job), uid_of(job))
    claim = ((spec.get("storage") or {}).get("volume") or {}).get("claimName") or base
    path = (spec.get("output") or {}).get("path")
    return str(claim), str(path or f"{run_directory(name_of(job), uid_of(job))}/output")
