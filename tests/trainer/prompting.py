"""What the tests of online methods share: prompts to answer with a word, jobs over them, and runs of them."""

from pathlib import Path
from typing import Any

from anneal_api import ProgressReport
from anneal_api.rlhfjob import RLHFJob
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop
from anneal_trainer.train import train
from trainer.aligning import alignment_context, alignment_job
from trainer.training import CLAIM, WORDS, write_jsonl

EXACT = {"name": "exact", "match": {}}
# What even a model of random weights says now and then.
LETTER = {"name": "letter", "match": {"column": "letter", "how": "contains"}}
SHORT = {"name": "short", "weight": 0.5, "length": {"most": 4}}
GROUP = 4


def asking_rows(count: int = 24) -> list[dict[str, Any]]:
    """Say a word: the answer is that word."""
    return [
        {"prompt": f"Say {WORDS[i % 15]}{'!' * (i // 15)}: ", "answer": WORDS[i % 15], "letter": "aeio"[i % 4]}
        for i in range(count)
    ]


def online_job(method: str = "grpo", name: str = "job", **changes: Any) -> RLHFJob:
    """Over volume://runs/prompts.jsonl: two prompts a step, four answers each, of at most six tokens."""
    blocks: dict[str, Any] = {
        "datasets": [{"source": f"volume://{CLAIM}/prompts.jsonl"}],
        "rewards": [LETTER, SHORT],
        "sampling": {"maxTokens": 6},
        "rollout": {"mode": "generate"},
        method: {"numGenerations": GROUP},
    }
    for block, value in changes.items():
        merged = isinstance(value, dict) and block in blocks
        blocks[block] = {**blocks[block], **value} if merged else value
    return alignment_job(method, name, **blocks)


def prepared(storage: Path, made: RLHFJob, rows: list[dict[str, Any]] | None = None, **options: Any) -> Ready:
    """The job's prompts, prepared."""
    if rows is not None or not (storage / "prompts.jsonl").exists():
        write_jsonl(storage / "prompts.jsonl", rows or asking_rows())
    return prepare(alignment_context(storage, made, **options), Reporter(ProgressReport(), silent))


def answered(storage: Path, made: RLHFJob, *, reporter: Reporter | None = None, **options: Any) -> Result:
    """Prepare and train in this process."""
    ready, stop = prepared(storage, made), Stop()
    here = alignment_context(storage, made, **options)
    try:
        return train(here, ready, reporter=reporter or Reporter(ProgressReport(), silent), stop=stop)
    finally:
        stop.restore()
