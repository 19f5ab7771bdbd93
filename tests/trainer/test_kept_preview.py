"""The preview that stays with a job: beside the data, told by the pod, and never larger than a ConfigMap holds."""

from pathlib import Path
from typing import Any

import pytest

from anneal_api import ProgressReport
from anneal_api.progress import KeptPreview
from anneal_trainer.errors import DataError
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.preview.kept import bounded
from anneal_trainer.preview.view import Preview, Segment, Shown
from anneal_trainer.reporter import Reporter, silent
from trainer.training import context, job, write_jsonl


def row(tokens: int, place: str = "a.jsonl, line 1") -> Shown:
    """A row of which every second token is trained."""
    parts = (Segment(f"<{number}>", (number,), trained=number % 2 == 1, special=False) for number in range(tokens))
    return Shown(0, place, "alpaca", tuple(parts))


def test_a_long_row_keeps_its_beginning_and_its_end() -> None:
    """The answer is at the end; counts are those of the whole row, and the gap says what is missing."""
    whole = row(100)
    short = whole.shortened(30)
    assert [segment.ids[0] for segment in short.segments] == [*range(20), *range(90, 100)]
    assert (short.tokens, short.trained) == (whole.tokens, whole.trained) == (100, 50)
    assert short.gap_words.strip() == "⋯ 70 tokens, 35 trained ⋯"
    assert whole.shortened(100) == whole


@pytest.mark.parametrize(("rows", "tokens", "most"), [(3, 40, 9_000), (1, 5000, 9_000), (10, 2000, 300_000)])
def test_it_fits_whatever_the_rows_are(rows: int, tokens: int, most: int) -> None:
    """Rows are left out from the end, the first one is always shown, and what is missing is said."""
    preview = Preview("job", 8192, tuple(row(tokens, f"a.jsonl, line {n}") for n in range(1, rows + 1)))
    kept = bounded(preview, most=most)
    assert len(kept.text.encode()) + len(kept.html.encode()) <= most
    assert "a.jsonl, line 1 " in kept.text
    shown = kept.text.count("── a.jsonl")
    assert (f"{rows - shown} more rows are not shown here" in kept.text) == (shown < rows)


def prepared(storage: Path, tmp_path: Path, **changes: Any) -> tuple[Ready, Reporter]:
    """What a prepare pod does, with its records in `tmp_path`."""
    reporter = Reporter(ProgressReport(role="prepare"), silent)
    return prepare(context(storage, job(**changes), records=tmp_path), reporter), reporter


def test_a_pod_tells_it_and_keeps_it_beside_the_data(storage: Path, tmp_path: Path) -> None:
    """The same for who prepares the data and for who finds it prepared."""
    ready, first = prepared(storage, tmp_path)
    told = KeptPreview.model_validate_json((tmp_path / "preview.json").read_bytes())
    assert told.html == (ready.prepared.path / "preview.html").read_text()
    assert told.text.count("── volume://runs/data.jsonl, line") == 3
    (tmp_path / "preview.json").unlink()
    again, second = prepared(storage, tmp_path)
    assert again.reused
    assert second.report.preview == first.report.preview is not None
    assert (tmp_path / "preview.json").exists()


def test_no_row_leaves_the_storage_if_none_may(storage: Path, tmp_path: Path) -> None:
    """With previewRows 0, also where another job's preview lies beside the same data."""
    for first in (3, 0):
        _, reporter = prepared(storage, tmp_path / str(first), preparation={"previewRows": first})
    assert reporter.report.preview is None
    assert not (tmp_path / "0/preview.json").exists()


def test_a_source_that_cannot_be_read_is_told_by_the_preparation(storage: Path, tmp_path: Path) -> None:
    """With everything else that is wrong with the data."""
    (storage / "other.jsonl").write_text("{")
    write_jsonl(storage / "data.jsonl", [{"instruction": "a", "output": None}])
    sources = [{"source": f"volume://runs/{name}.jsonl"} for name in ("data", "other")]
    with pytest.raises(DataError, match=r"(?s)other.jsonl, line 1: .*data.jsonl"):
        prepared(storage, tmp_path, datasets=sources)
