"""What a process of a job knows when it starts: the job, where its volumes are, and which attempt this is.

One frozen object, built from a pod's environment or by `anneal run`, and handed to child processes as one JSON file.
Not here: anything that is found out later (the device, the data, the world).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from anneal_api import Job, Layout
from anneal_api.job import JobSpec
from anneal_api.jobfile import JobFile
from anneal_api.meta import (
    ENV_ATTEMPT,
    ENV_GRACE_SECONDS,
    ENV_GRADIENT_CHECKPOINTING,
    ENV_MICRO_BATCH_SIZE,
    GRACE_SECONDS,
    JOB_FILE,
    REWARDS_DIR,
)


@dataclass(frozen=True)
class Context:
    """One attempt at one job, on this machine.

    `records` is where processes leave progress and last words for the launcher; None where there is no launcher.
    `nodes` and `processes` (a node) are what the launcher was told: the trainer asserts that the world is that large.
    """

    file: JobFile
    volumes: dict[str, Path]
    attempt: int = 1
    # What this attempt was given instead of the spec's: after a shortage of memory, or to fit the GPU.
    micro_batch_size: int | None = None
    gradient_checkpointing: bool | None = None
    grace_seconds: int = GRACE_SECONDS
    records: Path | None = None
    # A directory for each ConfigMap with reward functions.
    reward_modules: dict[str, Path] = field(default_factory=dict)
    nodes: int = 1
    processes: int = 1
    node_rank: int = 0

    @property
    def job(self) -> Job:
        """The resolved job."""
        return self.file.job

    @cached_property
    def spec(self) -> JobSpec:
        """Its resolved spec, as this attempt carries it out."""
        names = ("micro_batch_size", "gradient_checkpointing")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        spec = self.file.job.spec
        return spec.model_copy(update={"training": spec.training.model_copy(update=given)}) if given else spec

    @cached_property
    def layout(self) -> Layout:
        """Where everything of this job is kept."""
        return self.file.layout(self.volumes)

    @property
    def reward_files(self) -> Path:
        """What the file of a reward function without a ConfigMap is below; without a cluster, where the user is."""
        return self.layout.storage if self.file.uid else Path.cwd()

    @property
    def world_size(self) -> int:
        """The number of training processes."""
        return self.nodes * self.processes

    def log(self, command: str) -> Path:
        """Where the output of `prepare` or of this attempt's `train` is kept, on the job's storage."""
        name = "prepare" if command == "prepare" else f"attempt-{self.attempt}-rank{self.node_rank}"
        return self.layout.logs / f"{name}.log"

    def encode(self) -> str:
        """The JSON that child processes are given."""
        return json.dumps(
            {
                "file": json.loads(self.file.encode()),
                "volumes": _texts(self.volumes),
                "reward_modules": _texts(self.reward_modules),
                "records": str(self.records) if self.records else None,
                **{name: getattr(self, name) for name in _PLAIN},
            }
        )

    @classmethod
    def decode(cls, text: str) -> "Context":
        """What `encode` wrote."""
        document: dict[str, Any] = json.loads(text)
        return cls(
            file=JobFile.decode(json.dumps(document["file"])),
            volumes=_paths(document["volumes"]),
            reward_modules=_paths(document["reward_modules"]),
            records=Path(document["records"]) if document["records"] else None,
            **{name: document[name] for name in _PLAIN},
        )


def _texts(directories: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in directories.items()}


def _paths(directories: Mapping[str, str]) -> dict[str, Path]:
    return {name: Path(path) for name, path in directories.items()}


_PLAIN = (
    "attempt",
    "micro_batch_size",
    "gradient_checkpointing",
    "grace_seconds",
    "nodes",
    "processes",
    "node_rank",
)


def context_of_pod(
    env: Mapping[str, str], *, config_dir: Path, volumes_dir: Path, rewards_dir: Path = Path(REWARDS_DIR)
) -> Context:
    """The context that the operator's mounts and environment give a pod."""
    micro_batch, checkpointing = env.get(ENV_MICRO_BATCH_SIZE), env.get(ENV_GRADIENT_CHECKPOINTING)
    return Context(
        file=JobFile.decode((config_dir / JOB_FILE).read_text(encoding="utf-8")),
        volumes={path.name: path for path in sorted(volumes_dir.iterdir())},
        reward_modules={path.name: path for path in sorted(rewards_dir.glob("*"))},
        attempt=int(env.get(ENV_ATTEMPT, "1")),
        micro_batch_size=int(micro_batch) if micro_batch else None,
        gradient_checkpointing=checkpointing == "true" if checkpointing else None,
        grace_seconds=int(env.get(ENV_GRACE_SECONDS, GRACE_SECONDS)),
        nodes=int(env.get("PET_NNODES", "1")),
        processes=int(env.get("PET_NPROC_PER_NODE", "1")),
        node_rank=int(env.get("PET_NODE_RANK", "0")),
    )
