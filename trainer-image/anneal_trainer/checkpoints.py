"""Checkpoints that are whole or not there, the newest few kept, and the one to go on from.

A checkpoint is written into a hidden directory and renamed when every rank has written its part, so whatever kills the
process, `checkpoint-STEP` is complete. Not here: what is in one (the training library's own files).
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from anneal_api import Layout
from anneal_trainer.errors import InputError

_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING = ".staging"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    step: int


def completed(directory: Path) -> list[Checkpoint]:
    """The checkpoints of a run, the newest last."""
    if not directory.is_dir():
        return []
    named = [(path, _NAME.fullmatch(path.name)) for path in directory.iterdir() if path.is_dir()]
    found = [Checkpoint(path, int(match[1])) for path, match in named if match]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def to_resume(layout: Layout, resume_from: str | None) -> Checkpoint | None:
    """The run's own newest checkpoint, else the newest of `checkpoint.resumeFrom`, else none."""
    own = completed(layout.checkpoints)
    if own:
        return own[-1]
    if resume_from is None:
        return None
    other = layout.storage / resume_from
    found = completed(other / "checkpoints")
    if not found:
        raise InputError(
            f"checkpoint.resumeFrom {resume_from}: there is no checkpoint in {other / 'checkpoints'}; "
            "write the run directory of an earlier job, like runs/NAME-xxxxx"
        )
    return found[-1]


def staging(directory: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it is complete."""
    return directory / _STAGING / f"checkpoint-{step}"


def publish(directory: Path, step: int, *, keep: int) -> None:
    """Make the staged checkpoint of `step` the newest, and remove all but the newest `keep`."""
    target = directory / f"checkpoint-{step}"
    if target.exists():
        shutil.rmtree(target)
    staging(directory, step).rename(target)
    for old in completed(directory)[:-keep]:
        # Renamed first: a removal that is interrupted must not leave something that looks whole.
        doomed = directory / _STAGING / f"old-{old.step}"
        old.path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def clear_staging(directory: Path) -> None:
    """Remove what an interrupted save left."""
    shutil.rmtree(directory / _STAGING, ignore_errors=True)
