"""What is told about the data: counts that add up, what was dropped and why, and what a person should look at.

The whole is `report.json`; `status.dataset` is the same without the lists of places. Not here: counting.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anneal_api.conditions import DataReason
from anneal_api.datasetreport import DatasetReport, DataWarning, Dropped, LengthBin, TokenCount
from anneal_trainer.data import decide, shape
from anneal_trainer.data.pieces import Note
from anneal_trainer.data.problems import Lost

_TOKENS_SHOWN = 16
# Of all tokens: fewer trained ones are worth a look.
_FEW_TRAINED = 0.02
# Times as many judgements of one kind as of the other (arXiv 2402.01306, section 4.3, goes as far as that).
_MANY_MORE = 10


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


def unbalanced(wanted: Any) -> dict[tuple[str, str], Lost]:
    """A remark if one kind of judgement is so rare that it hardly counts."""
    rare = min(int(wanted.sum()), int((~wanted).sum()))
    if rare * _MANY_MORE > len(wanted) - rare:
        return {}
    kind, field = ("true", "desirable") if wanted.sum() == rare else ("false", "undesirable")
    note = Note("Unbalanced", f"have label {kind}, far fewer than the others: weigh them up with kto.{field}Weight")
    return {note.key: Lost(rare)}


def measured_too(places: list[str], rows: int) -> dict[tuple[str, str], Lost]:
    """A remark if `rows` rows are measured and trained on: `places` has the first of them."""
    note = Note(
        "TrainingRowsInEvaluation",
        "are measured and trained on too, so that the evaluation loss is too good (preparation.duplicates: dropExact "
        "would train on none of them)",
    )
    return {note.key: Lost(rows, places)} if rows else {}


def lengths(histogram: list[int]) -> list[LengthBin]:
    """Columns at powers of two, from the shortest row's to the longest's."""
    filled = [power for power, count in enumerate(histogram) if count]
    return [LengthBin(up_to=2**power, rows=histogram[power]) for power in range(filled[0], filled[-1] + 1)]


def special_ids(tokenizer: Any, vocabulary: int) -> Any:
    """For each token id, whether it is special."""
    import numpy as np

    table = np.zeros(vocabulary, dtype=bool)
    table[list(tokenizer.all_special_ids)] = True
    table[[number for number, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
    return table


def special_tokens(counts: dict[int, int], tokenizer: Any) -> list[TokenCount]:
    """The most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOKENS_SHOWN]
    return [TokenCount(token=tokenizer.convert_ids_to_tokens(token)[:64], count=count) for token, count in ranked]


_GONE = {
    shape.BAD: ("BadRowsDropped", "cannot be read or understood and are dropped"),
    shape.MASKED: ("MaskedRowsDropped", "have no token to train on and are dropped"),
    shape.CUT_OFF: (
        "AnswersCutOff",
        "have no answer, or nothing in which two answers differ, within training.sequenceLength and are dropped",
    ),
    shape.TOO_LONG: ("LongRowsDropped", "are longer than training.sequenceLength and are dropped"),
    decide.LEAKED: ("EvaluationRowsDropped", "repeat an evaluation row and are dropped"),
}


def warnings(
    report: DatasetReport, remarks: dict[tuple[str, str], Lost], why_not_packed: str | None
) -> Iterator[DataWarning]:
    """What a person should know: what is lost first."""
    for entry in report.dropped:
        if entry.reason in _GONE:
            yield _rows(*_GONE[entry.reason], entry.rows, report.rows, entry.first)
    asks = not report.trained_tokens
    cut = "are cut to training.sequenceLength, so that their ends are not"
    if asks:
        cut = "have prompts longer than training.sequenceLength less sampling.maxTokens: their beginnings are not"
    if report.truncated:
        yield _rows("RowsTruncated", f"{cut} {'read' if asks else 'learnt'}", report.truncated, report.used)
    if report.eval_truncated:
        words = f"{cut} {'read' if asks else 'measured'}"
        yield _rows("EvaluationRowsTruncated", words, report.eval_truncated, report.eval_rows)
    if report.duplicates and not any("uplicate" in entry.reason for entry in report.dropped):
        words = "repeat another one (preparation.duplicates: dropExact would drop them)"
        yield _rows("DuplicateRows", words, report.duplicates, report.rows)
    for (reason, words), found in remarks.items():
        total = report.eval_rows if reason == DataReason.TRAINING_ROWS_IN_EVALUATION else report.rows
        yield _rows(reason, words, found.rows, total, found.places[0] if found.places else None)
    if 0 < report.trained_tokens < _FEW_TRAINED * report.tokens:
        share = report.trained_tokens / report.tokens
        yield DataWarning(
            reason="FewTokensTrained", message=f"only {share:.2%} of the tokens are trained: are the right ones?"
        )
    if why_not_packed:
        yield DataWarning(reason="PackingOff", message=f"training.packing is off: {why_not_packed}")


def _rows(reason: str, words: str, rows: int, total: int, first: str | None = None) -> DataWarning:
    """A warning about some rows, worded so that their number may be one."""
    share = f"{rows:,} of {total:,}" + ("" if first else f" ({rows / total:.1%})")
    place = f" (the first: {first})" if first else ""
    return DataWarning(reason=reason, message=f"rows that {words}: {share}{place}"[:512], rows=rows)
