"""SIGTERM and SIGINT: before the first step they end the process at once; in training they ask it to save and end.

Not here: forwarding between processes (`launcher`), and agreeing between ranks (`methods.follow`).
"""

import signal
from types import FrameType

from anneal_trainer.errors import Interrupted

_BEFORE = "stopped before training began; nothing was lost"


class Stop:
    """Whether the process was asked to end. Only the main thread may make one."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if not self._deferred:
            raise Interrupted(f"{signal.Signals(number).name}: {_BEFORE}")
        if not first and number == signal.SIGINT:
            raise Interrupted("interrupted twice: stopped without saving; the last checkpoint stands")

    def defer(self) -> None:
        """From now on a signal only sets `requested`: a checkpoint can be saved."""
        if self.requested:
            # Python drops what is raised while it clears up an object.
            raise Interrupted(_BEFORE)
        self._deferred = True

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
