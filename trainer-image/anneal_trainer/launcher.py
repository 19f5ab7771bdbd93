"""PID 1 of a pod: starts the work, serves its progress, keeps its log, passes signals on, and tells how it ended.

torchrun exits with 1 whatever its child said, and a container that is killed says nothing at all; so the launcher,
which imports no torch and cannot run out of memory by training, turns what the ranks left behind into one exit code
and one termination message. One process is started directly: torchrun would only add its own seconds of imports.
Not here: what the ranks do (`worker`).
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from anneal_api import Outcome, ProgressReport, TerminationMessage
from anneal_api.exitcodes import CONFIG
from anneal_api.meta import PROGRESS_PORT
from anneal_trainer import server, verdict
from anneal_trainer.context import Context, context_of_pod
from anneal_trainer.tee import Tee

# Between torchrun's killing of ranks that do not end and the kubelet's killing of the pod: for the last words.
_MARGIN_SECONDS = 10


def main(command: str, *, config_dir: Path, volumes_dir: Path, last_words: Path, port: int = PROGRESS_PORT) -> int:
    """Run `prepare` or `train` in this pod; return its exit code."""
    try:
        context = context_of_pod(os.environ, config_dir=config_dir, volumes_dir=volumes_dir)
    except (OSError, ValueError, KeyError) as error:
        words = TerminationMessage(
            outcome=Outcome.USER_ERROR, message=f"the job file of this pod cannot be used: {error}", exit_code=CONFIG
        )
    else:
        words = launch(command, context, port=port)
    _tell(words, last_words)
    return words.exit_code


def launch(command: str, context: Context, *, port: int) -> TerminationMessage:
    """Start the work, wait for it, and say how it ended."""
    with ExitStack() as stack:
        records = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anneal-")))
        context = replace(context, records=records)
        context_file = records / "context.json"
        context_file.write_text(context.encode(), encoding="utf-8")
        if context.node_rank == 0:
            initial = ProgressReport(
                role="prepare" if command == "prepare" else "trainer",
                attempt=context.attempt,
                world_size=context.world_size,
            )
            stack.callback(server.serve(server.Records(records, initial), port).shutdown)
        tee = stack.enter_context(Tee(context.log(command)))
        child = _Child(_command(command, context, context_file), _environment(os.environ, context), tee)
        code = child.wait()
        return verdict.reached(records, code=code, stopped=child.stopped, output=tee.tail)


def _command(command: str, context: Context, context_file: Path) -> list[str]:
    work = ["-m", "anneal_trainer.worker", command, str(context_file)]
    if command == "prepare" or context.world_size == 1:
        return [sys.executable, *work]
    # One node meets itself: no name has to resolve for that. Several read where from PET_MASTER_ADDR and its kin.
    place = ["--standalone", "--nnodes=1", f"--nproc-per-node={context.processes}"] if context.nodes == 1 else []
    return [sys.executable, "-m", "torch.distributed.run", *place, *work]


def _environment(environment: Mapping[str, str], context: Context) -> dict[str, str]:
    """What the child gets; torchrun reads the PET_ variables of the pod by itself."""
    patience = max(1, context.grace_seconds - _MARGIN_SECONDS)
    return {**environment, "PYTHONUNBUFFERED": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(patience)}


class _Child:
    """The process that does the work; signals to the launcher go on to it."""

    def __init__(self, command: list[str], environment: dict[str, str], tee: Tee) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        output = tee.descriptor
        self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)  # noqa: S603
        tee.begin()
        if self.stopped:
            self._process.send_signal(signal.SIGTERM)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code; negative where a signal killed it."""
        assert self._process is not None, "started in the constructor"
        return self._process.wait()


def _tell(words: TerminationMessage, path: Path) -> None:
    print(f"anneal: {words.outcome}: {words.message}", file=sys.stderr, flush=True)  # noqa: T201
    # Outside a pod there may be no such file; the exit code and the line above remain.
    with suppress(OSError):
        path.write_text(words.encode(), encoding="utf-8")
