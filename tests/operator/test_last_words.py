"""What a server that ended leaves to the kubelet: the error that came first, wherever its log has it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anneal_operator.manifests import last_words

DIED = """\
INFO 11-22 02:10:01 [launcher.py:69] Route: /adapters
(Worker pid=32) ERROR 11-22 02:10:08 [multiproc_executor.py:1058] Traceback (most recent call last):
(Worker pid=32) ERROR 11-22 02:10:08 [multiproc_executor.py:1058]   File "/opt/torch/cpp_builder.py", line 108, in search
(Worker pid=32) ERROR 11-22 02:10:08 [multiproc_executor.py:1058]     raise exc.InvalidCxxCompiler
(Worker pid=32) ERROR 11-22 02:10:08 [multiproc_executor.py:1058] torch.exc.InductorError: No working C++ compiler found
(Worker pid=32) ERROR 11-22 02:10:08 [multiproc_executor.py:1058]
(EngineCore pid=22) ERROR 11-22 02:10:08 [core.py:1435]     raise RuntimeError(
(EngineCore pid=22) ERROR 11-22 02:10:08 [core.py:1435] RuntimeError: Worker failed, please check the stack trace above
(APIServer pid=1) ERROR 11-22 02:10:08 [async_llm.py:871] vllm.v1.engine.exceptions.EngineDeadError: see above
(APIServer pid=1) ERROR 11-22 02:10:08 [async_llm.py:871] vllm.v1.engine.exceptions.EngineDeadError: see above
INFO:     Finished server process [1]
"""
CASES = {
    "the worker's error comes before those of who waited": (
        DIED,
        (
            "torch.exc.InductorError: No working C++ compiler found\n"
            "RuntimeError: Worker failed, please check the stack trace above\n"
            "vllm.v1.engine.exceptions.EngineDeadError: see above"
        ),
    ),
    "an option that it does not know": (
        "usage: api_server.py [-h]\n  [--model MODEL]\napi_server.py: error: unrecognized arguments: --no-such-flag\n",
        "api_server.py: error: unrecognized arguments: --no-such-flag",
    ),
    "an error goes on below its name": (
        (
            "pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, max_model_len (9000) is greater than 128 [type=value_error]\n"
            "    For further information visit errors\n"
        ),
        (
            "pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "Value error, max_model_len (9000) is greater than 128 [type=value_error]\n"
            "For further information visit errors"
        ),
    ),
    "what is no error": ("one\n\ntwo\n", "one\ntwo"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("log", "words"), CASES.values(), ids=CASES)
def test_the_cause_is_the_error_that_was_told_first(log: str, words: str) -> None:
    """Traces, and the names of processes, are left out."""
    assert last_words.cause(log.splitlines(keepends=True)) == words


def started(message: Path, program: str) -> "subprocess.Popen[bytes]":
    """What the manifest's command does, with another message file."""
    text = Path(last_words.__file__).read_text().replace("/dev/termination-log", str(message))
    return subprocess.Popen([sys.executable, "-c", text, sys.executable, "-c", program], stdout=subprocess.PIPE)


def test_it_prints_what_the_server_prints_and_ends_as_it_does(tmp_path: Path) -> None:
    """A process that is left behind, with the pipe open, does not keep the container."""
    begun = time.monotonic()
    left = "import subprocess, sys; subprocess.Popen(['sleep', '12']); print('ValueError: too small'); sys.exit(3)"
    process = started(tmp_path / "words", left)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ValueError: too small\n"
    assert process.wait(10) == 3
    assert (tmp_path / "words").read_text() == "ValueError: too small"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, 137)], ids=["asked", "killed"])
def test_it_hands_signals_on(tmp_path: Path, number: int, code: int) -> None:
    """The server ends as it likes when it is asked to; one that is killed is told as the kubelet would."""
    program = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    process = started(tmp_path / "words", program)
    assert process.stdout is not None
    server = int(process.stdout.readline())
    os.kill(process.pid if number == signal.SIGTERM else server, number)
    assert process.wait(10) == code
