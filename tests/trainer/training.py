"""What the trainer's tests share: a model so small that a step takes milliseconds, data, and jobs that use them.

The model is the quickstart's architecture with a vocabulary of a few hundred tokens; nothing here is a stand-in.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anneal_api import FineTuneJob, ProgressReport, parse_job, resolve
from anneal_api.jobfile import JobFile
from anneal_trainer.context import Context
from anneal_trainer.prepare import prepare
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop
from anneal_trainer.train import train

CLAIM = "runs"
WORDS = [
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "cat",
    "dog",
    "bird",
    "sun",
    "moon",
    "star",
    "tea",
    "bread",
    "salt",
]


def alpaca_rows(count: int = 48) -> list[dict[str, str]]:
    """Rows of different lengths, the same every time."""
    return [
        {
            "instruction": f"Say {WORDS[i % 15]} {i % 7} times",
            "input": "loudly" if i % 3 == 0 else "",
            "output": " ".join([WORDS[i % 15].upper()] * (1 + i % 7)),
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """One JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def job(name: str = "job", **changes: Any) -> FineTuneJob:
    """A LoRA job over volume://runs/data.jsonl; `training` and other blocks are merged, the rest replaced."""
    spec: dict[str, Any] = {
        "model": {"source": f"volume://{CLAIM}/model"},
        "adapter": {"r": 4},
        "datasets": [{"source": f"volume://{CLAIM}/data.jsonl"}],
        "storage": {"volume": {"claimName": CLAIM}},
        "compute": {"gpusPerNode": 0},
        "training": {
            "maxSteps": 6,
            "globalBatchSize": 4,
            "sequenceLength": 96,
            "learningRate": 5e-3,
            "warmupSteps": 0,
            "gradientCheckpointing": False,
            # Most tests count rows; those of packs ask for them.
            "packing": False,
        },
    }
    for block, value in changes.items():
        merged = isinstance(value, dict) and isinstance(spec.get(block), dict) and block != "adapter"
        spec[block] = {**spec[block], **value} if merged else value
    spec = {block: value for block, value in spec.items() if value is not None}
    return parse_job(
        {"apiVersion": "anneal.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}
    )


def context(storage: Path, made: FineTuneJob, **options: Any) -> Context:
    """The context of a job whose claims are all `storage`."""
    resolved = made.model_copy(update={"spec": resolve(made.spec)})
    return Context(JobFile(job=resolved, storage_claim=CLAIM), {CLAIM: storage}, **options)


def trained(storage: Path, made: FineTuneJob) -> Result:
    """Prepare and train in this process."""
    here, reporter = context(storage, made), Reporter(ProgressReport(), silent)
    ready = prepare(here, reporter)
    stop = Stop()
    try:
        return train(here, ready, reporter=reporter, stop=stop)
    finally:
        stop.restore()


def records(storage: Path, name: str = "job") -> list[dict[str, Any]]:
    """The metrics of a run, of a job of either kind."""
    run = next(path for ending in ("", "-rlhf") if (path := storage / f"runs/{name}{ending}").exists())
    lines = (run / "logs/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses(storage: Path, name: str = "job") -> list[float]:
    """The loss of every step."""
    return [record["loss"] for record in records(storage, name) if "loss" in record]
