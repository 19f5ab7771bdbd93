"""Drawn answers with their rewards, kept with the run: samples/completions-STEP.parquet, STEP the last one in it.

A few of each draw, so that a long run keeps what a person can look through; the last draw's are in latest.json too, for
status and logs. Not here: judging them.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anneal_api.status import MOST_JUDGED, SAMPLE_LENGTH, JudgedAnswer
from anneal_trainer.files import read_json, write_json

# Of each draw.
KEPT = 16
_LATEST = "latest.json"
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
                # Every rank does this.
                file.unlink(missing_ok=True)
        if any(answer.step > self.resumed_from for answer in latest(self.directory)):
            (self.directory / _LATEST).unlink(missing_ok=True)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """The first of one draw's answers; `prompt` is text or turns."""
        self._rows += [{**row, "prompt": prompt_text(row["prompt"])} for row in rows[:KEPT]]
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / _LATEST, [_told(row).dump() for row in _varied(rows)])

    def write(self, step: int) -> None:
        """A file of all that was added since the last one; whole or not there."""
        import pyarrow as pa
        from pyarrow import parquet

        if not self._rows:
            return
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


def latest(directory: Path) -> list[JudgedAnswer]:
    """Some answers of the last draw."""
    return [JudgedAnswer.model_validate(entry) for entry in read_json(directory / _LATEST) or []]


def _varied(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One answer a prompt, as far as there are so many prompts."""
    firsts = {prompt_text(row["prompt"]): row for row in reversed(rows)}
    others = [row for row in rows if firsts[prompt_text(row["prompt"])] is not row]
    return [*reversed(firsts.values()), *others][:MOST_JUDGED]


def _told(row: dict[str, Any]) -> JudgedAnswer:
    return JudgedAnswer(
        prompt=_last_asked(row["prompt"])[-SAMPLE_LENGTH:],
        answer=row["completion"][:SAMPLE_LENGTH],
        reward=None if math.isnan(row["reward"]) else row["reward"],
        step=row["step"],
    )


def _last_asked(prompt: Any) -> str:
    """What a person looks for in a prompt: its text, or what the user said last."""
    if isinstance(prompt, str):
        return prompt
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    return str(asked[-1]) if asked else prompt_text(prompt)


def prompt_text(prompt: Any) -> str:
    """The whole of a prompt: its text, or JSON of its turns."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
