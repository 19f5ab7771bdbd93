"""Progress over HTTP, checkpoints on disk, and the log: the small parts around training."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from anneal_api import Layout, ProgressReport
from anneal_trainer import checkpoints, server
from anneal_trainer.errors import InputError
from anneal_trainer.files import new_directory, replace_directory
from anneal_trainer.metrics import MetricsLog
from anneal_trainer.reporter import Reporter, into_file
from anneal_trainer.tee import Tee


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_progress_is_served_before_and_while_the_work_runs(tmp_path: Path) -> None:
    """Before the first report the launcher's own answer, then what the work last said; the same as metrics."""
    running = server.serve(server.Records(tmp_path, ProgressReport(attempt=2)), 0)
    port = running.server_address[1]
    assert json.loads(get(port, "/progress")[1])["phase"] == "starting"
    reporter = Reporter(ProgressReport(attempt=2), into_file(tmp_path))
    reporter.update(phase="training", step=3, total_steps=9, loss=2.5, device="cpu")
    report = ProgressReport.model_validate_json(get(port, "/progress")[1])
    assert (report.step, report.total_steps, report.loss, report.attempt) == (3, 9, 2.5, 2)
    metrics = get(port, "/metrics")[1]
    assert "anneal_trainer_step 3.0" in metrics
    assert "anneal_trainer_loss 2.5" in metrics
    assert 'phase="training"' in metrics
    assert "eval_loss" not in metrics
    assert get(port, "/healthz") == (200, "ok")
    assert get(port, "/other")[0] == 404
    running.shutdown()


def test_the_preview_is_served_once_there_is_one(tmp_path: Path) -> None:
    """Until then it is not found, which is no error of the pod."""
    running = server.serve(server.Records(tmp_path, ProgressReport()), 0)
    port = running.server_address[1]
    assert get(port, "/preview")[0] == 404
    (tmp_path / "preview.json").write_text('{"text": "red", "html": "<b>red</b>"}')
    assert get(port, "/preview") == (200, '{"text": "red", "html": "<b>red</b>"}')
    running.shutdown()


def make(directory: Path, step: int) -> None:
    """A complete checkpoint."""
    (checkpoints.staging(directory, step)).mkdir(parents=True)
    checkpoints.publish(directory, step, keep=2)


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    """By step, not by name or time: 100 is newer than 20."""
    for step in (10, 20, 100):
        make(tmp_path, step)
    assert [checkpoint.step for checkpoint in checkpoints.completed(tmp_path)] == [20, 100]


def test_half_a_checkpoint_is_never_resumed_from(tmp_path: Path) -> None:
    """What was not published does not exist, and is cleared before the next save."""
    layout = Layout(tmp_path, "runs/job")
    make(layout.checkpoints, 10)
    checkpoints.staging(layout.checkpoints, 20).mkdir(parents=True)
    found = checkpoints.to_resume(layout, None)
    assert found is not None
    assert found.step == 10
    checkpoints.clear_staging(layout.checkpoints)
    assert [path.name for path in layout.checkpoints.iterdir()] == ["checkpoint-10"]


def test_resume_from_is_for_runs_without_checkpoints_of_their_own(tmp_path: Path) -> None:
    """Another run's checkpoint starts this one once; afterwards its own count."""
    make(tmp_path / "runs/old/checkpoints", 30)
    layout = Layout(tmp_path, "runs/job")
    found = checkpoints.to_resume(layout, "runs/old")
    assert found is not None
    assert found.step == 30
    make(layout.checkpoints, 5)
    own = checkpoints.to_resume(layout, "runs/old")
    assert own is not None
    assert own.step == 5


def test_resume_from_nothing_is_refused(tmp_path: Path) -> None:
    """A run directory without a checkpoint is a mistake in the manifest, not a fresh start."""
    with pytest.raises(InputError, match=r"checkpoint\.resumeFrom runs/old: there is no checkpoint in"):
        checkpoints.to_resume(Layout(tmp_path, "runs/job"), "runs/old")


def test_metrics_hold_every_step_once(tmp_path: Path) -> None:
    """An attempt that resumes replaces what an earlier one wrote beyond its checkpoint, and half a line."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resumed_from=0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 10.0 - step})
    log.close()
    with path.open("a") as stream:
        stream.write('{"step": 4, "lo')
    resumed = MetricsLog(path, resumed_from=2)
    resumed.write({"step": 3, "loss": 0.5})
    resumed.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 9.0},
        {"step": 2, "loss": 8.0},
        {"step": 3, "loss": 0.5},
    ]
    assert resumed.first_loss == 9.0


def test_output_goes_to_the_pod_and_to_the_storage(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Both streams, in order, and the last of them to the launcher."""
    log = tmp_path / "logs/attempt-1-rank0.log"
    with Tee(log) as tee:
        code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=tee.descriptor, stderr=tee.descriptor)
        tee.begin()
        child.wait()
        assert tee.tail == "out\nerr\n"
    assert log.read_text() == "out\nerr\n"
    assert capfdbinary.readouterr().out == b"out\nerr\n"


def test_a_storage_without_room_for_a_log_stops_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The work goes on, and the pod's own output says why there is no log."""
    with Tee(Path("/proc/no/log")) as tee:
        child = subprocess.Popen([sys.executable, "-c", "print('on')"], stdout=tee.descriptor)
        tee.begin()
        assert child.wait() == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"on\n"
    assert b"no log is kept" in captured.err


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failure while it is filled leaves nothing; of two that make the same, the first stays."""
    with pytest.raises(FileNotFoundError), new_directory(tmp_path / "a") as draft:
        ((draft / "file").write_text("half"), (draft / "absent").read_text())
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "a") as draft:
        (draft / "file").write_text("mine")
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_text("theirs")
    assert (tmp_path / "a/file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_directory_that_is_not_to_stay_gives_way(tmp_path: Path) -> None:
    """Of two that replace the same damaged one, the first stays; whichever comes, nothing is left beside it."""

    def stays(path: Path) -> bool:
        return (path / "file").exists()

    (tmp_path / "a/damaged").mkdir(parents=True)
    with new_directory(tmp_path / "a", stays) as second:
        (second / "file").write_text("second")
        with new_directory(tmp_path / "a", stays) as first:
            (first / "file").write_text("first")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    assert (tmp_path / "a/file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def killed_while_filling(target: Path) -> None:
    """A process that dies in the middle, without a chance to clean up."""
    code = "import os, sys, pathlib; from anneal_trainer.files import new_directory\n"
    code += "with new_directory(pathlib.Path(sys.argv[1])) as draft: (draft / 'half').touch(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -9


@pytest.mark.parametrize(
    ("host", "hours", "left"), [(None, 0, 0), ("elsewhere", 0, 1), ("elsewhere", 2, 0)], ids=["here", "fresh", "rested"]
)
def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, host: str | None, hours: int, left: int
) -> None:
    """At once if it was of this machine; of another one, whose locks may not be seen here, when it has rested."""
    killed_while_filling(tmp_path / "a")
    (draft,) = tmp_path.iterdir()
    if host:
        (draft / "owner").write_text(host)
    for path in (*draft.rglob("*"), draft):
        os.utime(path, (0, path.stat().st_mtime - hours * 3600))
    with new_directory(tmp_path / "b"):
        pass
    assert len(list(tmp_path.glob(".*"))) == left


def test_what_a_living_process_fills_is_left_alone(tmp_path: Path) -> None:
    """However long it takes: the kernel holds its lock."""
    with new_directory(tmp_path / "a") as mine:
        os.utime(mine.parent / "owner", (0, 0))
        with new_directory(tmp_path / "b"):
            assert mine.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    """Nothing of the old one is left between the files of the new."""
    for name, file in (("output", "old"), ("draft", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    replace_directory(tmp_path / "draft", tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["new"]
