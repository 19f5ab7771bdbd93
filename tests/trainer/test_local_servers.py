"""Servers that the trainer starts itself: where a job draws, how they are kept running, and what is told if they fail.

What stands in for vLLM here answers /health alone, so that starting and dying takes no minute; the real one is in
`test_learn_from_servers`.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anneal_api.meta import ENV_ROLLOUT_HOST, ENV_VLLM_PYTHON
from anneal_api.rlhfjob import RLHFJob, RLHFSpec
from anneal_trainer import local
from anneal_trainer.errors import ConfigError, RolloutError
from anneal_trainer.rollout import where
from anneal_trainer.rollout.local import LocalServer, Place, ports
from trainer.aligning import alignment_context
from trainer.prompting import asking_rows, online_job
from trainer.training import CLAIM, records, write_jsonl
from trainer.vllms import until

# Answers /health until a file beside it says that it shall end, or at once with `fails`.
_STAND_IN = f"""#!{sys.executable}
import os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

here = Path(__file__).parent
if (here / "fails").exists():
    sys.exit("no GPU in sight\\nRuntimeError: nothing works")
# As vLLM's, which one that is killed leaves.
(Path(os.environ["VLLM_RPC_BASE_PATH"]) / str(os.getpid()).zfill(36)).touch()
with (here / "starts").open("a") as starts:
    starts.write("x")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
server = HTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while not (here / "ends").exists():
    time.sleep(0.05)
(here / "ends").unlink()
sys.exit(3)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """What is started in place of a Python with vLLM."""
    path = tmp_path / "program/python"
    path.parent.mkdir()
    path.write_text(_STAND_IN)
    path.chmod(0o755)
    return path


def spec_of(made: RLHFJob, storage: Path) -> RLHFSpec:
    """Resolved, as for a server of this machine without GPUs."""
    spec = alignment_context(storage, made).spec
    assert isinstance(spec, RLHFSpec)
    return where.as_here(spec, gpu=False)


def server_of(tmp_path: Path, program: Path) -> LocalServer:
    """A server by that program."""
    spec = spec_of(online_job(rollout={"mode": "server"}), tmp_path)
    return LocalServer(spec, Place(str(program), tmp_path / "model", tmp_path / "logs/vllm-0.log", tmp_path / "ports"))


def test_the_log_begins_with_what_starts_the_same_by_hand(tmp_path: Path, program: Path) -> None:
    """A command for a shell, with what the server needs in its environment."""
    with server_of(tmp_path, program) as server:
        server.wait(say=print)
        (port,) = ports(tmp_path / "ports")
        begin = (tmp_path / "logs/vllm-0.log").read_text().splitlines()[0].removeprefix("$ ")
    words = shlex.split(begin)
    assert words[0] == "env"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in words
    assert words[words.index(str(program)) :][1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert {f"--port={port}", f"--model={tmp_path / 'model'}", "--enable-lora"} <= set(words)


def test_a_server_that_ends_is_started_again(tmp_path: Path, program: Path) -> None:
    """It is not found meanwhile, and is again when it answers; at the end of the block it is gone."""
    with server_of(tmp_path, program) as server:
        server.wait(say=print)
        (first,) = ports(tmp_path / "ports")
        (program.parent / "ends").touch()
        until(lambda: ports(tmp_path / "ports") not in ([], [first]))
        server.check()
        log = tmp_path / "logs/vllm-0.log"
        assert server.told() == f"vLLM ended with exit code 3, and is being started (its log: {log})"
    assert ports(tmp_path / "ports") == []
    assert (program.parent / "starts").read_text() == "xx"


def test_a_server_that_cannot_start_is_told_with_its_last_words(tmp_path: Path, program: Path) -> None:
    """A user's error: the next attempt would meet the same."""
    (program.parent / "fails").touch()
    with server_of(tmp_path, program) as server, pytest.raises(ConfigError) as raised:
        server.wait(say=print)
    assert "exit code 1 before it was ready" in str(raised.value)
    assert "no GPU in sight\nRuntimeError: nothing works\n" in str(raised.value)
    assert "rollout.mode: generate" in str(raised.value)


def test_a_server_that_never_comes_back_ends_the_attempt(tmp_path: Path, program: Path) -> None:
    """It served before, so that another attempt may find it well."""

    def failure(server: LocalServer) -> RolloutError | None:
        try:
            server.check()
        except RolloutError as error:
            return error
        return None

    with server_of(tmp_path, program) as server:
        server.wait(say=print)
        (program.parent / "fails").touch()
        (program.parent / "ends").touch()
        until(lambda: failure(server) is not None)
        assert "RuntimeError: nothing works" in str(failure(server))


def test_a_server_that_cannot_be_started_again_here_ends_the_attempt(tmp_path: Path, program: Path) -> None:
    """Whatever it is, a full disk say: the thread that keeps it has nobody else to tell."""
    with server_of(tmp_path, program) as server:
        server.wait(say=print)
        log = tmp_path / "logs/vllm-0.log"
        log.rename(log.with_name("moved"))
        log.mkdir()
        (program.parent / "ends").touch()
        until(lambda: not server._thread.is_alive())
        with pytest.raises(RolloutError, match=r"^vLLM ended with exit code 3, and cannot be started again: .*vllm-0"):
            server.check()


@pytest.mark.parametrize("temporary", ["t", "t" * 100], ids=["short", "long"])
def test_a_server_that_is_killed_leaves_no_sockets(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    """They have a directory of their own, which goes with the block; its path is short wherever TMPDIR is."""
    (tmp_path / temporary).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / temporary))
    monkeypatch.setattr("anneal_trainer.rollout.local._LONGEST_PATH", len(str(tmp_path / "t/vllm-12345678")))
    with server_of(tmp_path, program) as server:
        server.wait(say=print)
        assert server._process is not None
        assert server._sockets is not None
        directory = Path(server._sockets.name)
        assert directory.parent == (tmp_path / "t" if temporary == "t" else Path("/tmp"))
        server._process.kill()
        until(lambda: len(list(directory.iterdir())) == 2)
    assert not directory.exists()


def test_starting_is_told_at_its_end(tmp_path: Path, program: Path) -> None:
    """And each minute before: nobody wants to read of every look."""
    said: list[str] = []
    with server_of(tmp_path, program) as server:
        server.wait(say=said.append)
    assert [line.rstrip("0123456789 s") for line in said] == ["vLLM is ready after"]


def test_a_killed_trainer_leaves_no_server(tmp_path: Path, program: Path) -> None:
    """The kernel ends it."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom trainer.test_local_servers import server_of\n"
        "with server_of(Path(sys.argv[1]), Path(sys.argv[2])) as server:\n"
        "    server.wait(say=print)\n    print('ready', server._process.pid, server._sockets.name, flush=True)\n    time.sleep(600)\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(program)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert trainer.stdout is not None
        _, pid, sockets = next(line.split() for line in trainer.stdout if line.startswith("ready "))
    finally:
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())
    shutil.rmtree(sockets)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is named, and no Python that has vLLM."""
    monkeypatch.delenv(ENV_ROLLOUT_HOST, raising=False)
    monkeypatch.delenv(ENV_VLLM_PYTHON, raising=False)


def opened(storage: Path, made: RLHFJob, *, local: bool) -> where.Rollout | None:
    """What the job draws from."""
    context = alignment_context(storage, made, local=local)
    with where.opened(context, model=storage / "model", stop=lambda: False, gpu=False) as rollout:
        return rollout


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_anneal_run_does_without_vllm(storage: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so once, and trains to the end."""
    write_jsonl(storage / "prompts.jsonl", asking_rows())
    made = online_job(rollout={"mode": mode}, training={"maxSteps": 1})
    assert local.run(made, {CLAIM: storage}) == 0
    told = capsys.readouterr().err
    assert told.count("note: answers are drawn with generate") == 1
    assert ENV_VLLM_PYTHON in told
    assert "rollout/version" not in records(storage)[0]


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("mode", "remedy"), [("server", ENV_ROLLOUT_HOST), ("colocate", "images.colocate")], ids=["server", "colocate"]
)
def test_a_pod_does_not_do_without_vllm(storage: Path, mode: str, remedy: str) -> None:
    """It would be many times slower than what was asked for."""
    with pytest.raises(ConfigError, match=f"rollout.mode: {mode}, but .*{remedy}"):
        opened(storage, online_job(rollout={"mode": mode}), local=False)


@pytest.mark.usefixtures("nowhere")
def test_a_python_that_is_not_there_is_told(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was named, so doing without would be another thing than what was asked for."""
    monkeypatch.setenv(ENV_VLLM_PYTHON, str(storage / "python"))
    with pytest.raises(ConfigError, match=f"{ENV_VLLM_PYTHON} is .*python, which is no program"):
        opened(storage, online_job(rollout={"mode": "server"}), local=True)


@pytest.mark.usefixtures("nowhere")
def test_a_directory_is_no_python(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it may be entered, as a program may be run."""
    monkeypatch.setenv(ENV_VLLM_PYTHON, str(storage))
    with pytest.raises(ConfigError, match="which is no program"):
        opened(storage, online_job(rollout={"mode": "server"}), local=True)


@pytest.mark.parametrize("host", ["127.0.0.1:nope", "http://127.0.0.1:8000", ":8000", "127.0.0.1:0", "a:99999"])
def test_a_host_of_another_form_is_told_at_once(storage: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """By the variable and what it takes, before a model is loaded."""
    monkeypatch.setenv(ENV_ROLLOUT_HOST, host)
    with pytest.raises(ConfigError, match=f"{ENV_ROLLOUT_HOST} is .*write HOST:PORT"):
        opened(storage, online_job(rollout={"mode": "server"}), local=True)


def test_generate_needs_no_server(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is there."""
    monkeypatch.setenv(ENV_ROLLOUT_HOST, "127.0.0.1:1")
    assert opened(storage, online_job(), local=True) is None
