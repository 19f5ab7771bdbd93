"""Prepare: what it makes, what it counts, what it uses again, and everything that it refuses."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anneal_api import FineTuneJob, ProgressReport
from anneal_trainer.data import store
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.errors import ConfigError, DataError, InputError, StaleDataError, UserError
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.train import find_ready
from trainer.training import alpaca_rows, context, job, write_jsonl


def prepared(storage: Path, made: FineTuneJob) -> Ready:
    """Prepare, in this process."""
    return prepare(context(storage, made), Reporter(ProgressReport(), silent))


def refused(storage: Path, made: FineTuneJob) -> UserError:
    """The refusal of a job that cannot be prepared."""
    with pytest.raises(UserError) as raised:
        prepared(storage, made)
    assert not list((storage / "prepared").glob("*/report.json")), "nothing is left that looks prepared"
    return raised.value


def over(storage: Path, rows: list[Any], **changes: Any) -> FineTuneJob:
    """A job over these rows."""
    write_jsonl(storage / "data.jsonl", rows)
    return job(**changes)


def test_rows_become_sequences_with_counts(storage: Path) -> None:
    """Every row is there, in order, and the report counts tokens as the files hold them."""
    ready = prepared(storage, job(training={"sequenceLength": 512}))
    data = ready.prepared.dataset(store.TRAIN)
    report = ready.report
    assert (report.rows, report.used, report.sequences, report.truncated, report.types) == (48, 48, 48, 0, ["alpaca"])
    assert report.tokens == sum(len(row["input_ids"]) for row in data)
    assert report.trained_tokens == sum(label != IGNORED for row in data for label in row["labels"])
    assert report.longest == max(len(row["input_ids"]) for row in data)
    answer = [token for token in data[0]["labels"] if token != IGNORED]
    assert ready.tokenizer.decode(answer) == "RED<|im_end|>"


def test_long_rows_are_cut_and_counted(storage: Path) -> None:
    """No sequence is longer than sequenceLength; what was cut is counted and told."""
    rows = [{"instruction": "Say", "output": "red green blue " * n} for n in (1, 2, 40, 50)]
    ready = prepared(storage, over(storage, rows, training={"sequenceLength": 120}))
    assert [len(row["input_ids"]) for row in ready.prepared.dataset(store.TRAIN)][2:] == [120, 120]
    assert ready.report.truncated == 2
    assert [(warning.reason, warning.rows) for warning in ready.report.warnings] == [("RowsTruncated", 2)]


def test_rows_without_a_trained_token_are_dropped_and_counted(storage: Path) -> None:
    """An empty answer trains nothing: the row is dropped, and the first such row is named."""
    rows = [*alpaca_rows(4), {"instruction": "Say", "output": ""}]
    report = prepared(storage, over(storage, rows, training={"sequenceLength": 512})).report
    assert (report.rows, report.used) == (5, 4)
    assert [warning.message for warning in report.warnings] == [
        "rows that have no token to train on and are dropped: 1 of 5 (the first: volume://runs/data.jsonl, line 5)"
    ]


def test_the_holdout_is_kept_out_of_training(storage: Path) -> None:
    """Held-out rows are in eval and nowhere else, the same ones for the same seed, others for another."""
    made = job(training={"sequenceLength": 512}, evaluation={"holdout": {"count": 10}})
    ready = prepared(storage, made)
    train, held = (
        [tuple(row["input_ids"]) for row in ready.prepared.dataset(split)] for split in (store.TRAIN, store.EVAL)
    )
    assert (len(train), len(held), ready.report.eval_rows) == (38, 10, 10)
    everything = prepared(storage, job(training={"sequenceLength": 512})).prepared.dataset(store.TRAIN)
    assert sorted(train + held) == sorted(tuple(row["input_ids"]) for row in everything)
    other = prepared(
        storage, job(training={"sequenceLength": 512, "seed": 1}, evaluation={"holdout": {"fraction": 0.2}})
    )
    assert [tuple(row["input_ids"]) for row in other.prepared.dataset(store.EVAL)] != held
    assert other.report.eval_rows == 10


def test_prepared_data_is_used_again(storage: Path) -> None:
    """The same inputs are prepared once, whatever else of the job differs; other inputs are not confused with them."""
    first = prepared(storage, job("one"))
    again = prepared(storage, job("two", training={"learningRate": 1e-4}))
    other = prepared(storage, job("three", training={"sequenceLength": 64}))
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert first.prepared.path == again.prepared.path != other.prepared.path


def test_changed_rows_are_prepared_anew(storage: Path) -> None:
    """A file with other content is other data, though the job is the same."""
    first = prepared(storage, job())
    second = prepared(storage, over(storage, alpaca_rows(20)))
    assert (second.report.rows, second.reused) == (20, False)
    assert first.prepared.path != second.prepared.path


def test_training_finds_what_was_prepared(storage: Path) -> None:
    """The trainer is led to the data by the job alone."""
    ready = prepared(storage, job())
    assert find_ready(context(storage, job())).prepared == ready.prepared


def test_damaged_data_is_not_trained_on_but_made_again(storage: Path) -> None:
    """A file of another size counts as not there, for the trainer and for the next preparation."""
    whole = prepared(storage, job()).prepared
    content = (whole.path / "train/data.arrow").read_bytes()
    os.truncate(whole.path / "train/data.arrow", 100)
    with pytest.raises(StaleDataError, match="not whole: it is prepared again"):
        find_ready(context(storage, job()))
    again = prepared(storage, job())
    assert (again.reused, again.prepared.path) == (False, whole.path)
    assert (whole.path / "train/data.arrow").read_bytes() == content
    assert find_ready(context(storage, job())).prepared == again.prepared
    assert not list((storage / "prepared").glob(".*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda s: write_jsonl(s / "data.jsonl", alpaca_rows(9)), "changed since .*data.jsonl", id="changed"
        ),
        pytest.param(lambda s: (s / "data.jsonl").unlink(), "a source has gone", id="gone"),
        pytest.param(
            lambda s: (s / "prepared/by-key").rename(s / "elsewhere"), "is not on the job's storage", id="lost"
        ),
        pytest.param(lambda s: (s / "model/tokenizer.json").touch(), "changed since .*tokenizer.json", id="tokenizer"),
    ],
)
def test_stale_data_is_noticed_at_train_start(storage: Path, change: Callable[[Path], Any], words: str) -> None:
    """What was prepared from other sources, or is lost, is never trained on: exit code 75 asks for another prepare."""
    prepared(storage, job())
    change(storage)
    with pytest.raises(StaleDataError, match=words) as raised:
        find_ready(context(storage, job()))
    assert (raised.value.exit_code, raised.value.outcome) == (75, "PreparedDataStale")


def test_several_sources_are_concatenated(storage: Path) -> None:
    """Rows of all sources, each by its own type, in the order of the manifest."""
    write_jsonl(storage / "more/b.jsonl", [{"text": "red"}])
    write_jsonl(storage / "more/a.jsonl", [{"text": "green"}])
    made = job(datasets=[{"source": "volume://runs/more"}, {"source": "volume://runs/data.jsonl"}])
    ready = prepared(storage, made)
    texts = [ready.tokenizer.decode(row["input_ids"]) for row in ready.prepared.dataset(store.TRAIN)]
    assert texts[:2] == ["green<|im_end|>", "red<|im_end|>"]
    assert ready.report.types == ["completion", "alpaca"]


def test_conversations_use_the_models_own_template(storage: Path) -> None:
    """`chat_template` renders with the tokenizer's template and trains what the assistant says."""
    rows = [{"messages": [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "dog"}]}]
    ready = prepared(storage, over(storage, rows))
    [row] = ready.prepared.dataset(store.TRAIN)
    assert ready.tokenizer.decode([token for token in row["labels"] if token != IGNORED]) == "dog<|im_end|>"


def test_all_bad_rows_are_told_at_once(storage: Path) -> None:
    """Broken lines, missing columns and wrong types are listed with file, line, value and what is accepted."""
    lines = [
        json.dumps(alpaca_rows(1)[0]),
        '{"instruction": "a", "output": ',
        '{"instruction": "a"}',
        '{"instruction": "a", "output": 7}',
        "[1]",
    ]
    (storage / "data.jsonl").write_text("\n".join(lines))
    error = refused(storage, job())
    assert (type(error), error.exit_code) == (DataError, 65)
    file = "volume://runs/data.jsonl"
    assert sorted(str(error).splitlines()) == [
        f'{file}, line 2: not JSON from column 32: Expecting value, in …\'on": "a", "output": \'',
        f"{file}, line 3: the column 'output' is missing; this row has instruction",
        f"{file}, line 4: output must be text, got 7",
        f"{file}, line 5: must be a JSON object, got [1]",
    ]


def test_the_first_twenty_problems_are_told_and_the_rest_counted(storage: Path) -> None:
    """A data set with many bad rows gives a message of bounded length."""
    error = refused(storage, over(storage, [alpaca_rows(1)[0], *[{"instruction": "a"}] * 30]))
    lines = str(error).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        pytest.param(
            [{"question": "a", "answer": "b"}],
            {},
            "its columns (question, answer) can be worded in several ways: set datasets[0].type to one of "
            "alpaca_chat.load_qa, or alpaca or user_defined with fields: {instruction: question, output: answer}",
            id="wordings",
        ),
        pytest.param(
            [{"prompt": "a", "completion": "b"}],
            {},
            "set datasets[0].type to one of alpaca or user_defined with fields: {instruction: prompt, output: completion}",
            id="renamed",
        ),
        pytest.param(
            [{"story": "a"}],
            {},
            "no type fits its columns (story); a type needs messages or conversations (chat_template)",
            id="no type",
        ),
        pytest.param(
            [{"instruction": "a", "output": "b"}],
            {"datasets": [{"source": "volume://runs/data.jsonl", "fields": {"output": "outptu"}}]},
            "no type fits its columns (instruction, output): datasets[0].fields.output names outptu, which is not among",
            id="a wrong name",
        ),
        pytest.param(
            [{"question": "a", "answer": "b"}],
            {"datasets": [{"source": "volume://runs/data.jsonl", "type": "alpaca"}]},
            "line 1: type alpaca needs the column instruction and output; this row has question, answer, and none of the "
            "first rows has them all: name the right ones in datasets[0].fields",
            id="columns",
        ),
        pytest.param([], {}, "volume://runs/data.jsonl: has no row", id="empty"),
        pytest.param(
            [{"instruction": "a", "output": ""}, {"instruction": "b", "output": ""}],
            {},
            "no row has a token to train on: all labels of 2 rows are masked, -100 (the first: volume://runs/data.jsonl, "
            "line 1)",
            id="all masked",
        ),
        pytest.param(
            [{"input_ids": [1, 999]}], {}, "line 1: the token id 999 is not in the model's vocabulary (0 to", id="range"
        ),
        pytest.param(
            [{"text": "red"}] * 3,
            {"evaluation": {"holdout": {"count": 3}}},
            "evaluation.holdout would keep 3 of 3 rows out of training and leave none",
            id="holdout",
        ),
    ],
)
def test_unusable_data_is_refused(storage: Path, rows: list[Any], changes: dict[str, Any], words: str) -> None:
    """What cannot be trained on is exit code 65, with the remedy."""
    error = refused(storage, over(storage, rows, **changes))
    assert (type(error), error.exit_code) == (DataError, 65)
    assert words in str(error)


def test_a_missing_template_is_refused_with_the_remedy(storage: Path) -> None:
    """Conversations need a template: the error says which field to set."""
    (storage / "model/chat_template.jinja").unlink()
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    error = refused(storage, over(storage, rows))
    assert (type(error), error.exit_code) == (ConfigError, 78)
    assert "has no chat template" in str(error)
    assert "set model.chatTemplate or the entry's chatTemplate to chatml, llama3," in str(error)
    assert prepared(storage, over(storage, rows, model={"chatTemplate": "chatml"})).report.used == 1


def test_a_built_in_template_needs_its_tokens(storage: Path) -> None:
    """llama3 on a ChatML tokenizer would spell its markers out; added special tokens make it whole."""
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    error = refused(storage, over(storage, rows, model={"chatTemplate": "llama3"}))
    assert "add them with model.addSpecialTokens" in str(error)
    added = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    ready = prepared(storage, over(storage, rows, model={"chatTemplate": "llama3", "addSpecialTokens": added}))
    [row] = ready.prepared.dataset(store.TRAIN)
    assert ready.tokenizer.convert_ids_to_tokens([t for t in row["labels"] if t != IGNORED]) == ["b", "<|eot_id|>"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(
            lambda m: (m / "config.json").unlink(), "config.json is missing; the directory holds", id="config"
        ),
        pytest.param(lambda m: (m / "config.json").write_text("{"), "config.json is not JSON", id="config text"),
        pytest.param(lambda m: (m / "config.json").write_text("{}"), "names no model_type", id="config empty"),
        pytest.param(lambda m: (m / "model.safetensors").unlink(), "model.safetensors is missing", id="weights"),
        pytest.param(lambda m: _cut(m / "model.safetensors"), "where its header says", id="cut"),
        pytest.param(
            lambda m: (m / "model.safetensors").write_bytes(b"version https"), "is not a safetensors file", id="pointer"
        ),
        pytest.param(lambda m: (m / "tokenizer.json").write_text("{"), "the tokenizer does not load", id="tokenizer"),
        pytest.param(lambda m: m.rename(m.with_name("other")), "there is no such directory", id="directory"),
    ],
)
def test_a_model_that_does_not_load_is_refused(storage: Path, damage: Callable[[Path], Any], words: str) -> None:
    """The path and the cause are named before any data is read: exit code 66."""
    damage(storage / "model")
    error = refused(storage, job())
    assert (type(error), error.exit_code) == (InputError, 66)
    assert str(error).startswith("model.source volume://runs/model: ")
    assert words in str(error)


def test_a_source_that_is_not_there_is_refused(storage: Path) -> None:
    """The path is named, with what is beside it."""
    error = refused(storage, job(datasets=[{"source": "volume://runs/tada.jsonl"}]))
    assert (type(error), error.exit_code) == (InputError, 66)
    assert "volume://runs/tada.jsonl: there is no such file" in str(error)
    assert "data.jsonl" in str(error)


def test_progress_counts_rows(storage: Path) -> None:
    """While it reads, prepare says how far it is."""
    seen: list[ProgressReport] = []
    reporter = Reporter(ProgressReport(role="prepare"), seen.append)
    prepare(context(storage, job()), reporter)
    assert reporter.report.rows == 48
    assert seen[0].phase == "preparing"
