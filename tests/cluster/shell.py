"""Running commands and telling what happens: the one error type, one line per step with its time.

Quiet on success and complete on failure: the output of a command is shown only when it failed, and then the
last lines with the file that holds the rest. There is no logging framework: a person reads these lines.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

TAIL_LINES = 15


class ClusterError(Exception):
    """Something of the test cluster did not work; the message says what, and where to read more."""


class PrerequisiteError(ClusterError):
    """What this machine lacks, one line each, found before anything was started."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> str:
    """Standard output of a command that must succeed."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, input=stdin, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_shown(command)}` did not end within {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise ClusterError(f"`{command[0]}` is not there to be run") from error
    if done.returncode != 0:
        raise ClusterError(f"`{_shown(command)}` exited with {done.returncode}:\n{_tail(done.stderr or done.stdout)}")
    return done.stdout


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 1800,
) -> None:
    """A long command whose output goes to a file; on failure the message names the file and ends with its end."""
    command = [str(part) for part in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"`{_shown(command)}` did not end within {timeout:.0f} s\n{log_tail(log)}") from error
    if code != 0:
        raise ClusterError(f"`{_shown(command)}` exited with {code}\n{log_tail(log)}")


def succeeds(argv: Sequence[str | Path]) -> bool:
    try:
        run(argv, timeout=20)
    except ClusterError:
        return False
    return True


def log_tail(log: Path) -> str:
    if not log.exists():
        return f"log: {log} (empty)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        text = file.read().decode(errors="replace")
    return f"log: {log}; its last lines:\n{_tail(text)}"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done and, when it is done, how long it took, on one line."""
    print(f"{title} … ", end="", file=sys.stderr, flush=True)
    begun = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def locked(file: Path, waiting_for: str) -> Iterator[None]:
    """Hold a lock between processes; the file may be deleted by its holder, and then holds nobody off any more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with file.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with step(f"waiting for {waiting_for}"):
                    fcntl.flock(handle, fcntl.LOCK_EX)
            if not file.exists() or file.stat().st_ino != os.fstat(handle.fileno()).st_ino:
                continue
            yield
            return


def wait_until(condition: Callable[[], bool], *, timeout: float, interval: float = 0.2) -> bool:
    """Whether the condition became true in time; the caller knows what to say if it did not."""
    deadline = time.monotonic() + timeout
    while True:
        if condition():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)


def _shown(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 200 else text[:197] + "..."


def _tail(text: str) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines()[-TAIL_LINES:])
