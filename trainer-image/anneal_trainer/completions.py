"""Drawn answers with their rewards, kept with the run: samples/completions-STEP.parquet, STEP the last one in it.

A few of each draw, so that a long run keeps what a person can look through. Not here: judging them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Of each draw.
KEPT = 16
SHOWN = 3
_PREFIX = "completions-"


@dataclass
class Completions:
    """What has been drawn since the last file. `resumed_from`: files of later steps go, as these come again."""

    directory: Path
    resumed_from: int
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for file in files(self.directory):
            if step_of(file) > self.resumed_from:
                file.unlink()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """The first of one draw's answers."""
        self._rows += rows[:KEPT]

    def write(self, step: int) -> None:
        """A file of all that was added since the last one; whole or not there."""
        import pyarrow as pa
        from pyarrow import parquet

        if not self._rows:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self.directory / f"{_PREFIX}{step}.parquet"
        draft = target.with_name(f".{target.name}.new")
        parquet.write_table(pa.Table.from_pylist(self._rows), draft)
        draft.replace(target)
        self._rows = []


def files(directory: Path) -> list[Path]:
    """In the order of their steps."""
    return sorted(directory.glob(f"{_PREFIX}*.parquet"), key=step_of)


def step_of(file: Path) -> int:
    """The last step of a file."""
    return int(file.stem.removeprefix(_PREFIX))


def latest(directory: Path) -> list[dict[str, Any]]:
    """The first answers of the last draw: step, prompt, completion, reward and more."""
    from pyarrow import parquet

    found = files(directory)
    if not found:
        return []
    rows: list[dict[str, Any]] = parquet.read_table(found[-1]).to_pylist()
    return [row for row in rows if row["step"] == rows[-1]["step"]][:SHOWN]


def prompt_text(prompt: Any) -> str:
    """A prompt as a person reads it: its text, or JSON of its turns."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
