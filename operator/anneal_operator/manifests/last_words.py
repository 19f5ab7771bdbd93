"""Runs a vLLM server, and when it ends leaves the kubelet the lines that say why: `python3 -c` is given this text.

A worker tells its error first, and then each process that waited for it tells a long trace of its own: of the last
lines of the log, which the kubelet keeps, none has the cause. A server whose engine has died even exits with 0.
Only Python's own library: it runs in the servers' image. Not here: when a server is started again (the kubelet).
"""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

_KEPT = 600
_FIRST, _MOST_LINES, _LINE, _ALL = 3, 3, 400, 2000
_SIGNALLED = 128
# (EngineCore pid=22) ERROR 11-22 02:10:08 [core.py:1435] …
_PREFIX = re.compile(r"^\(\w+ pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b|[\w.-]+: error: )")
_TRACE = re.compile(r"^(?:Traceback|The above exception|During handling| {2}File |\s*$|\s*\^)")


def cause(lines: Iterable[str]) -> str:
    r"""The first errors that were told, each with what belongs to it; the last lines, where none is known as one.

    >>> cause(["(Worker pid=3) ERROR 11-22 02:10:08 [a.py:1] KeyError: 'x'\n", "RuntimeError: see above\n"])
    "KeyError: 'x'\nRuntimeError: see above"
    """
    plain = [_PREFIX.sub("", line.rstrip()) for line in lines]
    begins = [number for number, line in enumerate(plain) if _ERROR.match(line)]
    told = list(dict.fromkeys(_whole(plain, number) for number in begins))
    found = told[:_FIRST] or [line[:_LINE] for line in plain if line][-10:]
    return "\n".join(found)[:_ALL]


def _whole(lines: Sequence[str], number: int) -> str:
    """An error and the lines that go on with it, as far as its trace ended there."""
    found = [lines[number][:_LINE]]
    for line in lines[number + 1 : number + _MOST_LINES]:
        if _TRACE.match(line) or _ERROR.match(line) or not line.startswith(" "):
            break
        found.append(line.strip()[:_LINE])
    return "\n".join(found)


def run(command: Sequence[str], message: Path) -> int:
    """Until it ends: its exit code, with its last words in `message`."""
    kept: deque[str] = deque(maxlen=_KEPT)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603 - our manifest's
    assert process.stdout is not None, "asked for"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _frame: process.send_signal(which))
    reader = Thread(target=_copied, args=(process.stdout, kept), daemon=True)
    reader.start()
    code = process.wait()
    # A process that it left behind may hold the pipe open; it ends with this one, which is the first of the container.
    reader.join(2)
    with suppress(OSError):
        message.write_text(cause(list(kept)), encoding="utf-8")
    return code if code >= 0 else _SIGNALLED - code


def _copied(source: IO[bytes], kept: "deque[str]") -> None:
    for line in source:
        os.write(1, line)
        kept.append(line.decode(errors="replace"))


if __name__ == "__main__":
    # Without waiting for the thread.
    os._exit(run(sys.argv[1:], Path("/dev/termination-log")))
