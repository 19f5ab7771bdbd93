"""Going on exactly where a run was stopped, and only from what is whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from anneal_api import FineTuneJob, ProgressReport
from anneal_trainer import checkpoints, local
from anneal_trainer.errors import ConfigError, Interrupted, StoppedError
from anneal_trainer.prepare import prepare
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop
from anneal_trainer.train import train
from trainer.training import CLAIM, context, job, losses, records

# `anneal run`, with the real signal from within an import.
_STOPPED_IN_TRL = """
import os, signal, sys
from anneal_cli.__main__ import main

class Stops:
    def find_spec(self, name, path, target=None):
        if name == "trl.trainer.base_trainer":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Stops())
main()
"""


class StopAt(Reporter):
    """Sends this process SIGTERM when a step has been reported: the real signal, at a known place."""

    def __init__(self, step: int) -> None:
        super().__init__(ProgressReport(), silent)
        self.at = step

    def update(self, **changes: Any) -> None:
        """As ever, and then the signal."""
        super().update(**changes)
        if changes.get("step") == self.at and "loss" in changes:
            os.kill(os.getpid(), signal.SIGTERM)


def attempt(storage: Path, made: FineTuneJob, *, stop_at: int | None = None, micro: int | None = None) -> Result:
    """One attempt in this process; with `stop_at` it is stopped during the step after."""
    here = context(storage, made, micro_batch_size=micro)
    reporter = StopAt(stop_at) if stop_at is not None else Reporter(ProgressReport(), silent)
    ready = prepare(here, Reporter(ProgressReport(), silent))
    stop = Stop()
    try:
        return train(here, ready, reporter=reporter, stop=stop)
    finally:
        stop.restore()


def made(name: str = "job", **changes: Any) -> FineTuneJob:
    """Twelve steps over twelve batches of rows, with dropout, so that the state of the dice matters."""
    training = {"maxSteps": 14, "microBatchSize": 2, **changes.pop("training", {})}
    return job(name, adapter={"r": 4, "dropout": 0.2}, checkpoint={"everySteps": 5}, training=training, **changes)


def weights(storage: Path, name: str) -> dict[str, Any]:
    """The adapter of a run."""
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(storage / "runs" / name / "output/adapter_model.safetensors")
    return found


def test_a_stopped_run_goes_on_exactly(storage: Path) -> None:
    """Stopped by SIGTERM between checkpoints and resumed: losses, gradients and weights are bit for bit the same."""
    attempt(storage, made("whole"))
    with pytest.raises(StoppedError, match="stopped at step 7 of 14: its checkpoint is saved") as raised:
        attempt(storage, made("split"), stop_at=6)
    assert raised.value.exit_code == 75
    assert [found.step for found in checkpoints.completed(storage / "runs/split/checkpoints")] == [5, 7]
    result = attempt(storage, made("split"))
    assert result.resumed_from_step == 7
    kept = [{key: record[key] for key in ("step", "loss", "grad_norm")} for record in records(storage, "split")]
    assert kept == [{key: record[key] for key in ("step", "loss", "grad_norm")} for record in records(storage, "whole")]
    whole, split = weights(storage, "whole"), weights(storage, "split")
    assert all(whole[name].equal(split[name]) for name in whole)
    assert result.first_loss == losses(storage, "whole")[0]


def test_a_run_killed_between_checkpoints_goes_on_from_the_last(storage: Path) -> None:
    """Steps after the last whole checkpoint are trained again, to the same losses."""
    attempt(storage, made("whole"))
    with pytest.raises(StoppedError):
        attempt(storage, made("split"), stop_at=7)
    # As if it had been killed without time to save: only the periodic checkpoint is left, and half of another.
    directory = storage / "runs/split/checkpoints"
    (directory / "checkpoint-8").rename(directory / ".half")
    (directory / ".staging").mkdir(exist_ok=True)
    (directory / ".half").rename(directory / ".staging/checkpoint-8")
    assert attempt(storage, made("split")).resumed_from_step == 5
    assert losses(storage, "split") == losses(storage, "whole")


def test_a_smaller_micro_batch_goes_on_with_the_same_rows(storage: Path) -> None:
    """After a shortage of memory the micro batch is halved: the same global batches follow."""
    attempt(storage, job("whole", training={"maxSteps": 6, "microBatchSize": 4}))
    split = job("split", training={"maxSteps": 6, "microBatchSize": 4}, checkpoint={"everySteps": 3})
    with pytest.raises(StoppedError):
        attempt(storage, split, stop_at=2)
    attempt(storage, split, micro=2)
    assert losses(storage, "split") == pytest.approx(losses(storage, "whole"), abs=1e-5)


def test_another_runs_checkpoint_can_be_gone_on_from(storage: Path) -> None:
    """ResumeFrom continues its steps; this run's own intervals count, not those it was saved with."""
    attempt(storage, made("whole"))
    attempt(storage, made("first", training={"maxSteps": 14}))
    for step in (14,):
        (storage / f"runs/first/checkpoints/checkpoint-{step}").rename(storage / "late")
    second = job(
        "second",
        adapter={"r": 4, "dropout": 0.2},
        checkpoint={"everySteps": 2, "keep": 9, "resumeFrom": "runs/first"},
        training={"maxSteps": 14, "microBatchSize": 2},
    )
    result = attempt(storage, second)
    assert result.resumed_from_step == 10
    assert losses(storage, "second") == losses(storage, "whole")[10:]
    assert [found.step for found in checkpoints.completed(storage / "runs/second/checkpoints")] == [12, 14]


def test_a_checkpoint_of_another_adapter_is_refused(storage: Path) -> None:
    """With the remedy: the same adapter, or no resumeFrom."""
    attempt(storage, job("first", training={"maxSteps": 2}))
    other = job("second", adapter={"r": 8}, checkpoint={"resumeFrom": "runs/first"})
    with pytest.raises(ConfigError, match="is a checkpoint of another adapter or model"):
        attempt(storage, other)


def test_a_signal_before_training_ends_at_once() -> None:
    """While it still loads there is nothing to save."""
    stop = Stop()
    try:
        with pytest.raises(Interrupted, match="SIGTERM: stopped before training began"):
            os.kill(os.getpid(), signal.SIGTERM)
        # Also where Python has dropped what was raised.
        with pytest.raises(Interrupted, match="stopped before training began"):
            stop.defer()
    finally:
        stop.restore()


def test_a_signal_while_a_library_is_imported_is_a_stop(storage: Path) -> None:
    """TRL imports its parts when they are used, and wraps every Exception then: one line is said, and no traceback."""
    manifest = storage / "job.yaml"
    manifest.write_text(yaml.safe_dump(made().model_dump(mode="json", by_alias=True, exclude_none=True)))
    command = [sys.executable, "-c", _STOPPED_IN_TRL, "run", str(manifest), "--volume", f"{CLAIM}={storage}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "SIGTERM: stopped before training began; nothing was lost; the same command goes on"
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (75, said)
    assert "Traceback" not in ended.stderr


def test_run_again_goes_on_or_starts_anew(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`anneal run`: an interrupted run goes on, a changed one starts anew and keeps the earlier files."""
    monkeypatch.setattr(local, "Reporter", lambda _report, _listen: StopAt(6))
    assert local.run(made(), {CLAIM: storage}, quiet=True) == 75
    said = "stopped at step 7 of 14: its checkpoint is saved; the same command goes on"
    assert said in capsys.readouterr().err.splitlines()
    monkeypatch.undo()
    assert local.run(made(), {CLAIM: storage}, quiet=True) == 0
    assert [record["step"] for record in records(storage)] == list(range(1, 15))
    assert local.run(made(training={"maxSteps": 3}), {CLAIM: storage}, quiet=True) == 0
    assert [record["step"] for record in records(storage)] == [1, 2, 3]
    previous = storage / "runs/job/previous/checkpoints"
    assert [found.step for found in checkpoints.completed(previous)] == [10, 14]
