"""Writes the quickstart's directory: `model/` and `data/train.jsonl`. The same every time; what is there stays."""

import json
from pathlib import Path

from anneal_trainer.data.formats import alpaca
from anneal_trainer.files import new_directory
from anneal_trainer.quickstart import corpus, model


def build(out: Path) -> bool:
    """Make what is missing; False if nothing was."""
    # The rows are collected before the heavy imports, which change what some standard modules hold.
    data, base = out / "data", out / "model"
    if data.exists() and base.exists():
        return False
    rows = corpus.rows()
    if not data.exists():
        with new_directory(data) as draft:
            text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
            (draft / "train.jsonl").write_text(text, encoding="utf-8")
    if not base.exists():
        with new_directory(base) as draft:
            model.build((alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in rows), draft)
    return True
