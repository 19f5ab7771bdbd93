"""`anneal status`: what the operator recorded, readable; against a real HTTP server that stands in for the API server."""

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from anneal_api import exitcodes
from anneal_api.datasetreport import DatasetReport
from anneal_cli.__main__ import app
from anneal_cli.data_view import data_lines

if TYPE_CHECKING:
    from cli.conftest import ApiServer


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    """A condition that changed at ten."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T10:00:00Z",
        "observedGeneration": 1,
    }


RUNNING: dict[str, Any] = {
    "apiVersion": "anneal.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {
        "name": "support-bot",
        "namespace": "team",
        "uid": "u-1",
        "generation": 1,
        "creationTimestamp": "2026-01-02T09:58:00Z",
    },
    "spec": {"method": "sft", "model": {"source": "hf://org/model"}, "datasets": [{"source": "hf://org/rows"}]},
    "status": {
        "observedGeneration": 1,
        "phase": "Running",
        "message": "Training: step 120 of 1000.",
        "gpus": 2,
        "pool": "h100",
        "gpuHours": 1.5,
        "device": "NVIDIA H100",
        "memory": {
            "estimatedGiB": 44.0,
            "gpuGiB": 80,
            "fits": True,
            "microBatchSize": 4,
            "tuned": True,
            "peakGiB": 41.25,
        },
        "attempt": 2,
        "conditions": [
            condition("Accepted", "True", "Valid"),
            condition("Running", "True", "Training", "rank 0 reports every 10 s"),
        ],
        "progress": {
            "phase": "training",
            "step": 120,
            "totalSteps": 1000,
            "steps": "120/1000",
            "percent": 12.0,
            "epoch": 0.24,
            "loss": 1.2345,
            "lossText": "1.235",
            "evalLoss": 1.4,
            "learningRate": 0.0002,
            "tokensPerSecond": 12345.6,
            "eta": "1h20m",
            "lastReportTime": "2026-01-02T10:00:00Z",
        },
        "attempts": [
            {
                "number": 1,
                "startTime": "2026-01-02T09:58:10Z",
                "runningTime": "2026-01-02T09:58:20Z",
                "endTime": "2026-01-02T09:59:00Z",
                "outcome": "Preempted",
                "exitCode": 75,
                "node": "gpu-1",
                "lastStep": 60,
                "message": "evicted by the scheduler",
                "log": "volume://runs/runs/support-bot-1/logs/attempt-1.log",
            },
            {
                "number": 2,
                "startTime": "2026-01-02T09:59:10Z",
                "resumedFromStep": 50,
                "lastStep": 120,
                "node": "gpu-2",
            },
        ],
        "dataset": {
            "rows": 10000,
            "used": 9900,
            "evalRows": 100,
            "tokens": 1234567,
            "trainedTokens": 345678,
            "longest": 900,
            "truncated": 3,
            "types": ["chat_template"],
            "warnings": [{"reason": "RowsTruncated", "message": "rows that are cut: 3 of 1,000", "rows": 3}],
        },
        "outputs": [{"kind": "adapter", "uri": "volume://runs/runs/support-bot-1/output"}],
        "children": {"claim": "runs"},
    },
}
NEW: dict[str, Any] = {**RUNNING, "metadata": {**RUNNING["metadata"], "name": "new", "uid": "u-2"}, "status": None}


def status(server: "ApiServer", *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `anneal status`."""
    result = CliRunner().invoke(app, ["status", *arguments, "--kubeconfig", str(server.kubeconfig)])
    return result.exit_code, result.stdout, result.stderr


def without_ages(text: str) -> str:
    """The text with runs of blanks made one, so that only words are compared."""
    return re.sub(r" +", " ", text)


def test_a_job_is_shown_with_everything_that_is_recorded(api_server: "ApiServer") -> None:
    """One job shows phase, sentence, progress, conditions, attempts, data and results."""
    api_server.put_job(RUNNING)
    code, out, _ = status(api_server, "support-bot")
    shown = without_ages(out)
    assert code == 0
    for expected in (
        "team/support-bot: Running\n Training: step 120 of 1000.",
        "GPUs 2 (pool h100)",
        "GPU-hours 1.5",
        "Memory 44.0 GiB estimated, of 80.0 GiB a GPU; microBatchSize 4 was chosen; peak 41.2 GiB",
        "Progress 120/1000 (12%)",
        "Loss 1.235",
        "Holdout loss 1.4",
        "Learning rate 2.00e-04",
        "Tokens/s 12,346",
        "Time left 1h20m",
        "Running True Training",
        "rank 0 reports every 10 s",
        "1 Preempted 40s 0-60 75 gpu-1 evicted by the scheduler",
        "50-120",
        "Data 9,900 of 10,000 rows trained on, 100 held out",
        "Tokens 1,234,567, 345,678 of them trained (28.0%)",
        "Warning rows that are cut: 3 of 1,000",
        "Adapter volume://runs/runs/support-bot-1/output",
        "anneal logs support-bot -n team",
    ):
        assert expected in shown, out


def test_of_prompts_no_trained_tokens_are_told() -> None:
    """Their answers are trained; nought of them would look like a mistake."""
    lines = [line.split() for line in data_lines(DatasetReport(rows=24, used=24, tokens=270))]
    assert ["Tokens", "270"] in lines


@pytest.mark.parametrize("recorded", [None, {}, {"observedGeneration": -1}], ids=["none", "empty", "default"])
def test_a_job_that_no_operator_has_seen_is_shown(api_server: "ApiServer", recorded: dict[str, Any] | None) -> None:
    """A job without status is not an error: it says that the operator has not seen it, and nothing else."""
    api_server.put_job({**NEW, "status": recorded})
    code, out, _ = status(api_server, "new")
    assert code == 0
    assert out.startswith("team/new: not seen by the operator yet\n\nAge")


def test_a_change_that_was_not_observed_is_said(api_server: "ApiServer") -> None:
    """A status of an older generation is marked as such."""
    api_server.put_job({**RUNNING, "metadata": {**RUNNING["metadata"], "generation": 2}})
    assert "The manifest has changed since" in status(api_server, "support-bot")[1]


def test_all_jobs_are_a_table(api_server: "ApiServer") -> None:
    """Without a name every job of the context's namespace is a line, those without status too."""
    api_server.put_job(RUNNING)
    api_server.put_job(NEW)
    code, out, _ = status(api_server)
    lines = [without_ages(line) for line in out.splitlines()]
    assert code == 0
    assert lines[0] == "NAME METHOD PHASE STEP LOSS ETA GPUS AGE MESSAGE"
    assert lines[1].startswith("support-bot sft Running 120/1000 1.235 1h20m 2 ")
    assert lines[2].startswith("new sft ")


def test_every_namespace_can_be_listed(api_server: "ApiServer") -> None:
    """-A lists all namespaces and names them."""
    api_server.objects["/apis/anneal.dev/v1alpha1/finetunejobs"] = {"items": [RUNNING]}
    _, out, _ = status(api_server, "-A")
    assert without_ages(out.splitlines()[1]).startswith("team support-bot sft")


def test_no_jobs_is_said_on_standard_error(api_server: "ApiServer") -> None:
    """An empty namespace prints no table, so that a script reads nothing."""
    api_server.objects["/apis/anneal.dev/v1alpha1/namespaces/team/finetunejobs"] = {"items": []}
    assert status(api_server) == (0, "", "no jobs in namespace 'team'\n")


def test_json_is_the_object_as_it_is_stored(api_server: "ApiServer") -> None:
    """-o json prints the object, unknown fields included."""
    job = {**RUNNING, "status": {**RUNNING["status"], "newerField": 1}}
    api_server.put_job(job)
    assert json.loads(status(api_server, "support-bot", "-o", "json")[1]) == job
    assert json.loads(status(api_server, "-o", "json")[1])["items"] == [job]


@pytest.mark.parametrize(
    ("answer", "code", "expected"),
    [
        pytest.param(None, exitcodes.NO_INPUT, "no job 'x' in namespace 'team'", id="missing"),
        pytest.param((403, "jobs is forbidden"), exitcodes.CONFIG, "refused: jobs is forbidden", id="forbidden"),
        pytest.param((503, "shutting down"), exitcodes.TEMPORARY, "refused: shutting down", id="unavailable"),
    ],
)
def test_a_refusal_is_one_line_with_the_servers_words(
    api_server: "ApiServer", answer: tuple[int, str] | None, code: int, expected: str
) -> None:
    """What the API server refuses is one line, and the exit code says whether to try again."""
    api_server.objects["/apis/anneal.dev/v1alpha1/namespaces/team/finetunejobs/x"] = answer
    found, _, said = status(api_server, "x")
    assert (found, said.count("\n")) == (code, 1)
    assert expected in said


def test_an_unreachable_server_is_temporary(api_server: "ApiServer") -> None:
    """A server that does not answer is one line with its address, and worth another try."""
    text = api_server.kubeconfig.read_text()
    api_server.kubeconfig.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text))
    code, _, said = status(api_server)
    assert code == exitcodes.TEMPORARY
    assert said == "error: no answer from http://127.0.0.1:1: [Errno 111] Connection refused\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["--kubeconfig", "/does/not/exist"], "no cluster to talk to", id="no-file"),
        pytest.param(["--context", "nowhere"], "nowhere", id="no-context"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_said(api_server: "ApiServer", options: list[str], expected: str) -> None:
    """A missing file or context is one line and the exit code for configuration."""
    arguments = ["status", "--kubeconfig", str(api_server.kubeconfig), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exitcodes.CONFIG
    assert expected in result.stderr


def test_a_namespace_option_wins_over_the_context(api_server: "ApiServer") -> None:
    """-n asks in that namespace."""
    status(api_server, "x", "-n", "other")
    place = "/apis/anneal.dev/v1alpha1/namespaces/other"
    assert api_server.requests == [f"{place}/finetunejobs/x", f"{place}/rlhfjobs/x"]


def test_a_name_of_both_kinds_is_told_apart(api_server: "ApiServer") -> None:
    """KIND/NAME says which; the plain name is ambiguous, and the sentence says what to write."""
    place = "/apis/anneal.dev/v1alpha1/namespaces/team"
    api_server.put_job(RUNNING)
    name = RUNNING["metadata"]["name"]
    other = {**RUNNING, "kind": "RLHFJob", "spec": {**RUNNING["spec"], "method": "dpo"}}
    api_server.objects[f"{place}/rlhfjobs/{name}"] = other
    code, _, said = status(api_server, name)
    assert code == exitcodes.USAGE
    assert f"write ftj/{name} or rlhf/{name}" in said
    assert "dpo" in status(api_server, f"rlhf/{name}")[1]
    assert "sft" in status(api_server, f"finetunejob/{name}")[1]


def test_an_alignment_job_shows_what_it_measures(api_server: "ApiServer") -> None:
    """Metrics of the step and of the holdout side by side, the latest answers, and what its source stands for."""
    progress = {
        "step": 40,
        "totalSteps": 100,
        "metrics": {"rewards/margins": 0.53, "eval_rewards/margins": 0.41, "kl": 0.02},
        "samples": [{"prompt": "Say it", "answer": "YES", "step": 40}],
    }
    pin = {
        "source": "job://finetunejob/sft",
        "uid": "u-0",
        "base": "hf://org/model",
        "adapters": [{"uri": "volume://runs/sft", "digest": "sha256:0"}],
    }
    api_server.put_job({**RUNNING, "status": {**RUNNING["status"], "progress": progress, "sources": [pin]}})
    _, shown, _ = status(api_server, RUNNING["metadata"]["name"])
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "rewards/margins 0.53 0.41" in lines
    assert "kl 0.02" in lines
    assert "At step 40 Say it → YES" in lines
    assert any("job://finetunejob/sft is hf://org/model + volume://runs/sft" in line for line in lines)


ONLINE = {
    "step": 40,
    "totalSteps": 100,
    "steps": "40/100",
    "lossText": "0.012",
    "rewardText": "0.625",
    "metrics": {
        "reward": 0.625, "reward_std": 0.31, "eval_reward": 0.75, "rewards/unjudged": 0, "time/reward": 0.5,
        "rewards/right": 0.5, "rewards/right/std": 0.5, "rewards/right/failures": 0, "rewards/right/seconds": 0.4,
        "eval_rewards/right": 0.7, "rewards/form": 0.25, "rewards/form/failures": 2, "rewards/form/seconds": 0.01,
        "rollout/version": 39, "rollout/staleness": 1, "rollout/sync_seconds": 0.8, "rollout/sync_bytes": 1572864,
        "time/generate": 12.25, "time/train": 3, "kl": 0.02, "eval_completions/mean_length": 12,
    },
    "completions": [
        {"prompt": "Say\nred", "answer": "red\u001b[2J", "reward": 1, "step": 40},
        {"prompt": "Say it", "answer": "", "step": 40},
    ],
}  # fmt: skip


def test_rewards_are_a_table_and_the_latest_answers_are_shown(api_server: "ApiServer") -> None:
    """The sum, then each reward; servers and times in a line each; what a model says cannot steer a terminal."""
    api_server.put_job({**RUNNING, "kind": "RLHFJob", "status": {**RUNNING["status"], "progress": ONLINE}})
    _, shown, _ = status(api_server, RUNNING["metadata"]["name"])
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "Reward 0.625" in lines
    assert lines[lines.index("REWARD MEAN SPREAD HOLDOUT FAILED SECONDS") :][1:4] == [
        "(sum) 0.625 0.31 0.75 0 0.5",
        "right 0.5 0.5 0.7 0 0.4",
        "form 0.25 2 0.01",
    ]
    assert "Rollout version 39, staleness 1, sync 0.8s, sync 1.5 MiB" in lines
    assert "Step's time reward 0.5s, generate 12.2s, train 3s" in lines
    assert lines[lines.index("METRIC STEP HOLDOUT") :][1:3] == ["kl 0.02", "completions/mean_length 12"]
    assert "Step 40, reward 1.000 Say red → red\ufffd[2J" in lines
    assert "Step 40, no reward Say it → (nothing)" in lines
    _, listed, _ = status(api_server)
    header, row = (line.split() for line in listed.splitlines())
    assert row[header.index("REWARD")] == "0.625"


QUEUES = {
    "waiting": (
        {"name": "team-a", "since": "2026-01-02T09:58:30Z", "position": 3, "ahead": ["older", "oldest"]},
        r"Queue team-a, waiting for \S+, place 3, behind older, oldest",
    ),
    "not looked at": ({"name": "team-a"}, r"Queue team-a\n"),
    "admitted": (
        {
            "name": "team-a", "clusterQueue": "gpus", "quotaReserved": True, "since": "2026-01-02T09:58:30Z",
            "flavors": {"cpu": "h100", "nvidia.com/gpu": "h100"},
        },
        r"Queue team-a \(gpus, h100\), with quota for \S+",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("queue", "line"), QUEUES.values(), ids=QUEUES)
def test_where_a_job_stands_in_its_queue_is_shown(api_server: "ApiServer", queue: dict[str, Any], line: str) -> None:
    """How long, at which place, behind whom; or in which flavor of nodes it has its quota."""
    api_server.put_job({**RUNNING, "status": {**RUNNING["status"], "queue": queue}})
    _, out, _ = status(api_server, "support-bot")
    assert re.search(line, without_ages(out)), out
