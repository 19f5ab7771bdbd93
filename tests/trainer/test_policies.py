"""What is done with rows between reading and training: policies, duplicates, mixtures, and counts that add up."""

import json
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anneal_api import ProgressReport
from anneal_trainer.data import build, near, store
from anneal_trainer.data.workers import Crew
from anneal_trainer.errors import ConfigError, DataError, TemporaryError
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.reporter import Reporter, silent
from trainer.test_prepare import over, prepared, refused
from trainer.training import WORDS, alpaca_rows, context, job, write_jsonl

LONG = {"sequenceLength": 512}
FILE = "volume://runs/data.jsonl"


def texts(ready: Ready, split: str = store.TRAIN) -> list[str]:
    """The rows of a split, decoded."""
    data = ready.prepared.dataset(split)
    return [] if data is None else [ready.tokenizer.decode(row["input_ids"][:-1]) for row in data]


def rows_of(*words: str) -> list[dict[str, str]]:
    """Completion rows."""
    return [{"text": word} for word in words]


def adds_up(ready: Ready) -> bool:
    """Whether every row that was read is in a split or in a reason."""
    report = ready.report
    return report.rows == report.used + report.eval_rows + sum(entry.rows for entry in report.dropped)


def dropped(ready: Ready) -> dict[str, int]:
    """Rows by the reason for which they are not trained on."""
    return {entry.reason: entry.rows for entry in ready.report.dropped}


def test_bad_rows_are_dropped_where_that_is_asked_for(storage: Path) -> None:
    """The rest is trained on; number, first place and all places are told."""
    rows: list[Any] = [*alpaca_rows(6), {"instruction": "a"}, {"instruction": "a", "output": 7}]
    ready = prepared(storage, over(storage, rows, preparation={"onBadRow": "drop"}, training=LONG))
    assert (ready.report.rows, ready.report.used, dropped(ready)) == (8, 6, {"bad": 2})
    assert ready.report.warnings[0].message.startswith(
        "rows that cannot be read or understood and are dropped: 2 of 8 "
        f"(the first: {FILE}, line 7: the column 'output'"
    )
    found = json.loads((ready.prepared.path / "report.json").read_text())
    assert [place.split(":")[1] for place in found["places"]["bad"]] == [
        "//runs/data.jsonl, line 7",
        "//runs/data.jsonl, line 8",
    ]


def test_too_many_bad_rows_end_the_job_after_all(storage: Path) -> None:
    """Then it is not the rows that are wrong."""
    rows = [*alpaca_rows(4), *[{"instruction": "a"}] * 3]
    policy = {"onBadRow": "drop", "maxBadRows": 2}
    error = refused(storage, over(storage, rows, preparation=policy, training=LONG))
    assert str(error).splitlines()[-1] == "preparation.maxBadRows: 3 of 7 rows are bad, more than 2"


def test_a_bad_first_row_does_not_defeat_the_policy(storage: Path) -> None:
    """A type that is given is the source's if one of the first rows has its columns."""
    rows = [{"instruction": "x"}, *alpaca_rows(3)]
    entries = [{"source": FILE, "type": "alpaca"}]
    ready = prepared(storage, over(storage, rows, datasets=entries, preparation={"onBadRow": "drop"}, training=LONG))
    assert (ready.report.used, dropped(ready)) == (3, {"bad": 1})


def test_a_source_that_is_wrong_as_a_whole_is_never_dropped(storage: Path) -> None:
    """Dropping bad rows does not hide a type that does not fit."""
    write_jsonl(storage / "other.jsonl", [{"question": "a"}])
    made = job(datasets=[{"source": FILE}, {"source": "volume://runs/other.jsonl"}], preparation={"onBadRow": "drop"})
    assert "other.jsonl: no type fits its columns (question)" in str(refused(storage, made))


def test_a_file_that_breaks_off_is_never_dropped(storage: Path) -> None:
    """What comes after the break is unknown: it may be all but one row."""
    (storage / "rows.json").write_text('[{"text": "red"}, {"text": "blue"')
    made = job(datasets=[{"source": "volume://runs/rows.json"}], preparation={"onBadRow": "drop"}, training=LONG)
    assert "rows.json, line 1: not JSON" in str(refused(storage, made))


@pytest.mark.parametrize(
    ("policy", "lengths", "reasons"),
    [
        pytest.param("truncate", [64, 120, 120], {"answerCutOff": 1}, id="truncate"),
        pytest.param("drop", [64], {"tooLong": 3}, id="drop"),
    ],
)
def test_long_rows_are_cut_or_dropped(storage: Path, policy: str, lengths: list[int], reasons: dict[str, int]) -> None:
    """A cut never leaves a row without its whole answer: such a row is dropped, and said to be."""
    rows = [{"instruction": "Say", "output": "red green blue " * n} for n in (1, 40, 50)]
    rows += [{"instruction": "red green blue " * 60, "output": "dog"}]
    made = over(storage, rows, preparation={"longRows": policy}, training={"sequenceLength": 120})
    ready = prepared(storage, made)
    assert len(ready.prepared.dataset(store.TRAIN)) == len(lengths)
    assert [len(row["input_ids"]) for row in ready.prepared.dataset(store.TRAIN)][1:] == lengths[1:]
    assert (dropped(ready), adds_up(ready)) == (reasons, True)
    assert ready.report.truncated == (2 if policy == "truncate" else 0)


def test_long_rows_are_errors_where_that_is_asked_for(storage: Path) -> None:
    """Each with its place, its length and the remedies; dropping bad rows does not drop them."""
    rows = [{"instruction": "Say", "output": "red green blue " * n} for n in (1, 40, 50)]
    policy = {"longRows": "error", "onBadRow": "drop"}
    error = refused(storage, over(storage, rows, preparation=policy, training={"sequenceLength": 120}))
    first, second = str(error).splitlines()
    assert first.startswith(f"{FILE}, line 2: has ")
    assert "more than training.sequenceLength 120: raise it, or set preparation.longRows to truncate or drop" in second


def test_equal_rows_are_counted_and_kept_or_dropped(storage: Path) -> None:
    """The first of them stays; a row with the same prompt and another answer is another row."""
    rows = [*alpaca_rows(5), *alpaca_rows(2), {**alpaca_rows(1)[0], "output": "another"}]
    kept = prepared(storage, over(storage, rows, training=LONG))
    assert (kept.report.used, kept.report.duplicates, dropped(kept)) == (8, 2, {})
    assert [warning.dump() for warning in kept.report.warnings] == [
        {
            "reason": "DuplicateRows",
            "message": "rows that repeat another one (preparation.duplicates: dropExact would drop them): 2 of 8 (25.0%)",
            "rows": 2,
        }
    ]
    once = prepared(storage, job(training=LONG, preparation={"duplicates": "dropExact"}))
    assert (once.report.used, dropped(once), adds_up(once)) == (6, {"duplicate": 2}, True)
    assert once.report.dropped[0].first == f"{FILE}, line 6"
    assert texts(once) == [*texts(kept)[:5], texts(kept)[7]]


def sentence(seed: int, words: int = 60) -> list[str]:
    """Words that hardly any other seed gives in this order."""
    import random

    return random.Random(seed).choices(WORDS, k=words)


def test_rows_that_are_much_alike_are_dropped(storage: Path) -> None:
    """A word more or less does not make another row; other words do, after however long a common beginning."""
    common = " ".join(sentence(0, 200))
    originals = [f"{common} {' '.join(sentence(seed))}" for seed in range(1, 40)]
    copies = [text.rsplit(" ", 1)[0] for text in originals[:5]]
    made = over(
        storage, rows_of(*originals, *copies), preparation={"duplicates": "dropNear"}, training={"sequenceLength": 4096}
    )
    ready = prepared(storage, made)
    assert (ready.report.used, dropped(ready), adds_up(ready)) == (39, {"nearDuplicate": 5}, True)
    assert ready.report.dropped[0].first == f"{FILE}, line 40"


@pytest.mark.parametrize(("similarity", "size"), [(0.5, 2), (0.7, 4), (0.85, 8), (0.95, 16), (0.99, 32)])
def test_bands_find_nearly_every_pair(similarity: float, size: int) -> None:
    """The longest bands with which 98 of 100 such pairs meet in one."""
    assert near.band_rows(similarity) == size


def test_training_rows_that_are_measured_are_not_trained_on(storage: Path) -> None:
    """Evaluation datasets win over the training data once duplicates are dropped."""
    write_jsonl(storage / "held.jsonl", alpaca_rows(4))
    evaluation = {"datasets": [{"source": "volume://runs/held.jsonl"}]}
    made = job(training=LONG, evaluation=evaluation, preparation={"duplicates": "dropExact"})
    ready = prepared(storage, made)
    assert (ready.report.used, ready.report.eval_rows, dropped(ready)) == (44, 4, {"inEvaluation": 4})
    assert not set(texts(ready)) & set(texts(ready, store.EVAL))
    assert ready.report.types == ["alpaca", "alpaca"]


def weighted(storage: Path, sizes: dict[str, int], weights: dict[str, float], **changes: Any) -> Ready:
    """Sources of so many rows, mixed."""
    for name, size in sizes.items():
        write_jsonl(storage / f"{name}.jsonl", rows_of(*(f"{name} {number}" for number in range(size))))
    entries = [{"source": f"volume://runs/{name}.jsonl", "weight": weight} for name, weight in weights.items()]
    return prepared(storage, job(datasets=entries, training=LONG, **changes))


def test_weights_without_replacement_use_no_row_twice(storage: Path) -> None:
    """As many rows as the weights allow: the source that runs out first decides."""
    ready = weighted(storage, {"a": 10, "b": 100}, {"a": 1, "b": 3})
    found = Counter(text.split()[0] for text in texts(ready))
    assert (found, dropped(ready), adds_up(ready)) == ({"a": 10, "b": 30}, {"notSampled": 70}, True)
    assert len(set(texts(ready))) == 40


def test_weights_with_replacement_keep_the_number_of_rows(storage: Path) -> None:
    """Rows of small sources repeat, the same ones for the same seed; holding some out comes first."""
    made = {"preparation": {"sampling": "withReplacement"}, "evaluation": {"holdout": {"count": 10}}}
    ready = weighted(storage, {"a": 10, "b": 100}, {"a": 1, "b": 1}, **made)
    found = Counter(text.split()[0] for text in texts(ready))
    assert found == {"a": 50, "b": 50}
    assert not set(texts(ready)) & set(texts(ready, store.EVAL))
    assert ready.report.used == len(set(texts(ready)))
    assert adds_up(ready)


def test_a_weighted_source_without_rows_is_refused(storage: Path) -> None:
    """A share of nothing cannot be drawn."""
    with pytest.raises(DataError, match=r"datasets\[1\] has a weight, but none of its rows can be trained on"):
        weighted(
            storage,
            {"a": 3, "b": 3},
            {"a": 1, "b": 1},
            evaluation={"datasets": [{"source": "volume://runs/b.jsonl"}]},
            preparation={"duplicates": "dropExact"},
        )


def test_splits_open_with_the_datasets_library(storage: Path) -> None:
    """Both of them, with the columns that they promise."""
    from datasets import load_from_disk

    ready = prepared(storage, job(training=LONG | {"packing": True}, evaluation={"holdout": {"count": 8}}))
    for split in (store.TRAIN, store.EVAL):
        data = load_from_disk(str(ready.prepared.path / split))
        assert data.column_names == ["input_ids", "labels", "seq_lengths"]
        assert sum(data[0]["seq_lengths"]) == len(data[0]["input_ids"]) == len(data[0]["labels"])
    assert not list(ready.prepared.path.glob("*.spool"))


def test_the_report_tells_lengths_special_tokens_and_detection(storage: Path) -> None:
    """Every row is in a column of the histogram, and the end of each answer among the trained special tokens."""
    report = prepared(storage, job(training=LONG)).report
    assert sum(column.rows for column in report.lengths) == 48
    assert report.lengths[-1].up_to >= report.longest > report.lengths[-1].up_to // 2
    assert [(entry.token, entry.count) for entry in report.special_tokens] == [("<|im_end|>", 48)]
    assert report.detected == ["datasets[0]: alpaca, from the columns instruction, input, output"]
    assert report.seconds is not None


def test_plain_text_is_pretrained_on(storage: Path) -> None:
    """`method: pretrain` makes sequences of long texts, every token trained."""
    made = over(storage, rows_of("red green blue " * 60, "dog"), method="pretrain", training={"sequenceLength": 64})
    ready = prepared(storage, made)
    data = ready.prepared.dataset(store.TRAIN)
    assert all(row["labels"] == row["input_ids"] for row in data)
    assert (ready.report.used, ready.report.truncated) == (2, 0)
    assert ready.report.sequences == len(data) > 2


def spread(storage: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> Ready:
    """Prepare in two processes, in chunks of a few rows."""
    from anneal_trainer.data.sources import lines

    monkeypatch.setattr(lines, "CHUNK_BYTES", 512)
    monkeypatch.setattr(build, "processes", lambda: 2)
    return prepared(storage, over(storage, [*alpaca_rows(count), {"instruction": "a", "output": ""}], training=LONG))


def test_processes_change_nothing(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, order, counts and places are those of one process, and nothing of the processes stays."""
    rows = [*alpaca_rows(48), {"instruction": "a", "output": ""}]
    alone = prepared(storage, over(storage, rows, training=LONG))
    expected = [dict(row) for row in alone.prepared.dataset(store.TRAIN)]
    alone.prepared.path.rename(storage / "alone")
    together = spread(storage, monkeypatch, 48)
    assert not list(together.prepared.path.glob("*.spool")), "of no process, this one included"
    assert [dict(row) for row in together.prepared.dataset(store.TRAIN)] == expected
    left_out = {"prepared_time", "seconds", "fingerprint"}
    assert together.report.model_dump(exclude=left_out) == alone.report.model_dump(exclude=left_out)


def works() -> Callable[[int], int]:
    """A work function that dies at 3."""

    def work(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    return work


def test_a_process_that_dies_is_an_error_at_once() -> None:
    """What came before it is there; nobody waits for what will never come."""
    crew, found = Crew(works, (), works(), 2), []
    with pytest.raises(TemporaryError, match=r"was killed, most likely for want of memory.*compute\.prepare\.memory"):
        found.extend(crew.results(range(1, 100)))
    assert len(found) < 3


def test_a_full_disk_is_told_with_the_remedy(storage: Path) -> None:
    """And nothing half-written stays. The kernel refuses to let files grow, as it does on a full disk."""
    made = job(training=LONG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(ConfigError, match=r"the storage is full.*enlarge the volume"):
            prepared(storage, made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((storage / "prepared").glob("*"))


def test_prepared_data_is_recognised_quickly(storage: Path) -> None:
    """A second job asks for nothing but files that are there."""
    first = prepare(context(storage, job(training=LONG)), Reporter(ProgressReport(), silent))
    again = prepare(replace(context(storage, job("again", training=LONG))), Reporter(ProgressReport(), silent))
    assert (first.reused, again.reused, again.report.seconds) == (False, True, first.report.seconds)
