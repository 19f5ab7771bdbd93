"""`anneal run` against a bare TRL script that does the same work, in interleaved pairs within one run.

The first pair is not counted: it warms the file cache for both. Ratios are taken pair by pair and their median is
reported, because the machine's speed drifts more between minutes than within a pair.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from table import Row, report

HERE = Path(__file__).parent
PAIRS = 5
STEPS = 30
SKIPPED = 5  # steps before the pace is steady


def manifest(name: str) -> dict[str, Any]:
    """The job that `bare_trl.py` is the peer of; the sizes must stay equal to those there."""
    return {
        "apiVersion": "anneal.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "volume://runs/quickstart/model"},
            "adapter": {"r": 16, "alpha": 32},
            "datasets": [{"source": "volume://runs/quickstart/data/train.jsonl", "type": "alpaca"}],
            "storage": {"volume": {"claimName": "runs"}},
            "compute": {"gpusPerNode": 0},
            "checkpoint": {"everySteps": 100000},
            "training": {
                "maxSteps": STEPS,
                "globalBatchSize": 8,
                "microBatchSize": 4,
                "sequenceLength": 256,
                "learningRate": 1e-3,
                "warmupSteps": 0,
                "gradientCheckpointing": False,
                "precision": "fp32",
                # The peer does not pack.
                "packing": False,
            },
        },
    }


def ours(storage: Path, number: int) -> list[float]:
    """Seconds from process start to the end of every optimizer step of `anneal run`, its data not yet prepared."""
    name = f"bench-{number}"
    shutil.rmtree(storage / "prepared", ignore_errors=True)
    job = storage / f"{name}.yaml"
    job.write_text(yaml.safe_dump(manifest(name)))
    start = time.time()
    run([str(Path(sys.executable).parent / "anneal"), "run", str(job), "--volume", f"runs={storage}"])
    metrics = (storage / "runs" / name / "logs/metrics.jsonl").read_text().splitlines()
    return [record["time"] - start for record in map(json.loads, metrics) if "loss" in record]


def peer(storage: Path, number: int) -> list[float]:
    """The same of the bare script."""
    out = storage / f"peer-{number}"
    model, data = storage / "quickstart/model", storage / "quickstart/data/train.jsonl"
    start = time.time()
    printed = run([sys.executable, str(HERE / "bare_trl.py"), str(model), str(data), str(out), str(STEPS)])
    times: list[float] = json.loads(printed.splitlines()[-1])["times"]
    return [moment - start for moment in times]


def run(command: list[str]) -> str:
    """Run to the end; on failure show what it said."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return done.stdout


def pace(times: list[float]) -> float:
    """Optimizer steps a second once the pace is steady."""
    return (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        run([sys.executable, "-m", "anneal_trainer", "quickstart", "--out", str(storage / "quickstart")])
        pairs = [(ours(storage, number), peer(storage, number)) for number in range(PAIRS + 1)][1:]
    starts = [(a[0], b[0]) for a, b in pairs]
    paces = [(pace(a), pace(b)) for a, b in pairs]
    report(
        "trainer",
        [
            row("process start to first optimizer step", starts, "s", "<= 1.10x"),
            row("steady training", paces, "steps/s", ">= 0.98x"),
        ],
    )


def row(what: str, pairs: list[tuple[float, float]], unit: str, target: str) -> Row:
    """Medians of the pairs; the reference is scaled so that the ratio is the median of the pairs' ratios."""
    median = statistics.median(first for first, _ in pairs)
    ratio = statistics.median(first / second for first, second in pairs)
    return Row(what, median, median / ratio, unit, target)


if __name__ == "__main__":
    main()
