"""`anneal run` without its command line: what it prints, and the exit codes that it ends with."""

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anneal_api import Layout, Outcome, ProgressReport, TerminationMessage
from anneal_api.exitcodes import DATA, NO_INPUT
from anneal_api.status import Output
from anneal_trainer import console, launcher, local
from anneal_trainer.samples import Sample
from trainer.aligning import alignment_job
from trainer.prompting import asking_rows, online_job
from trainer.training import CLAIM, job, losses, write_jsonl


def test_a_run_ends_with_a_summary(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the adapter is, the loss from start to end, the holdout, and answers before and after."""
    made = job(evaluation={"holdout": {"count": 6}, "samples": [{"prompt": "Say red 2 times"}], "maxSampleTokens": 8})
    assert local.run(made, {CLAIM: storage}) == 0
    said = capsys.readouterr().err
    found = losses(storage)
    assert f"Adapter  {storage}/runs/job/output" in said
    assert f"Loss     {found[0]:.3f} → {found[-1]:.3f} in 6 steps" in said
    assert "Prompt   Say red 2 times\n  before " in said
    assert "\nHoldout  " in said
    assert "on cpu, " in said


def test_a_job_without_storage_is_kept_in_a_directory_of_its_own(storage: Path, tmp_path: Path) -> None:
    """Local sources need no claim at all."""
    made = job(
        model={"source": str(storage / "model")},
        datasets=[{"source": str(storage / "data.jsonl")}],
        storage=None,
        training={"maxSteps": 1},
    )
    assert local.run(made, {}, default_storage=tmp_path / "kept", quiet=True) == 0
    assert (tmp_path / "kept/runs/job/output/adapter_model.safetensors").exists()


def test_rewards_of_a_config_map_come_from_a_directory(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary shows what was drawn; a bug in one ends the run with its traceback, as a cluster's job."""
    (storage / "mine").mkdir()
    source = storage / "mine/rewards.py"
    source.write_text("def reward(completions, answer): return [float(len(text)) for text in completions]")
    write_jsonl(storage / "prompts.jsonl", asking_rows())
    function = {"name": "mine", "function": {"configMap": "my-rewards"}}
    made = online_job(rewards=[function], rollout={"mode": "generate"}, training={"maxSteps": 1})
    modules = {"my-rewards": storage / "mine"}
    assert local.run(made, {CLAIM: storage}, reward_modules=modules) == 0
    said = capsys.readouterr().err
    assert said.count("\nDrawn    reward ") == 3
    assert "\nReward   " in said
    assert "\nLoss" not in said
    source.write_text("def reward(completions, answer): return [answer[99]]")
    assert local.run(made, {CLAIM: storage}, reward_modules=modules, again=True) == DATA
    assert f'File "{source}", line 1, in reward' in capsys.readouterr().err
    assert local.run(made, {CLAIM: storage}) == NO_INPUT
    assert (
        "no directory is given for the ConfigMap my-rewards: add --config-map my-rewards=DIR" in capsys.readouterr().err
    )


def test_two_at_once_do_not_share_a_run(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused while the first lives, whoever that is; after it, the run is free again."""
    (storage / "runs/job").mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(storage / "runs/job/run.lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert local.run(job(), {CLAIM: storage}) == 78
        assert "error: job job is running in" in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()
    assert local.run(job(training={"maxSteps": 1}), {CLAIM: storage}, quiet=True) == 0


def test_a_finished_job_that_is_run_again_says_so(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is trained again where that is asked for, or its result is gone; what each run left is kept."""
    made, output = job(training={"maxSteps": 1}), storage / "runs/job/output"
    assert local.run(made, {CLAIM: storage}) == 0
    before = (output / "adapter_model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert local.run(made, {CLAIM: storage}) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"job has been run to its end already; its result: {output}",
        "to train it again, as with other data under the same names: anneal run --again",
    ]
    assert (output / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert local.run(made, {CLAIM: storage}, again=True) == 0
    said = capsys.readouterr().err
    assert "note: the earlier run here had the same manifest: this one starts anew; what it left is kept in " in said
    assert "runs/job/previous (checkpoints, logs, samples: remove it when it is not needed); its result stays" in said
    assert (output / "adapter_model.safetensors").stat().st_mtime_ns > before
    shutil.rmtree(output)
    assert local.run(made, {CLAIM: storage}, quiet=True) == 0
    assert output.exists()
    kept = [storage / "runs/job" / name / "checkpoints/checkpoint-1" for name in ("previous", "previous-2")]
    assert all(path.is_dir() for path in kept)


def test_an_answer_cannot_act_on_the_terminal() -> None:
    """An untrained model says anything, control characters among it."""
    assert console._shown(Sample("p", "a\x1b[31mb\x04\n c\x15")) == "a�[31mb� c�"


def test_an_answer_of_nothing_is_said() -> None:
    """An empty line would look like a fault of the summary."""
    assert console._shown(Sample("p", "")) == "(nothing)"


@pytest.mark.parametrize(
    ("rows", "volumes", "code", "words"),
    [
        pytest.param([{"question": "a"}], True, 65, "error: volume://runs/data.jsonl: no type fits", id="data"),
        pytest.param(
            [], False, 66, "error: no directory is given for the claim 'runs': add --volume runs=DIR", id="claim"
        ),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    storage: Path, capsys: pytest.CaptureFixture[str], *, rows: list[Any], volumes: bool, code: int, words: str
) -> None:
    """No traceback; the trainer's exit code."""
    write_jsonl(storage / "data.jsonl", rows)
    assert local.run(job(), {CLAIM: storage} if volumes else {}) == code
    assert words in capsys.readouterr().err


def test_several_gpus_go_through_the_launcher(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as GPUs that are here and asked for; the batch is shared by a divisor of it."""
    import torch

    asked: list[int] = []

    def launch(_command: str, context: Any, *, port: int) -> TerminationMessage:
        asked.append(context.processes)
        assert port == 0, "two runs on one machine must not meet"
        return TerminationMessage(outcome=Outcome.INFRASTRUCTURE, message="as told", exit_code=1)

    monkeypatch.setattr(launcher, "launch", launch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for gpus in (2, 4):
        assert local.run(job(compute={"gpusPerNode": gpus}), {CLAIM: storage}, quiet=True) == 1
    assert asked == [2, 2]


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (ProgressReport(), ""),
        (
            ProgressReport(loss=1.23456, tokens_per_second=2310.4, eta_seconds=3725.0),
            "loss 1.235 · 2,310 tokens/s · 1:02:05 left",
        ),
        (ProgressReport(loss=1.0, eval_loss=2.0), "loss 1.000 · eval 2.000"),
        (ProgressReport(loss=1.0, metrics={"accuracy": 0.625, "mean": 3.0}), "loss 1.000 · accuracy 0.62"),
        (
            ProgressReport(loss=1.0, metrics={"rewards/margins": 0.5, "rewards/accuracies": 1.0, "nll": 2.0}),
            "loss 1.000 · margin 0.50 · accuracy 1.00",
        ),
        (
            ProgressReport(loss=1.0, metrics={"rewards/margins": 0.5, "rewards/accuracies": 1.0, "kl": 0.1}),
            "loss 1.000 · margin 0.50 · kl 0.10",
        ),
    ],
    ids=["nothing yet", "training", "evaluated", "judging", "pairs", "kto"],
)
def test_facts_are_told_as_far_as_known(report: ProgressReport, text: str) -> None:
    """The line beside the bar."""
    assert console.facts(report) == text


def test_a_summary_of_alignment_says_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the first step to the last, and the same of the holdout."""
    layout = Layout(tmp_path, "runs/job-rlhf")
    write_jsonl(
        layout.logs / "metrics.jsonl",
        [{"step": 0, "eval_accuracy": 0.5}, {"step": 1, "accuracy": 0.625}, {"step": 2, "accuracy": 0.9}],
    )
    words = TerminationMessage(
        outcome=Outcome.SUCCEEDED,
        message="",
        exit_code=0,
        metrics={"accuracy": 1.0, "eval_accuracy": 0.75},
        outputs=[Output(kind="model", uri="volume://runs/a", digest="sha256:0")],
    )
    console.summary(words, layout, 1.0)
    assert "\nMeasured accuracy 0.62 → 1.00 (holdout 0.50 → 0.75)\n" in capsys.readouterr().err


def test_a_summary_of_drawn_answers_says_what_became_of_each_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not of a loss, which is about nothing there; what the run warns of is not lost among its lines."""
    layout = Layout(tmp_path, "runs/job-rlhf")
    first = {"reward": 0.25, "rewards/right": 0.125, "rewards/right/seconds": 0.1, "completions/mean_length": 9.0}
    failed = {"rewards/form/seconds": 0.1, "rewards/form/failures": 4.0}
    last = {**first, **failed, "reward": 0.5, "rewards/right": 1.0, "eval_rewards/right": 0.75}
    write_jsonl(layout.logs / "metrics.jsonl", [{"step": 0, "eval_rewards/right": 0.5}, {"step": 1, **first, **failed}])
    words = TerminationMessage(
        outcome=Outcome.SUCCEEDED,
        message="trained 2 steps; nothing was learnt",
        exit_code=0,
        total_steps=2,
        first_loss=-0.0,
        loss=0.0,
        metrics=last,
        outputs=[Output(kind="model", uri="volume://runs/a", digest="sha256:0")],
    )
    console.summary(words, layout, 1.0)
    said = capsys.readouterr().err
    assert (
        "\nReward   0.25 → 0.50 in 2 steps\n"
        "  right 0.12 → 1.00 (holdout 0.50 → 0.75)\n"
        "  form judged none, failed at times\n"
        "Warning  nothing was learnt\n"
        "Measured length 9.00 → 9.00\n"
    ) in said
    assert "Loss" not in said


def test_jobs_of_two_kinds_may_have_one_name(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a directory of its own; one whose directory is another job's by chance is refused."""
    made = alignment_job("reward", "chat")
    (storage / "pairs.jsonl").unlink(missing_ok=True)
    assert local.run(job("chat", training={"maxSteps": 1}), {CLAIM: storage}, quiet=True) == 0
    before = (storage / "runs/chat/run.json").read_bytes()
    assert local.run(made, {CLAIM: storage}) != 0
    assert (storage / "runs/chat-rlhf/run.json").exists()
    assert (storage / "runs/chat/run.json").read_bytes() == before
    capsys.readouterr()
    assert local.run(job("chat-rlhf"), {CLAIM: storage}) == 78
    assert "holds the run of the RLHFJob chat: give this job another metadata.name" in capsys.readouterr().err


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal: the phases once, and training every ten seconds."""
    lines = console.Lines()
    for step in range(50):
        lines(ProgressReport(phase="training", step=step, total_steps=50, loss=math.pi))
    assert len(capsys.readouterr().err.splitlines()) <= 2
