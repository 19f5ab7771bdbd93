"""The data path: prepared data that is found again, packing, and memory.

    data_path.py prepare STORAGE ROWS      one preparation, in a process of its own: one JSON line

Not here: how long preparing takes (`chat_rows`).
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

from table import Row, report

MANY, FEW = 1_000_000, 100_000
_TEXT = "the of and to in that was his he it with as for had you be not is her on at by which have or from this"
WORDS = _TEXT.split()


def chat_rows(path: Path, rows: int) -> Path:
    """Two turns a row, of heavy-tailed length."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            sizes = (8 + int(draw.expovariate(1 / 12)), min(400, int(4 + draw.paretovariate(1.1) * 6)))
            turns = [" ".join(draw.choices(WORDS, k=size)) for size in sizes]
            roles = (("user", f"{turns[0]} {number}?"), ("assistant", turns[1]))
            row = {"messages": [{"role": role, "content": text} for role, text in roles]}
            stream.write(f"{json.dumps(row)}\n")
    return path


def text_rows(path: Path, rows: int) -> Path:
    """A sentence a row: many rows, few tokens."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(f'{{"text": "{" ".join(draw.choices(WORDS, k=12))} {number}"}}\n' for number in range(rows))
    return path


def prepare_once(storage: Path, rows: int) -> dict[str, float]:
    """Prepare data-ROWS.jsonl; seconds and peak memory of this process and its largest child in MB."""
    from anneal_api import ProgressReport, parse_job, resolve
    from anneal_api.jobfile import JobFile
    from anneal_trainer import quiet_libraries
    from anneal_trainer.context import Context
    from anneal_trainer.prepare import prepare
    from anneal_trainer.reporter import Reporter, silent

    quiet_libraries.apply()
    spec = {
        "model": {"source": "volume://runs/model"},
        "datasets": [{"source": f"volume://runs/data-{rows}.jsonl"}],
        "compute": {"gpusPerNode": 0},
        "training": {"sequenceLength": 2048},
    }
    made = parse_job(
        {"apiVersion": "anneal.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "bench"}, "spec": spec}
    )
    file = JobFile(job=made.model_copy(update={"spec": resolve(made.spec)}), storage_claim="runs")
    ready = prepare(Context(file, {"runs": storage}), Reporter(ProgressReport(), silent))
    # What its processes took is known once their server has ended; by itself it would outlive this process.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = ready.report.seconds or 0.0
    return {"seconds": seconds, "own": own, "child": child, "cpu": cpu_seconds(), "reused": ready.reused}


def cpu_seconds() -> float:
    """Of this process and of all that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def prepared(storage: Path, rows: int, *, anew: bool = True) -> dict[str, float]:
    """The same in a process of its own; `wall` is with its start and its imports."""
    if anew:
        subprocess.run(["rm", "-rf", str(storage / "prepared")], check=True)  # noqa: S607
    begun = time.perf_counter()
    found = said([sys.executable, __file__, "prepare", str(storage), str(rows)])
    return found | {"wall": time.perf_counter() - begun}


def said(command: list[str]) -> dict[str, float]:
    """The JSON line that a command ends with."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_storage(storage: Path, *sizes: int, rows: Callable[[Path, int], Path] = chat_rows) -> None:
    """A model whose tokenizer has learnt the rows' words, and the rows."""
    from anneal_trainer.quickstart import model

    model.build([" ".join(WORDS)] * 20, storage / "model", vocabulary=600, width=32, heads=2)
    for size in sizes:
        rows(storage / f"data-{size}.jsonl", size)


def finding() -> list[Row]:
    """How long data that is there takes to be found."""
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        make_storage(storage, FEW)
        prepared(storage, FEW)
        again = prepared(storage, FEW, anew=False)
    assert again["reused"], "the data was made again"
    return [Row("finding data that is prepared, imports included", again["wall"], None, "s", "< 2 s")]


def packing() -> list[Row]:
    """A million heavy-tailed lengths at 4,096."""
    import numpy as np

    from anneal_trainer.data.packing import pack

    lengths = np.clip(np.exp(np.random.RandomState(0).normal(5.5, 1.2, 1_000_000)).astype(int), 1, 4096)
    begun = time.perf_counter()
    _, starts = pack(lengths, 4096)
    seconds = time.perf_counter() - begun
    bound = -(-int(lengths.sum()) // 4096)
    return [
        Row("packing 1,000,000 sequences", seconds, None, "s", "< 3 s"),
        Row("packs, against what is possible", len(starts) - 1, bound, "packs", "<= 1.005x"),
    ]


def memory() -> list[Row]:
    """Peak memory of the parent, and of its largest process, for ten times the rows."""
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        make_storage(storage, FEW, MANY, rows=text_rows)
        few, many = prepared(storage, FEW), prepared(storage, MANY)
    return [
        Row(f"peak memory, {MANY:,} rows against {FEW:,}", many["own"], few["own"], "MB", "<= 1.3x"),
        Row("the same of the largest worker", many["child"], few["child"], "MB", "<= 1.3x"),
    ]


def main() -> None:
    """Measure and report."""
    report("data path", [*finding(), *packing(), *memory()])


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        print(json.dumps(prepare_once(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
