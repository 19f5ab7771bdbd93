"""DPO and KTO against the bare TRL trainers on the same rows, in interleaved pairs of one run; and a kept reference.

The first pair is not counted: it warms the file cache for both. Ratios are taken pair by pair and their median is
reported, because the machine's speed drifts more between minutes than within a pair.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from table import Row, report
from trainer_pairs import pace, row, run

HERE = Path(__file__).parent
PAIRS = 5
STEPS = 15
BATCH = 8
LONGEST = 200


def write_rows(storage: Path) -> None:
    """The quickstart's model, and its rows as pairs and as judged answers, in the order that both sides read."""
    from anneal_trainer.data.formats import alpaca
    from anneal_trainer.order import RunOrder
    from anneal_trainer.quickstart import corpus, model
    from trainer.aligning import alignment_context, alignment_job, judged_rows, made_ready, pair_rows, tokenizer_of

    raw = corpus.rows()
    model.build(
        (alpaca.prompt(entry["instruction"], entry["input"]) + entry["output"] for entry in raw), storage / "model"
    )
    chosen = [entry for entry in raw if len(entry["output"]) < LONGEST][: STEPS * BATCH]
    texts = [
        (alpaca.prompt(entry["instruction"], entry["input"]), entry["output"], " ".join(entry["output"].split()[::-1]))
        for entry in chosen
    ]
    tokenizer = tokenizer_of(storage)
    for method, rows, plain in (
        ("dpo", pair_rows(tokenizer, texts), [_pair(*text) for text in texts]),
        ("kto", judged_rows(tokenizer, texts), [each for text in texts for each in _judged(*text)]),
    ):
        seen = STEPS * BATCH
        made_ready(alignment_context(storage, alignment_job(method)), rows[:seen])
        lines = [json.dumps(plain[number]) for number in RunOrder(seen, STEPS, BATCH, 42)]
        (storage / f"{method}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _judged(prompt: str, chosen: str, rejected: str) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "completion": chosen, "label": True},
        {"prompt": prompt, "completion": rejected, "label": False},
    ]


def side(which: str, method: str, storage: Path, name: str, *options: str) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, str(HERE / "alignment_side.py"), which, method, str(storage), name, str(STEPS), *options]
    found: dict[str, Any] = json.loads(run(command).splitlines()[-1])
    return found


def main(pairs: int = PAIRS) -> None:
    """Measure and report."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        write_rows(storage)
        for method in ("dpo", "kto"):
            both = [
                (side("ours", method, storage, f"{method}-{n}"), side("trl", method, storage, f"peer-{method}-{n}"))
                for n in range(pairs + 1)
            ][1:]
            rows.append(row(f"{method}: steady training", [_paces(*each) for each in both], "steps/s", ">= 0.98x"))
            memory = [(a["peak"] / 2**20, b["peak"] / 2**20) for a, b in both]
            rows.append(row(f"{method}: peak memory", memory, "MiB", "<= 1.05x"))
        kept = [
            (side("ours", "dpo", storage, f"kept-{n}", "precompute"), side("ours", "dpo", storage, f"live-{n}"))
            for n in range(pairs + 1)
        ][1:]
        rows.append(
            row("dpo: kept reference, against a live one", [_paces(*each) for each in kept], "steps/s", ">= 1.3x")
        )
    report("alignment", rows)


def _paces(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    return pace(one["times"]), pace(other["times"])


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent / "tests")]
    main(*map(int, sys.argv[1:]))
