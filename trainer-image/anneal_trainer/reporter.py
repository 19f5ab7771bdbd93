"""Where a run stands, as one `ProgressReport` that grows, told to whoever listens.

In a pod the listener is a small file that the launcher serves; under `anneal run` it is the progress bar.
Not here: HTTP (`server`) and drawing (`console`).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anneal_api import ProgressReport

PROGRESS_FILE = "progress.json"
# A report a step would be hundreds of writes a second for a tiny model; the operator reads one every few seconds.
_LEAST_SECONDS = 0.2


class Reporter:
    """Keeps the current report and tells `listen` of each change."""

    def __init__(self, report: ProgressReport, listen: Callable[[ProgressReport], None]) -> None:
        self.report = report
        self._listen = listen
        self._told: tuple[float, str] = (0.0, "")

    def update(self, **changes: Any) -> None:
        """Set fields; the listener hears of a new phase at once, of the rest a few times a second."""
        now = time.time()
        self.report = self.report.model_copy(update={**changes, "time": now})
        last, phase = self._told
        if self.report.phase != phase or now - last >= _LEAST_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Tell the listener now."""
        self._told = (time.time(), self.report.phase)
        self._listen(self.report)


def together(*listeners: Callable[[ProgressReport], None]) -> Callable[[ProgressReport], None]:
    """One listener that tells several."""

    def listen(report: ProgressReport) -> None:
        for listener in listeners:
            listener(report)

    return listen


def silent(_report: ProgressReport) -> None:
    """A listener for ranks that nobody asks."""


def into_file(directory: Path) -> Callable[[ProgressReport], None]:
    """A listener that keeps `directory`/progress.json current; a reader never sees half of it."""
    target, draft = directory / PROGRESS_FILE, directory / f".{PROGRESS_FILE}.{os.getpid()}"

    def write(report: ProgressReport) -> None:
        draft.write_text(report.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
        draft.replace(target)

    return write
