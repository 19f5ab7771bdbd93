"""How an ending is told: exceptions, what ranks leave behind, and processes that die without a word."""

import os
import time
from pathlib import Path

import pytest

from anneal_api import Outcome, ProgressReport, TerminationMessage
from anneal_trainer import lastwords, verdict
from anneal_trainer.errors import (
    ConfigError,
    DataError,
    InputError,
    Interrupted,
    MemoryShortError,
    StaleDataError,
    StoppedError,
    TemporaryError,
)
from anneal_trainer.reporter import Reporter, silent


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (DataError("rows"), 65, Outcome.USER_ERROR),
        (InputError("model"), 66, Outcome.USER_ERROR),
        (ConfigError("config"), 78, Outcome.USER_ERROR),
        (StaleDataError("stale"), 75, Outcome.PREPARED_DATA_STALE),
        (StoppedError("stop"), 75, Outcome.PREEMPTED),
        (Interrupted("stop"), 75, Outcome.PREEMPTED),
        (TemporaryError("hub"), 75, Outcome.INFRASTRUCTURE),
        (MemoryShortError("oom"), 79, Outcome.OUT_OF_MEMORY),
        (MemoryError(), 79, Outcome.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), 79, Outcome.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 79, Outcome.OUT_OF_MEMORY),
        (RuntimeError("Connection closed by peer"), 1, Outcome.INFRASTRUCTURE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_error_has_its_exit_code_and_outcome(error: BaseException, code: int, outcome: Outcome) -> None:
    """The protocol of anneal_api.exitcodes, kept for named errors and for the libraries' own."""
    words = lastwords.of_error(error, None)
    assert (words.exit_code, words.outcome) == (code, outcome)


def test_torchs_own_out_of_memory_is_known() -> None:
    """The class that CUDA raises."""
    import torch

    assert lastwords.of_error(torch.OutOfMemoryError("CUDA out of memory."), None).outcome == Outcome.OUT_OF_MEMORY


def test_what_was_reported_is_in_the_last_words() -> None:
    """A failure keeps the step and loss that it had reached."""
    report = ProgressReport(step=7, total_steps=9, loss=1.5, device="cpu", resumed_from_step=3)
    words = lastwords.of_error(DataError("nan"), Reporter(report, silent))
    assert (words.step, words.total_steps, words.loss, words.resumed_from_step) == (7, 9, 1.5, 3)


def test_an_unforeseen_error_names_its_place() -> None:
    """Type, first line, file and line: enough to look for."""
    with pytest.raises(IndexError) as raised:
        [].pop()
    assert lastwords.unexpected(raised.value).startswith("IndexError: pop from empty list (test_endings.py, line ")


def leave(records: Path, rank: int, outcome: Outcome, code: int, *, after: float = 0) -> None:
    """What a rank leaves behind, `after` seconds from now."""
    path = records / f"words-{rank}.json"
    path.write_text(TerminationMessage(outcome=outcome, exit_code=code, message=f"rank {rank}").encode())
    os.utime(path, (time.time() + after,) * 2)


def test_success_is_told_by_the_first_rank(tmp_path: Path) -> None:
    """Rank 0 has the outputs, whoever ended first."""
    leave(tmp_path, 1, Outcome.SUCCEEDED, 0)
    leave(tmp_path, 0, Outcome.SUCCEEDED, 0, after=5)
    assert verdict.reached(tmp_path, code=0, stopped=False, output="").message == "rank 0"


def test_the_rank_that_failed_first_is_believed(tmp_path: Path) -> None:
    """Its peers fail because of it, or are stopped because of it."""
    leave(tmp_path, 0, Outcome.INFRASTRUCTURE, 1)
    leave(tmp_path, 1, Outcome.OUT_OF_MEMORY, 79, after=1)
    leave(tmp_path, 2, Outcome.PREEMPTED, 75, after=2)
    words = verdict.reached(tmp_path, code=1, stopped=False, output="")
    assert (words.message, words.exit_code) == ("rank 1", 79)


def test_a_stopped_pod_says_so(tmp_path: Path) -> None:
    """After SIGTERM the ranks' own word is the ending, not the connection errors that follow from it."""
    leave(tmp_path, 0, Outcome.INFRASTRUCTURE, 1)
    leave(tmp_path, 1, Outcome.PREEMPTED, 75, after=1)
    assert verdict.reached(tmp_path, code=1, stopped=True, output="").outcome == Outcome.PREEMPTED


def test_a_rank_stopped_by_torchrun_is_not_a_preemption(tmp_path: Path) -> None:
    """Without a signal to the pod, ranks that were stopped are only consequences of one that died silently."""
    leave(tmp_path, 1, Outcome.PREEMPTED, 75)
    output = "E1121 failed (exitcode: -9) local_rank: 0 (pid: 12) of binary: python"
    words = verdict.reached(tmp_path, code=1, stopped=False, output=output)
    assert (words.outcome, words.exit_code) == (Outcome.INFRASTRUCTURE, 137)
    assert "killed by SIGKILL" in words.message


@pytest.mark.parametrize(
    ("code", "stopped", "outcome", "exit_code"),
    [
        (-9, False, Outcome.INFRASTRUCTURE, 137),
        (-11, False, Outcome.INFRASTRUCTURE, 139),
        (-9, True, Outcome.PREEMPTED, 75),
        (-15, True, Outcome.PREEMPTED, 75),
        (3, False, Outcome.INFRASTRUCTURE, 3),
    ],
    ids=["killed", "crashed", "killed after the grace period", "ended before it could save", "ended"],
)
def test_a_death_without_a_word_is_still_told(
    tmp_path: Path, *, code: int, stopped: bool, outcome: Outcome, exit_code: int
) -> None:
    """The launcher knows the signal, and whether the pod was being stopped."""
    words = verdict.reached(tmp_path, code=code, stopped=stopped, output="")
    assert (words.outcome, words.exit_code) == (outcome, exit_code)
    assert words.message


def test_a_kernel_kill_for_memory_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL and the container's count of kills for want of memory together mean exit code 79."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n")
    monkeypatch.setattr(verdict, "_CGROUP_EVENTS", events)
    words = verdict.reached(tmp_path, code=-9, stopped=False, output="")
    assert (words.outcome, words.exit_code) == (Outcome.OUT_OF_MEMORY, 79)
    assert "compute.memory" in words.message
