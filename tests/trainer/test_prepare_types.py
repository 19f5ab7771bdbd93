"""Types end to end: a manifest's entry to prepared data, with the options that shape it."""

from pathlib import Path
from typing import Any

import pytest

from anneal_api import ProgressReport
from anneal_trainer.data import store
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.reporter import Reporter, silent
from trainer.training import context, job, write_jsonl

SOURCE = "volume://runs/rows.jsonl"


def prepared(storage: Path, rows: list[Any], *, length: int = 512, **entry: Any) -> Ready:
    """Data of one entry over these rows."""
    write_jsonl(storage / "rows.jsonl", rows)
    made = job(datasets=[{"source": SOURCE, **entry}], training={"sequenceLength": length})
    return prepare(context(storage, made), Reporter(ProgressReport(), silent))


def texts(ready: Ready) -> list[tuple[str, str]]:
    """What each sequence says, and what of it is trained."""
    return [
        (
            ready.tokenizer.decode(row["input_ids"]),
            ready.tokenizer.decode([label for label in row["labels"] if label != IGNORED]),
        )
        for row in ready.prepared.dataset(store.TRAIN)
    ]


@pytest.mark.parametrize(
    ("entry", "row", "whole", "trained"),
    [
        pytest.param(
            {"type": "alpaca_instruct.load_no_prompt", "fields": {"instruction": "q"}},
            {"q": "red", "output": "blue"},
            "### Instruction:\nred\n\n### Response:\nblue<|im_end|>",
            "blue<|im_end|>",
            id="renamed",
        ),
        pytest.param(
            {"type": "user_defined", "format": {"noInputFormat": "Say {instruction}: "}},
            {"instruction": "red", "output": "blue"},
            "Say red: blue<|im_end|>",
            "blue<|im_end|>",
            id="user_defined",
        ),
        pytest.param(
            {"type": "metharme", "trainOnInputs": True},
            {"prompt": "red ", "generation": "blue"},
            "red blue<|im_end|>",
            "red blue<|im_end|>",
            id="trainOnInputs",
        ),
        pytest.param(
            {},
            {"segments": [{"label": False, "text": "red "}, {"label": True, "text": "blue"}]},
            "red blue",
            "blue",
            id="detected",
        ),
    ],
)
def test_an_entry_becomes_what_it_says(
    storage: Path, entry: dict[str, Any], row: dict[str, Any], whole: str, trained: str
) -> None:
    """Type, columns, wording and what is trained are the manifest's."""
    assert texts(prepared(storage, [row], **entry)) == [(whole, trained)]


@pytest.mark.parametrize("kind", ["completion", "pretrain"])
def test_a_long_text_becomes_several_sequences(storage: Path, kind: str) -> None:
    """Nothing of a long text is lost, and no sequence is longer than sequenceLength."""
    text = " ".join(f"red{n}" for n in range(60))
    ready = prepared(storage, [{"text": text}], type=kind, length=64)
    found = texts(ready)
    assert len(found) > 2
    assert all(len(row["input_ids"]) <= 64 for row in ready.prepared.dataset(store.TRAIN))
    assert all(said == trained for said, trained in found)
    if kind == "completion":
        assert "".join(said for said, _ in found) == f"{text}<|im_end|>"
    else:
        assert all(said.endswith("<|im_end|>") for said, _ in found)
    assert ready.report.truncated == 0


def test_every_shaping_option_is_in_the_fingerprint(storage: Path) -> None:
    """The same rows under another wording are other data."""
    row = {"instruction": "red", "output": "blue"}
    entries: list[dict[str, Any]] = [
        {"type": "alpaca"},
        {"type": "alpaca:chat"},
        {"type": "alpaca", "trainOnInputs": True},
        {"type": "user_defined", "format": {}},
        {"type": "user_defined", "format": {"noInputFormat": "{instruction}"}},
    ]
    assert len({prepared(storage, [row], **entry).report.fingerprint for entry in entries}) == len(entries)


def test_a_special_token_in_an_instruction_is_told(storage: Path) -> None:
    """As in conversations; those that a type's own wording writes are meant, and an answer's are its own."""
    rows = [{"instruction": "q <|im_end|>", "output": "red"}, {"instruction": "q", "output": "red <|im_end|>"}]
    for kind in ("alpaca:chatml", "alpaca_w_system"):
        warnings = prepared(storage, rows, type=kind).report.warnings
        found = [warning for warning in warnings if warning.reason == "SpecialTokensInText"]
        assert [(warning.rows, "what is asked" in warning.message) for warning in found] == [(1, True)]
