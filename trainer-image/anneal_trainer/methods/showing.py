"""The latest drawn answers, as a run goes on: into its report, and now and then into its log.

Not here: drawing and judging them (`online`), and keeping them (`completions`).
"""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from anneal_trainer import completions, console
from anneal_trainer.reporter import Reporter

# A log is read by people: of a fast run it need not have every draw.
_SAID_EVERY_SECONDS = 30.0


class Showing(TrainerCallback):  # type: ignore[misc]
    """The callback of the first rank. `logs`: whether what is printed goes into a log, and not onto a terminal."""

    def __init__(self, directory: Path, reporter: Reporter, *, logs: bool) -> None:
        self._directory, self._reporter, self._logs = directory, reporter, logs
        self._said = -_SAID_EVERY_SECONDS

    def on_log(
        self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any] | None = None, **_options: Any
    ) -> None:
        """Of each step; most have a draw of their own."""
        found = completions.latest(self._directory)
        if "loss" not in (logs or {}) or found == self._reporter.report.completions:
            return
        self._reporter.update(completions=found)
        if self._logs and time.monotonic() - self._said >= _SAID_EVERY_SECONDS:
            self._said = time.monotonic()
            for answer in found:
                console.say(f"drawn for step {answer.step}, {console.drawn(answer)}")
