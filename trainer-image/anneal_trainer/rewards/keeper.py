"""A reward's own process: kept alive between calls, ended when a call takes too long, started again for the next one.

What it prints goes to the trainer's output. It sees no GPU: the memory there is counted for training. It is no
sandbox: it has the trainer's user, files, environment and network.
Not here: what runs in it (`child`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from anneal_trainer.rewards.scoring import CallError, Fault, Score, Unfit

# Imports can take long: torch alone takes seconds, from a busy network file system a minute.
STARTUP_SECONDS = 300
_ENDING_SECONDS = 5
# By its file, since its package imports much; with -P, or the modules beside it would hide the standard library's.
_PROGRAM = Path(__file__).with_name("child.py")


class Child:
    """The function `name` of a file or module, in a process of its own.

    `memory`: the most bytes that it may map. `limit`: what the seconds of a call are, for people.
    """

    def __init__(self, where: str, name: str, *, memory: int = 0, limit: str = "") -> None:
        self._limit = f" ({limit})" if limit else ""
        self._command = (where, name, str(memory))
        # The parameters that the function cannot be called without.
        self.needs: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._start()

    def call(self, seconds: float, *given: Any, **named: Any) -> Any:
        """What the function returns, made of lists and numbers; CallError if it does not, with the cause."""
        connection = self._alive()
        try:
            connection.send((given, named))
        except OSError as error:
            raise self._died() from error
        return self._answer(connection, seconds, self._limit)

    def close(self) -> None:
        """End it, with all that it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _alive(self) -> Connection:
        # It says nothing that it was not asked for: what can be read now is its end, of a process that was killed.
        if self._connection is not None and self._connection.poll():
            self.close()
        return self._connection or self._start()

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        program = [sys.executable, "-P", "-u", str(_PROGRAM), str(theirs.fileno()), *self._command]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            program,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        theirs.close()
        self._connection = ours
        try:
            self.needs = self._answer(ours, STARTUP_SECONDS)
        except CallError:
            self.close()
            raise
        return ours

    def _answer(self, connection: Connection, seconds: float, limit: str = "") -> Any:
        try:
            if not connection.poll(seconds):
                self.close()
                raise CallError(f"took longer than {seconds:g} s{limit}, and was stopped", cut_off=True)
            reply = json.loads(connection.recv_bytes(), object_hook=_unfit)
        except (EOFError, OSError) as error:
            raise self._died() from error
        if "error" in reply:
            raise CallError(f"raised {reply['error']}", trace=reply["trace"])
        return reply.get("value")

    def _died(self) -> CallError:
        assert self._process is not None, "it was asked something"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_SECONDS)
        code = self._process.poll()
        self.close()
        if code is None:
            cause = "closed its end"
        else:
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return CallError(f"gave no answer: its process {cause}", cut_off=True)


def _unfit(found: dict[str, Any]) -> Any:
    return Unfit(found["unfit"]) if "unfit" in found else found


def each(
    child: Child, questions: Iterable[tuple[Any, ...] | None], *, seconds: float, cut_off: Score = None
) -> list[Score]:
    """The score of each question by itself, so that one of them cannot hold up the rest; None stays None.

    `cut_off` is the score of one that takes longer than `seconds`; without it that is a fault.
    """
    return [None if question is None else _one(child, question, seconds, cut_off) for question in questions]


def _one(child: Child, question: tuple[Any, ...], seconds: float, cut_off: Score) -> Score:
    try:
        found: list[float] = child.call(seconds, *question)
    except CallError as error:
        return cut_off if error.cut_off and cut_off is not None else Fault(error.what)
    return found[0]
