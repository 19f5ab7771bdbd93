"""The output of the work, to the pod's own output and to a file on the job's storage, as it comes."""

import os
import sys
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import BinaryIO, Self

_TAIL_BYTES = 16384


class Tee:
    """Give `descriptor` to a child, call `begin` once it has it, and leave the block when it has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading, self.descriptor = os.pipe()
        self._thread = Thread(target=self._copy, name="log", daemon=True)
        self._tail = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self._thread.is_alive() and self._thread.ident is None:
            os.close(self.descriptor)
        self._wait()

    def begin(self) -> None:
        """The child has its end: close ours, so that the copying ends with the child, and start it."""
        os.close(self.descriptor)
        self._thread.start()

    @property
    def tail(self) -> str:
        """The last of what was said; call it after the child has ended."""
        self._wait()
        return self._tail.decode(errors="replace")

    def _wait(self) -> None:
        # A grandchild that outlives its parent keeps the pipe open; what it says is not waited for.
        if self._thread.ident is not None:
            self._thread.join(timeout=2)

    def _copy(self) -> None:
        log = self._opened()
        while chunk := os.read(self._reading, 65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            log = _kept(log, chunk)
        if log:
            log.close()

    def _opened(self) -> BinaryIO | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("wb", buffering=0)
        except OSError as error:
            print(f"anneal: no log is kept: {error}", file=sys.stderr, flush=True)  # noqa: T201
            return None


def _kept(log: BinaryIO | None, chunk: bytes) -> BinaryIO | None:
    """Write, unless the storage refuses: a full disk must not end a run that only wanted to say something."""
    if log is None:
        return None
    try:
        log.write(chunk)
    except OSError as error:
        print(f"anneal: the log ends here: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return None
    return log
