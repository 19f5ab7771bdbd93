"""Whole pods, as processes: `python -m anneal_trainer prepare|train` with the mounts and environment of a pod."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import anneal_trainer
from anneal_api import FineTuneJob, ProgressReport, TerminationMessage
from anneal_api.exitcodes import TEMPORARY
from anneal_trainer.prepare import prepare
from anneal_trainer.reporter import Reporter, silent
from trainer.training import CLAIM, alpaca_rows, context, job, losses, trained, write_jsonl


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Pod:
    """A container of the trainer image, as a process group of its own."""

    root: Path
    storage: Path
    made: FineTuneJob
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self, command: str) -> "Pod":
        """The container's start."""
        for name in ("config", "volumes"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if not (self.root / "volumes" / CLAIM).exists():
            (self.root / "volumes" / CLAIM).symlink_to(self.storage)
        (self.root / "config/job.json").write_text(context(self.storage, self.made).file.encode())
        mounts = ["--config", self.root / "config", "--volumes", self.root / "volumes"]
        options = [*mounts, "--termination-log", self.root / "words", "--port", self.port]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anneal_trainer", command, *map(str, options)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self

    def end(self) -> tuple[int, TerminationMessage, str]:
        """Exit code, last words and output."""
        assert self.process is not None
        output, _ = self.process.communicate(timeout=300)
        words = TerminationMessage.decode((self.root / "words").read_text())
        assert words is not None, output
        assert words.exit_code == self.process.returncode, output
        return self.process.returncode, words, output

    def report(self) -> ProgressReport | None:
        """What /progress says, once it answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/progress") as answer:
                return ProgressReport.model_validate_json(answer.read())
        except OSError:
            return None

    def wait_until(self, true: Callable[[ProgressReport], bool]) -> ProgressReport:
        """Poll /progress as the operator does, only faster."""
        assert self.process is not None
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            report = self.report()
            if report and true(report):
                return report
            time.sleep(0.05)
        raise AssertionError(f"not seen in time: {self.report()}, {self.process.poll()}")

    def worker(self) -> int:
        """The process id of what the launcher started."""
        assert self.process is not None
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        return int(listed.stdout.split()[0])


@pytest.fixture
def pod(tmp_path: Path, storage: Path) -> Iterator[Callable[..., Pod]]:
    """Makes pods, and leaves none behind."""
    pods: list[Pod] = []

    def make(made: FineTuneJob, **environment: str) -> Pod:
        pods.append(Pod(tmp_path / f"pod-{len(pods)}", storage, made, environment))
        return pods[-1]

    yield make
    for each in pods:
        if each.process and each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


def prepared(storage: Path, made: FineTuneJob) -> None:
    """Prepare in this process, which has imported everything already."""
    prepare(context(storage, made), Reporter(ProgressReport(), silent))


def test_a_job_goes_through_both_its_pods(storage: Path, pod: Callable[..., Pod]) -> None:
    """Prepare, then train: exit code 0, the counts, the outputs, and a log on the storage that the message names."""
    made = job(training={"maxSteps": 4})
    code, words, _ = pod(made).start("prepare").end()
    assert (code, words.outcome) == (0, "Succeeded")
    assert words.dataset is not None
    assert (words.dataset.rows, words.dataset.types) == (48, ["alpaca"])
    assert [each.architecture for each in words.models] == ["Qwen3ForCausalLM"]
    code, words, output = pod(made, ANNEAL_ATTEMPT="2").start("train").end()
    assert (code, words.outcome, words.step, words.total_steps) == (0, "Succeeded", 4, 4)
    assert (words.first_loss, words.loss) == (losses(storage)[0], losses(storage)[-1])
    assert words.outputs[0].uri == "volume://runs/runs/job/output"
    assert words.log == "runs/job/logs/attempt-2-rank0.log"
    assert re.sub(r"^anneal: .*\n", "", output, flags=re.MULTILINE) == (storage / words.log).read_text()
    assert "Training" in output


def test_two_processes_train_as_one(storage: Path, pod: Callable[..., Pod]) -> None:
    """torchrun, DDP and gloo: the same losses, evaluation and weights as one process, so the gradients were shared."""
    from safetensors.torch import load_file

    changes: dict[str, Any] = {
        "training": {"maxSteps": 5, "microBatchSize": 1},
        "evaluation": {"holdout": {"count": 5}, "samples": [{"prompt": "Say red"}]},
    }
    one, two = job("one", **changes), job("two", **changes, compute={"gpusPerNode": 2})
    prepared(storage, two)
    double = pod(two, PET_NPROC_PER_NODE="2").start("train")
    assert double.wait_until(lambda report: report.step >= 1).world_size == 2
    code, words, output = double.end()
    assert (code, words.step) == (0, 5), output
    alone = trained(storage, one)
    assert losses(storage, "two") == pytest.approx(losses(storage, "one"), abs=1e-5)
    assert words.eval_loss == pytest.approx(alone.eval_loss, abs=1e-5)
    first, second = (load_file(storage / f"runs/{name}/output/adapter_model.safetensors") for name in ("one", "two"))
    assert all(first[name].allclose(second[name], atol=1e-4) for name in first)


def trained_on_two_nodes(made: FineTuneJob, pod: Callable[..., Pod]) -> TerminationMessage:
    """Two pods of one process each, that find each other as those of two nodes do."""
    common = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    common["PET_RDZV_CONF"] = "timeout=1800"  # as the operator gives it
    both = [pod(made, **common, PET_NODE_RANK=str(rank)).start("train") for rank in (0, 1)]
    (code, words, output), (other, _, _) = [each.end() for each in both]
    assert (code, other) == (0, 0), output
    return words


def of_two_nodes(name: str, **changes: Any) -> FineTuneJob:
    """Fourteen steps of four rows of 48, so that one epoch ends among them; each rank has two rows of a step."""
    training = {"maxSteps": 14, "microBatchSize": 2, "learningRate": 2e-2}
    checkpoint = {"everySteps": 5, "keep": 9}
    return job(name, compute={"nodes": 2}, training=training, checkpoint=checkpoint, **changes)


def assert_same_rows_and_losses(storage: Path, name: str, other: str) -> None:
    """Every step once, with one loss: steps differ by far more than the two runs may."""
    ours, theirs = losses(storage, name), losses(storage, other)
    assert len(ours) == len(theirs) == 14
    assert ours == pytest.approx(theirs, abs=2e-5)
    assert min(abs(one - two) for place, one in enumerate(ours) for two in ours[:place]) > 1e-4


def back_to_step_5(storage: Path, name: str) -> None:
    """As if the run had been evicted then."""
    for step in (10, 14):
        shutil.rmtree(storage / f"runs/{name}/checkpoints/checkpoint-{step}")


def test_one_node_trains_and_resumes_as_two(storage: Path, pod: Callable[..., Pod]) -> None:
    """A queue may admit fewer nodes than the job file says, from the start or later: rows and losses stay the same."""
    prepared(storage, of_two_nodes("full"))
    trained_on_two_nodes(of_two_nodes("full"), pod)
    shutil.copytree(storage / "runs/full", storage / "runs/split")
    trained(storage, of_two_nodes("fewer"))
    assert_same_rows_and_losses(storage, "fewer", "full")
    back_to_step_5(storage, "split")
    assert trained(storage, of_two_nodes("split")).resumed_from_step == 5
    assert_same_rows_and_losses(storage, "split", "full")


def test_two_nodes_resume_what_one_began(storage: Path, pod: Callable[..., Pod]) -> None:
    """The other way round: the second attempt has all the nodes."""
    trained(storage, of_two_nodes("full"))
    shutil.copytree(storage / "runs/full", storage / "runs/split")
    back_to_step_5(storage, "split")
    assert trained_on_two_nodes(of_two_nodes("split"), pod).resumed_from_step == 5
    assert_same_rows_and_losses(storage, "split", "full")


def test_sigterm_saves_and_asks_for_another_attempt(storage: Path, pod: Callable[..., Pod]) -> None:
    """Live progress, SIGTERM, a checkpoint, exit code 75; the next attempt goes on at that step."""
    made = job(training={"maxSteps": 4000, "learningRate": 1e-4}, checkpoint={"everySteps": 100_000})
    prepared(storage, made)
    first = pod(made).start("train")
    seen = first.wait_until(lambda report: report.step >= 3)
    assert (seen.phase, seen.total_steps, seen.device) == ("training", 4000, "cpu")
    assert seen.loss is not None
    assert seen.tokens_per_second is not None
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    code, words, _ = first.end()
    assert (code, words.outcome) == (75, "Preempted")
    assert words.step is not None
    assert words.message.startswith(f"stopped at step {words.step} of 4000: its checkpoint is saved")
    second = pod(made, ANNEAL_ATTEMPT="2").start("train")
    report = second.wait_until(lambda report: report.step > (words.step or 0))
    assert (report.resumed_from_step, report.attempt) == (words.step, 2)
    assert second.process is not None
    second.process.send_signal(signal.SIGTERM)
    assert second.end()[0] == 75
    steps = [json.loads(line)["step"] for line in (storage / "runs/job/logs/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_bad_data_is_the_users_to_mend(storage: Path, pod: Callable[..., Pod]) -> None:
    """The trainer's own sentence is in the termination message, and the exit code says: do not retry."""
    write_jsonl(storage / "data.jsonl", [{"question": "a"}])
    code, words, output = pod(job()).start("prepare").end()
    assert (code, words.outcome) == (65, "UserError")
    assert "no type fits its columns (question)" in words.message
    assert "Traceback" not in output


def test_training_without_prepared_data_asks_for_it(pod: Callable[..., Pod]) -> None:
    """Exit code 75 and the outcome that makes the operator prepare again."""
    code, words, _ = pod(job()).start("train").end()
    assert (code, words.outcome) == (75, "PreparedDataStale")


def test_a_worker_that_is_killed_is_reported(pod: Callable[..., Pod], storage: Path) -> None:
    """SIGKILL leaves no word; the launcher has one."""
    write_jsonl(storage / "data.jsonl", alpaca_rows())
    running = pod(job()).start("prepare")
    running.wait_until(lambda _report: True)
    os.kill(running.worker(), signal.SIGKILL)
    code, words, _ = running.end()
    assert (code, words.outcome) == (137, "Infrastructure")
    assert "killed by SIGKILL" in words.message


def test_a_job_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Even then there are last words."""
    (tmp_path / "job.json").write_text("{}")
    options = ["--config", tmp_path, "--volumes", tmp_path, "--termination-log", tmp_path / "words"]
    command = [sys.executable, "-m", "anneal_trainer", "prepare", *map(str, options)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 78
    words = TerminationMessage.decode((tmp_path / "words").read_text())
    assert words is not None
    assert "the job file of this pod cannot be used" in words.message


def test_a_pod_that_is_stopped_while_it_loads_ends_at_once(tmp_path: Path) -> None:
    """PID 1 gets no signal that it does not handle; it would hold its GPUs for the whole grace period."""
    slow = tmp_path / "anneal_api"
    slow.mkdir()
    # What takes long to import, for ever.
    (slow / "__init__.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(anneal_trainer.__file__).parents[1]}"}
    command = [sys.executable, "-m", "anneal_trainer", "train"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == TEMPORARY
