"""`spec.storage`, `spec.checkpoint` and `spec.output`: what is kept, and where."""

from typing import ClassVar

from pydantic import Field

from anneal_api.base import Block, ObjectName, RelativePath, Rule


class VolumeStorage(Block):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: ObjectName = Field(description="Its name. Several nodes need an access mode of ReadWriteMany.")


class StorageSpec(Block):
    """Where fetched models, prepared data, checkpoints, logs and results are."""

    volume: VolumeStorage = Field(description="A PersistentVolumeClaim.")


class CheckpointSpec(Block):
    """How much work a failure may cost."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Optimizer steps between checkpoints. Default: 500, or ten a run if it is shorter. SIGTERM always saves one.",
    )
    keep: int = Field(default=2, ge=1, le=100, description="How many checkpoints stay; the oldest goes first.")
    resume_from: RelativePath | None = Field(
        default=None,
        description="A run directory on the same storage (runs/NAME-xxxxx) whose last checkpoint this job starts from, while it has none of its own.",
    )


class OutputSpec(Block):
    """Where the trained adapter or model is written."""

    path: RelativePath | None = Field(
        default=None,
        description="A directory on the job's storage. Default: runs/NAME-xxxxx/output. No two jobs may write the same one.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.path) || !(self.path.startsWith('models/') || self.path.startsWith('prepared/'))",
            message="models/ and prepared/ are Anneal's own caches on the storage: choose another directory",
            holds=lambda o: not (o.path or "").startswith(("models/", "prepared/")),
            field="path",
        ),
    )
