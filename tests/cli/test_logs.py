"""`anneal logs`: the right pods' output, live and afterwards, and where the log is when the pods are gone."""

import copy
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from anneal_api import exitcodes
from anneal_cli.__main__ import app

if TYPE_CHECKING:
    from cli.conftest import ApiServer

JOB: dict[str, Any] = {
    "metadata": {"name": "bot", "namespace": "team", "uid": "u-1", "generation": 1},
    "spec": {"model": {"source": "hf://a/b"}, "datasets": []},
    "status": {
        "message": "Waiting for a node.",
        "conditions": [],
        "attempts": [
            {
                "number": 1,
                "startTime": "2026-01-02T09:00:00Z",
                "endTime": "2026-01-02T10:00:00Z",
                "log": "volume://runs/runs/b/1.log",
            }
        ],
    },
}


def job(*, ended: bool = True, **status: Any) -> dict[str, Any]:
    """The job, ended or not, with parts of its status replaced."""
    changed = copy.deepcopy(JOB)
    conditions = [
        {"type": "Succeeded", "status": str(ended), "reason": "Completed", "lastTransitionTime": "2026-01-02T10:00:00Z"}
    ]
    changed["status"] |= {"conditions": conditions, **status}
    return changed


def pod(name: str, *, role: str = "trainer", attempt: int = 1, rank: int = 0, state: str = "running") -> dict[str, Any]:
    """A pod of the job whose container is in `state`."""
    labels = {
        "anneal.dev/owner-uid": "u-1",
        "anneal.dev/role": role,
        "anneal.dev/attempt": str(attempt),
        "training.kubeflow.org/replica-index": str(rank),
    }
    return {
        "metadata": {"name": name, "uid": name, "labels": labels, "creationTimestamp": f"2026-01-0{attempt}T00:00:00Z"},
        "status": {"containerStatuses": [{"state": {state: {}}}]},
    }


def logs(server: "ApiServer", *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `anneal logs bot`."""
    result = CliRunner().invoke(app, ["logs", "bot", *arguments, "--kubeconfig", str(server.kubeconfig)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def pods(api_server: "ApiServer") -> "ApiServer":
    """A job with a prepare pod, one pod of attempt 1, and two of attempt 2; and a pod of another job."""
    api_server.put_job(job())
    api_server.put_pod(pod("prep", role="prepare"), "read 10 rows\n")
    api_server.put_pod(pod("one"), "step 1\n")
    api_server.put_pod(pod("two-b", attempt=2, rank=1, state="terminated"), "step 2b\n")
    api_server.put_pod(pod("two-a", attempt=2, state="terminated"), "step 2a\nstep 3a")
    for name in ("serve-b", "serve-a"):
        api_server.put_pod(pod(name, role="rollout"), f"{name} draws\n")
    foreign = pod("foreign", attempt=9)
    foreign["metadata"]["labels"]["anneal.dev/owner-uid"] = "u-9"
    api_server.put_pod(foreign, "not ours\n")
    return api_server


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param([], "[0] step 2a\n[0] step 3a\n[1] step 2b\n", id="last-attempt"),
        pytest.param(["--attempt", "1"], "step 1\n", id="attempt"),
        pytest.param(["--prepare"], "read 10 rows\n", id="prepare"),
        pytest.param(["--servers"], "[0] serve-a draws\n[1] serve-b draws\n", id="servers"),
    ],
)
def test_the_wanted_pods_are_printed(pods: "ApiServer", arguments: list[str], expected: str) -> None:
    """The last attempt's ranks by default, prefixed if several; or what was asked for; never another job's."""
    assert logs(pods, *arguments) == (0, expected, "")


def test_the_prepare_pod_is_shown_while_there_is_no_attempt(api_server: "ApiServer") -> None:
    """Before training, the default is the pod that is at work."""
    api_server.put_job(job(ended=False))
    api_server.put_pod(pod("prep", role="prepare"), "read 10 rows\n")
    assert logs(api_server)[1] == "read 10 rows\n"


def test_following_prints_all_pods_and_ends_with_the_job(pods: "ApiServer") -> None:
    """-f of a finished job prints every rank of the last attempt once and ends."""
    code, out, _ = logs(pods, "-f")
    assert code == 0
    assert sorted(out.splitlines()) == ["[0] step 2a", "[0] step 3a", "[1] step 2b"]


@pytest.mark.parametrize(
    ("stored", "arguments", "expected"),
    [
        pytest.param(job(), [], "the pods of attempt 1 are gone; its log is kept at volume://runs/runs/b/1.log", id="gone"),
        pytest.param(job(), ["--attempt", "3"], "no attempt 3; the last one is 1", id="no-such-attempt"),
        pytest.param(job(attempts=[]), ["--attempt", "3"], "no attempt 3; none has begun", id="no-attempt"),
        pytest.param(job(attempts=[]), [], "no pod yet: Waiting for a node.", id="no-pod"),
        pytest.param(job(), ["--servers"], "the job has no servers of its own", id="no-servers"),
        pytest.param(
            job(dataset={"preparedBy": "first"}), ["--prepare"], "`anneal logs first --prepare`", id="prepared-by-another"
        ),
    ],
)  # fmt: skip
def test_without_pods_it_says_where_to_look(
    api_server: "ApiServer", stored: dict[str, Any], arguments: list[str], expected: str
) -> None:
    """When there is no output, one line says why or where it is kept."""
    api_server.put_job(stored)
    api_server.objects["/api/v1/namespaces/team/pods"] = {"items": []}
    for follow in ([], ["-f"]):
        code, out, said = logs(api_server, *arguments, *follow)
        assert (code, out) == (exitcodes.NO_INPUT, "")
        assert expected in said


def test_a_pod_that_has_not_started_is_said(api_server: "ApiServer") -> None:
    """A waiting pod has no output; the job's own sentence says what it waits for."""
    api_server.put_job(job(ended=False))
    api_server.put_pod(pod("one", state="waiting"), "")
    code, _, said = logs(api_server)
    assert code == exitcodes.NO_INPUT
    assert "no pod has started yet: Waiting for a node." in said


def test_prepare_and_attempt_exclude_each_other(api_server: "ApiServer") -> None:
    """--prepare with --attempt is a usage error before anything is asked of a cluster."""
    code, _, said = logs(api_server, "--prepare", "--attempt", "1")
    assert code == 2
    assert "write one of them" in said
    assert api_server.requests == []
