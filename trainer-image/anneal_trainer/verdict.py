"""From what the ranks left behind to one ending: which rank's words count, and what it means if there are none.

When one rank fails, torchrun stops the others, whose words are then about being stopped, or about a peer that is gone;
so the most specific ending wins, and the earliest among equals. Pure but for reading the records and the kernel's
count of kills.
"""

import re
import signal
from pathlib import Path

from anneal_api import Outcome, TerminationMessage
from anneal_api.exitcodes import OK, OUT_OF_MEMORY, TEMPORARY

_SPECIFIC = (Outcome.USER_ERROR, Outcome.OUT_OF_MEMORY, Outcome.PREPARED_DATA_STALE)
_KILLED = re.compile(r"failed \(exitcode: -(\d+)\)")
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")


def reached(records: Path, *, code: int, stopped: bool, output: str) -> TerminationMessage:
    """The ending. `stopped`: the pod itself was asked to stop. `output`: the last that was said."""
    words = _words(records)
    if code == OK:
        # Only the first rank of all writes results, and with them says the most.
        first = _read(records / "words-0.json")
        return first or TerminationMessage(outcome=Outcome.SUCCEEDED, message="this pod's part is done")
    failures = [message for message in words if message.exit_code != OK]
    chosen = _chosen(failures, stopped=stopped)
    return chosen or _silent(_signal_of(code, output), stopped=stopped, oom_killed=_oom_kills() > 0, code=code)


def _words(records: Path) -> list[TerminationMessage]:
    """Every rank's last words, the earliest first."""
    files = sorted(records.glob("words-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [message for message in map(_read, files) if message is not None]


def _read(path: Path) -> TerminationMessage | None:
    return TerminationMessage.decode(path.read_text(encoding="utf-8")) if path.exists() else None


def _chosen(failures: list[TerminationMessage], *, stopped: bool) -> TerminationMessage | None:
    specific = [message for message in failures if message.outcome in _SPECIFIC]
    ended = [message for message in failures if message.outcome == Outcome.PREEMPTED]
    others = [message for message in failures if message not in specific and message not in ended]
    order = [*specific, *ended, *others] if stopped else [*specific, *others]
    return order[0] if order else None


def _signal_of(code: int, output: str) -> int | None:
    """The signal that killed the work: its own, or the one torchrun reports of a rank."""
    if code < 0:
        return -code
    found = _KILLED.findall(output)
    return int(found[0]) if found else None


def _oom_kills() -> int:
    """How often the kernel has killed in this container for want of memory."""
    try:
        events = dict(line.split() for line in _CGROUP_EVENTS.read_text(encoding="ascii").splitlines())
    except OSError:
        return 0
    return int(events.get("oom_kill", 0))


def _silent(number: int | None, *, stopped: bool, oom_killed: bool, code: int) -> TerminationMessage:
    """The work ended without a word."""
    if oom_killed and number == signal.SIGKILL:
        return TerminationMessage(
            outcome=Outcome.OUT_OF_MEMORY,
            message="killed for want of memory: the container reached compute.memory; raise it, or lower "
            "training.microBatchSize or sequenceLength",
            exit_code=OUT_OF_MEMORY,
        )
    if number is None:
        return TerminationMessage(
            outcome=Outcome.INFRASTRUCTURE,
            message=f"the training process ended with exit code {code} and no word: its log may say why",
            exit_code=code if code > 0 else 1,
        )
    name = signal.Signals(number).name
    if stopped:
        return TerminationMessage(
            outcome=Outcome.PREEMPTED,
            message=f"ended by {name} before it had saved; the last checkpoint stands",
            exit_code=TEMPORARY,
        )
    return TerminationMessage(
        outcome=Outcome.INFRASTRUCTURE,
        message=f"the training process was killed by {name}: its log may say why",
        exit_code=128 + number,
    )
