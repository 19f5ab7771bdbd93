"""Becomes another program that ends when its parent does, however that ended: PARENT PROGRAM ARGUMENT...

Run by its file, with the standard library alone. The kernel sends the signal when the thread that started it is gone,
so that one has to live as long as its process. What the program starts in turn is its own to end.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Does not return."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have gone before the line above.
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - what we were given


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
