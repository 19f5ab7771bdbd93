"""Writes the quickstart's directory: `model/` and `data/`. The same every time; what is there stays.

data/train.jsonl   questions and answers (alpaca)      data/chats.jsonl   the same as turns (chat_template)
data/pairs.jsonl   pairs of answers                    data/judged.jsonl  answers judged one by one
data/steps.jsonl   solutions judged step by step       data/prompts.jsonl questions alone, the answer beside them
"""

import json
from pathlib import Path

from anneal_trainer.data.formats import alpaca
from anneal_trainer.files import new_directory
from anneal_trainer.quickstart import corpus, judgements, model


def build(out: Path) -> bool:
    """Make what is missing; False if nothing was."""
    # The rows are collected before the heavy imports, which change what some standard modules hold.
    data, base = out / "data", out / "model"
    if data.exists() and base.exists():
        return False
    rows = corpus.rows()
    if not data.exists():
        with new_directory(data) as draft:
            for name, made in {
                "train": rows,
                "chats": judgements.chats(rows),
                "pairs": judgements.pairs(rows),
                "judged": judgements.judged(rows),
                "steps": judgements.steps(),
                "prompts": judgements.prompts(rows),
            }.items():
                text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in made)
                (draft / f"{name}.jsonl").write_text(text, encoding="utf-8")
    if not base.exists():
        with new_directory(base) as draft:
            model.build((alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in rows), draft)
    return True
