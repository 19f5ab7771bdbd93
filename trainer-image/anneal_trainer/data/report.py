"""What is told about the data: counts that add up, what was dropped and why, and what a person should look at.

The whole is `report.json`; `status.dataset` is the same without the lists of places. Not here: counting.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anneal_api.status import DatasetReport, Dropped, LengthBin, TokenCount
from anneal_trainer.data import shape
from anneal_trainer.data.rows import Lost

_TOKENS_SHOWN = 16
# Of all tokens: fewer trained ones are worth a look.
_FEW_TRAINED = 0.02


@dataclass(frozen=True)
class Built:
    """The report, and where rows were dropped, by reason."""

    report: DatasetReport
    places: dict[str, list[str]]


def dropped(lost: dict[str, Lost]) -> list[Dropped]:
    """Reasons and numbers, the most frequent reason first."""
    ranked = sorted(lost.items(), key=lambda item: -item[1].rows)
    return [
        Dropped(reason=reason, rows=found.rows, first=found.places[0][:512] if found.places else None)
        for reason, found in ranked
        if found.rows
    ]


def lengths(histogram: list[int]) -> list[LengthBin]:
    """Columns at powers of two, from the shortest row's to the longest's."""
    filled = [power for power, count in enumerate(histogram) if count]
    return [LengthBin(up_to=2**power, rows=histogram[power]) for power in range(filled[0], filled[-1] + 1)]


def special_tokens(counts: dict[int, int], tokenizer: Any) -> list[TokenCount]:
    """The most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOKENS_SHOWN]
    return [TokenCount(token=tokenizer.convert_ids_to_tokens(token)[:64], count=count) for token, count in ranked]


def warnings(report: DatasetReport, notes: dict[str, Lost], why_not_packed: str | None) -> Iterator[str]:
    """What a person should know, in sentences."""
    words = {
        shape.BAD: "cannot be read or understood and are dropped",
        shape.MASKED: "have no token to train on and are dropped",
        shape.CUT_OFF: "have their whole answer beyond training.sequenceLength and are dropped",
        shape.TOO_LONG: "are longer than training.sequenceLength and are dropped",
        "inEvaluation": "repeat an evaluation row and are dropped",
    }
    for entry in report.dropped:
        if entry.reason in words:
            yield f"{entry.rows} of {report.rows} rows {words[entry.reason]} (the first: {entry.first})"
    if report.truncated:
        share = report.truncated / report.rows
        yield f"{report.truncated} rows ({share:.1%}) are cut to training.sequenceLength: their ends are not learnt"
    gone = sum(entry.rows for entry in report.dropped if "uplicate" in entry.reason)
    if report.duplicates and not gone:
        yield (
            f"{report.duplicates} rows ({report.duplicates / report.rows:.1%}) repeat another one: "
            "preparation.duplicates dropExact would drop them"
        )
    for kind, noted in notes.items():
        yield f"{noted.rows} rows {kind} (the first: {noted.places[0]})"
    if report.trained_tokens < _FEW_TRAINED * report.tokens:
        yield f"only {report.trained_tokens / report.tokens:.2%} of the tokens are trained: are the right ones?"
    if why_not_packed:
        yield f"training.packing is off: {why_not_packed}"
