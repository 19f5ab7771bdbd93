"""Preparing chat rows, from JSONL to Arrow with masks: beside the bare tokenizers batch call, and beside TRL.

    chat_rows.py ours|trl STORAGE ROWS      one preparation, in a process of its own: one JSON line

All three work on the same text with as many processes, in turns within one run; medians are given. Start-up (imports,
processes, loading a model) is left out: what is given is how much longer ROWS take than FEW, scaled to ROWS. CPU time
is of all processes and hardly depends on what else the machine does; wall clock does. TRL masks by the `generation`
marks of the same template, and is not asked to pack, which ours does. Not here: packing and memory (`data_path`).
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import data_path
from data_path import cpu_seconds
from table import Row, report

ROWS, FEW, ROUNDS = 100_000, 20_000, 3
_CHUNK = 2000
_MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\\n' }}{% endfor %}"
)
Spent = dict[str, float]
_tokenizer: list[Any] = []


def ours(storage: Path, rows: int) -> Spent:
    """One preparation by Anneal."""
    found = data_path.prepare_once(storage, rows)
    return {"wall": found["seconds"], "cpu": found["cpu"]}


def trl(storage: Path, rows: int) -> Spent:
    """One by TRL's trainer while it is made, which is when it prepares; reading the file is part of it."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from anneal_trainer.data.workers import processes

    model = AutoModelForCausalLM.from_pretrained(storage / "model")
    tokenizer = AutoTokenizer.from_pretrained(storage / "model")
    tokenizer.chat_template = _MARKED
    with tempfile.TemporaryDirectory(dir=storage) as cache:
        args = SFTConfig(
            output_dir=cache, max_length=2048, assistant_only_loss=True, dataset_num_proc=processes(), use_cpu=True,
            bf16=False, report_to=[], disable_tqdm=True,
        )  # fmt: skip
        begun = time.perf_counter()
        data = load_dataset("json", data_files=str(storage / f"data-{rows}.jsonl"), split="train", cache_dir=cache)
        trainer = SFTTrainer(model, args=args, train_dataset=data, processing_class=tokenizer)
        wall = time.perf_counter() - begun
        assert len(trainer.train_dataset) == rows, len(trainer.train_dataset)
    return {"wall": wall, "cpu": cpu_seconds()}


def apart(whose: str, storage: Path, rows: int) -> Spent:
    """One preparation in a process of its own, from nothing."""
    subprocess.run(["rm", "-rf", str(storage / "prepared")], check=True)  # noqa: S607
    found: Spent = data_path.said([sys.executable, __file__, whose, str(storage), str(rows)])
    return found


def preparing(whose: str, storage: Path) -> Spent:
    """ROWS without the start-up."""
    few, many = apart(whose, storage, FEW), apart(whose, storage, ROWS)
    return {kind: (many[kind] - few[kind]) * ROWS / (ROWS - FEW) for kind in many}


def _begin(model: Path) -> None:
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer.append(Tokenizer.from_file(str(model / "tokenizer.json")))


def _bare(texts: list[str]) -> float:
    begun = time.process_time()
    _tokenizer[0].encode_batch(texts, add_special_tokens=False)
    return time.process_time() - begun


def bare(storage: Path) -> Spent:
    """The library's batch call for the same text, rendered before and sent in chunks to processes that are warm."""
    from anneal_trainer.data.workers import processes

    lines = (storage / f"data-{ROWS}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [
        "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in json.loads(line)["messages"])
        for line in lines
    ]
    chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(
        processes(), mp_context=context, initializer=_begin, initargs=(storage / "model",)
    ) as pool:
        list(pool.map(_bare, chunks[: 2 * processes()]))
        begun = time.perf_counter()
        cpu = sum(pool.map(_bare, chunks))
        return {"wall": time.perf_counter() - begun, "cpu": cpu}


def measure() -> list[Row]:
    """Each figure's median over the rounds, and the ratio of the medians."""
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        data_path.make_storage(storage, ROWS, FEW)
        rounds = [
            {"ours": preparing("ours", storage), "bare": bare(storage), "trl": preparing("trl", storage)}
            for _ in range(ROUNDS)
        ]

    def median(name: str, kind: str) -> float:
        return statistics.median(spent[name][kind] for spent in rounds)

    what = {"cpu": f"{ROWS:,} chat rows to Arrow, CPU time", "wall": "the same, wall clock"}
    beside = {"bare": ("the bare tokenizer", "<= 2.5x, aim 1.5x"), "trl": ("TRL's", "<= 0.33x")}
    return [
        Row(f"{words}, {name}", median("ours", kind), median(other, kind), "s", target)
        for other, (name, target) in beside.items()
        for kind, words in what.items()
    ]


def main() -> None:
    """Measure and report."""
    report("chat_rows", measure())


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["trl"]):
        print(json.dumps({"ours": ours, "trl": trl}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
