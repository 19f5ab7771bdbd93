"""The quickstart's model and data: real, deterministic, and made once."""

import json
from pathlib import Path

import pytest

from anneal_trainer.__main__ import main
from anneal_trainer.files import digest_of
from anneal_trainer.quickstart import corpus, judgements, model
from anneal_trainer.quickstart.build import build


def test_thousands_of_real_rows() -> None:
    """Python documents itself: questions with text answers, none twice."""
    rows = corpus.rows()
    assert len(rows) > 2000
    assert len({row["output"] for row in rows}) == len(rows)
    assert all(row.keys() == {"instruction", "input", "output"} for row in rows)
    assert all(corpus.SHORTEST_ANSWER <= len(row["output"]) <= corpus.LONGEST_ANSWER for row in rows)
    [dumps] = [row for row in rows if row["instruction"] == "What does the Python function `json.dumps` do?"]
    assert dumps["input"].startswith("dumps(obj, *, skipkeys=False")
    assert dumps["output"] == (json.dumps.__doc__ or "").split("\n\n")[0].strip() or dumps["output"].startswith(
        "Serialize"
    )
    assert not any(" at 0x" in value for row in rows for value in row.values())


def test_the_same_files_every_time(tmp_path: Path) -> None:
    """Two builds agree to the byte, and what is there is left alone."""
    texts = [row["output"] for row in corpus.rows()[:200]]
    for name in ("one", "two"):
        model.build(texts, tmp_path / name, vocabulary=300, width=32, heads=2)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A second call makes nothing."""
    (tmp_path / "model").mkdir()
    assert build(tmp_path)
    assert len((tmp_path / "data/train.jsonl").read_text().splitlines()) == len(corpus.rows())
    assert not build(tmp_path)
    assert list((tmp_path / "model").iterdir()) == []


def test_what_was_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file of data by its name, where to begin with it is seen at once."""
    (tmp_path / "model").mkdir()
    assert main(["quickstart", "--out", str(tmp_path)]) == 0
    files = ", ".join(f"data/{name}.jsonl" for name in ("chats", "judged", "pairs", "prompts", "steps", "train"))
    assert capsys.readouterr().err == f"{tmp_path}: made model/, {files}\n"


def test_judgements_are_what_their_types_read() -> None:
    """Hundreds of each; the better answer is the shorter one; a sum is wrong from its first wrong step on."""
    rows = corpus.rows()
    pairs, judged, steps = list(judgements.pairs(rows)), list(judgements.judged(rows)), list(judgements.steps())
    assert len(pairs) == len(judged) > 1000
    assert all(len(pair["chosen"]["content"]) < len(pair["rejected"]["content"]) for pair in pairs)
    assert 0.4 < sum(row["label"] for row in judged) / len(judged) < 0.6
    assert len(list(judgements.chats(rows))) == len(rows)
    for row in steps:
        true = [eval(line.replace("=", "==")) for line in row["completions"]]
        first_wrong = true.index(False) if False in true else len(true)
        assert row["labels"] == [place < first_wrong for place in range(len(true))]
