"""`anneal estimate` of an 8B model, beside what importing torch and that model's class alone takes.

Whole processes in interleaved pairs, the first not counted; ratios are taken pair by pair and their median is reported.
CPU time is given beside wall clock, since it hardly depends on what else the machine does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from table import Row, report

PAIRS = 5
PEER = "import torch; from transformers import LlamaForCausalLM"
LLAMA3_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
JOB = {
    "apiVersion": "anneal.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "estimate"},
    "spec": {
        "model": {"source": "volume://runs/model", "quantization": "nf4"},
        "adapter": {"r": 16},
        "datasets": [{"source": "volume://runs/rows.jsonl"}],
    },
}


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        (storage / "model").mkdir()
        (storage / "model/config.json").write_text(json.dumps(LLAMA3_8B))
        (storage / "job.yaml").write_text(yaml.safe_dump(JOB))
        program = [sys.executable, "-m", "anneal_cli"]
        command = [*program, "estimate", str(storage / "job.yaml"), "--volume", f"runs={storage}"]
        pairs = [(_seconds(command), _seconds([sys.executable, "-c", PEER])) for _ in range(PAIRS + 1)][1:]
    rows = []
    for index, what in enumerate(("wall clock", "CPU time")):
        middle = sorted(pairs, key=lambda pair: pair[0][index] / pair[1][index])[len(pairs) // 2]
        rows.append(
            Row(f"anneal estimate of an 8B model, {what}", middle[0][index], middle[1][index], "s", "at most 1.30x")
        )
    report("estimate-start", rows)


def _seconds(command: list[str]) -> tuple[float, float]:
    """Wall clock and CPU time of one process."""
    before, start = os.times(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - start, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
