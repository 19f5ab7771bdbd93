"""One line of JSON a step in `logs/metrics.jsonl` on the job's storage: the whole course of a run, across attempts.

An attempt that resumes at step k first removes what an earlier one wrote beyond k, so every step is there once.
"""

import json
from pathlib import Path
from typing import Any, TextIO

from anneal_trainer.files import replace_text


class MetricsLog:
    """Appends records; each has a `step`."""

    def __init__(self, path: Path, *, resumed_from: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resumed_from] if resumed_from else []
        replace_text(path, "".join(f"{line}\n" for line in kept))
        self._stream: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self.first_loss = first(path, "loss")

    def write(self, record: dict[str, Any]) -> None:
        """One record."""
        self._stream.write(f"{json.dumps(record)}\n")
        if self.first_loss is None:
            self.first_loss = record.get("loss")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def first(path: Path, key: str) -> float | None:
    """The first value of `key` in a run's metrics."""
    return next((value for line in _lines(path) if (value := json.loads(line).get(key)) is not None), None)


def totals(path: Path, prefix: str) -> dict[str, float]:
    """The sums over a run of all that is measured under names with this prefix, by the rest of the name."""
    found: dict[str, float] = {}
    for line in _lines(path):
        for name, value in json.loads(line).items():
            if name.startswith(prefix):
                key = name.removeprefix(prefix)
                found[key] = found.get(key, 0.0) + value
    return found


def _lines(path: Path) -> list[str]:
    """Whole lines only: the last one of a process that was killed may be cut."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line]
