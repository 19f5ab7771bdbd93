"""What the tests of alignment share: prepared rows made of texts, jobs over them, and runs of them.

The rows are written as `prepare` writes them, so that what is tested begins where training does. Run as a program, this
is one of two processes that train jobs together.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from anneal_api import ProgressReport, resolve
from anneal_api.datasetreport import DatasetReport
from anneal_api.jobfile import JobFile
from anneal_api.manifest import parse_job
from anneal_api.rlhfjob import RLHFJob, RLHFSpec
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import store
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop
from anneal_trainer.train import train
from trainer.training import CLAIM, WORDS

Row = dict[str, Any]


def pair_texts(count: int = 24) -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected answer, of different lengths: capitals are preferred."""
    made = []
    for number in range(count):
        word, times = WORDS[number % 15], 1 + number % 4
        said = " ".join([word] * times)
        made.append((f"Say {word} {times} times: ", said.upper(), said))
    return made


def pair_rows(tokenizer: Any, texts: Iterable[tuple[str, str, str]]) -> list[Row]:
    """Pairs as they are prepared."""
    return [
        _joined(_answered(tokenizer, prompt, chosen), _answered(tokenizer, prompt, rejected))
        for prompt, chosen, rejected in texts
    ]


def judged_rows(tokenizer: Any, texts: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Both answers of each pair, judged; the second sequence has the next row's answer."""
    judged = [entry for prompt, good, bad in texts for entry in ((prompt, good, True), (prompt, bad, False))]
    others = [answer for _, answer, _ in (*judged[1:], judged[0])]
    return [
        _joined(_answered(tokenizer, prompt, answer), _answered(tokenizer, prompt, other)) | {"desirable": wanted}
        for (prompt, answer, wanted), other in zip(judged, others, strict=True)
    ]


def compared_rows(tokenizer: Any, texts: Iterable[tuple[str, str, str]]) -> list[Row]:
    """Whole conversations, the better one first."""
    return [row | {"margin": 0.0} for row in pair_rows(tokenizer, texts)]


def step_rows(tokenizer: Any, solutions: Iterable[tuple[str, Sequence[tuple[str, bool]]]]) -> list[Row]:
    """Solutions in steps: the label is at each step's end."""
    rows = []
    for prompt, steps in solutions:
        ids = tokenizer(prompt)["input_ids"]
        labels = [IGNORED] * len(ids)
        for text, right in steps:
            step = tokenizer(f"{text}\n")["input_ids"]
            ids, labels = ids + step, labels + [IGNORED] * (len(step) - 1) + [int(right)]
        rows.append({"input_ids": ids, "labels": labels, "seq_lengths": [len(ids)]})
    return rows


def _answered(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    asked, said = tokenizer(prompt)["input_ids"], [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    return asked + said, [IGNORED] * len(asked) + said


def _joined(first: tuple[list[int], list[int]], second: tuple[list[int], list[int]]) -> Row:
    return {
        "input_ids": first[0] + second[0],
        "labels": first[1] + second[1],
        "seq_lengths": [len(first[0]), len(second[0])],
    }


def alignment_job(method: str, name: str = "job", **changes: Any) -> RLHFJob:
    """A LoRA job; `training` and other blocks are merged, the rest replaced."""
    spec: dict[str, Any] = {
        "model": {"source": f"volume://{CLAIM}/model"},
        "method": method,
        "adapter": {"r": 4},
        "datasets": [{"source": f"volume://{CLAIM}/pairs.jsonl", "type": _TYPES.get(method, "passthrough")}],
        "storage": {"volume": {"claimName": CLAIM}},
        "compute": {"gpusPerNode": 0},
        "training": {
            "maxSteps": 4,
            "globalBatchSize": 8,
            "sequenceLength": 96,
            "learningRate": 5e-3,
            "warmupSteps": 0,
            "gradientCheckpointing": False,
        },
    }
    for block, value in changes.items():
        merged = isinstance(value, dict) and isinstance(spec.get(block), dict) and block != "adapter"
        spec[block] = {**spec[block], **value} if merged else value
    spec = {block: value for block, value in spec.items() if value is not None}
    made = parse_job({"apiVersion": "anneal.dev/v1alpha1", "kind": "RLHFJob", "metadata": {"name": name}, "spec": spec})
    assert isinstance(made, RLHFJob)
    return made


_TYPES = {
    "kto": "chatml.intel",
    "prm": "stepwise_supervised",
    "reward": "bradley_terry.chat_template",
}


def alignment_context(storage: Path, made: RLHFJob, **options: Any) -> Context:
    """The context of a job whose claims are all `storage`."""
    resolved = made.model_copy(update={"spec": resolve(made.spec)})
    return Context(JobFile(job=resolved, storage_claim=CLAIM), {CLAIM: storage}, **{"local": True, **options})


def made_ready(context: Context, rows: Sequence[Row] = (), held: Sequence[Row] = ()) -> Ready:
    """Prepared data of these rows; without any, what was written before."""
    assert isinstance(context.spec, RLHFSpec)
    path = context.layout.prepared(context.spec.family)
    if rows:
        kind = context.spec.datasets[0].type or ""
        shutil.rmtree(path, ignore_errors=True)
        for split, part in ((store.TRAIN, rows), (store.EVAL, held)):
            _write(path / split, part)
        report = DatasetReport(rows=len(rows), used=len(rows), sequences=len(rows), types=[kind])
        store.write_report(path, report, {})
    prepared = store.load(path)
    assert prepared is not None
    directory = model.directory(context.spec.models[0], context)
    return Ready(prepared, context.spec.model, directory, reused=True)


def _write(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa

    if not rows:
        return
    path.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    with pa.OSFile(str(path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def aligned(
    storage: Path,
    made: RLHFJob,
    rows: Sequence[Row] = (),
    held: Sequence[Row] = (),
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Result:
    """Train on these rows in this process."""
    here = alignment_context(storage, made, **options)
    stop = Stop()
    try:
        ready = made_ready(here, rows, held)
        return train(here, ready, reporter=reporter or Reporter(ProgressReport(), silent), stop=stop)
    finally:
        stop.restore()


def tokenizer_of(storage: Path) -> Any:
    """The tokenizer of the storage's model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(storage / "model")


def in_two_processes(storage: Path, jobs: Sequence[RLHFJob]) -> None:
    """Train the jobs, one after the other, in two processes, on rows that were prepared before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    documents = json.dumps([{"metadata": made.metadata, **made.dump()} for made in jobs])
    pair = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.aligning", str(storage), documents],
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [each.communicate(timeout=240)[0] for each in pair]
    finally:
        for each in pair:
            each.kill()
    assert [each.returncode for each in pair] == [0, 0], "\n".join(outputs)


def main(storage: Path, documents: str) -> None:
    """One of the two."""
    for document in json.loads(documents):
        made = parse_job(document)
        assert isinstance(made, RLHFJob)
        aligned(storage, made, processes=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
