"""A model and data so small that a pod spends its time on starting: what end-to-end tests train.

Built from parts of the quickstart, so it has a chat template and every file that a real model has.
"""

import json
import random
from pathlib import Path

from anneal_trainer.data.formats import alpaca
from anneal_trainer.quickstart import model as quickstart_model

WORDS = ["red", "green", "blue", "one", "two", "cat", "dog", "bird", "sun", "moon", "star", "tea", "bread", "salt"]


def make_tiny(directory: Path, *, rows: int = 80, seed: int = 7) -> None:
    """Write `directory/model` and `directory/train.jsonl`; the same files every time."""
    generator = random.Random(seed)
    data = [_row(generator) for _ in range(rows)]
    directory.mkdir(parents=True)
    (directory / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in data))
    # With the words of the Alpaca prompt, so that a row is tens of tokens and not hundreds of bytes.
    texts = [f"{alpaca.prompt(row['instruction'])}{row['output']}" for row in data]
    quickstart_model.build(texts, directory / "model", vocabulary=512, width=64, heads=4)


def _row(generator: random.Random) -> dict[str, str]:
    words = generator.choices(WORDS, k=6)
    return {"instruction": f"Repeat in capitals: {' '.join(words)}", "input": "", "output": " ".join(words).upper()}
