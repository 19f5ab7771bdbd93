"""What was made of the data, for a person: used by `anneal status` and `anneal prepare`. Pure; imports no trainer."""

from anneal_api.datasetreport import DatasetReport, LengthBin
from anneal_api.words import counted
from anneal_cli.columns import pairs

_BAR = 30


def data_lines(report: DatasetReport) -> list[str]:
    """The report in aligned lines."""
    held = f", {report.eval_rows:,} held out" if report.eval_rows else ""
    special = ", ".join(f"{each.token} {each.count:,}" for each in report.special_tokens)
    rows: list[tuple[str, object]] = [
        ("Data", f"{report.used:,} of {counted(report.rows, 'row')} trained on{held}"),
        ("Types", ", ".join(report.types)),
        *(("Detected", words) for words in report.detected),
        ("Tokens", f"{report.tokens:,}{_trained(report)}"),
        ("Special", f"{special} (trained)" if special else None),
        ("Longest", f"{counted(report.longest, 'token')}; {counted(report.truncated, 'row')} truncated"),
        *(("Dropped", f"{each.rows:,} {each.reason}{_first(each.first)}") for each in report.dropped),
        ("Duplicates", f"{counted(report.duplicates, 'row')} equal to an earlier one" if report.duplicates else None),
        ("Sequences", _sequences(report)),
        ("Prepared by", report.prepared_by),
    ]
    return pairs([*rows, *(("Warning", warning.message) for warning in report.warnings)])


def length_lines(bins: list[LengthBin]) -> list[str]:
    """A histogram of row lengths."""
    most = max((each.rows for each in bins), default=1)
    return [
        f"  up to {each.up_to:>9,} tokens  {'█' * round(_BAR * each.rows / most):<{_BAR}}  {each.rows:,}"
        for each in bins
    ]


def _trained(report: DatasetReport) -> str:
    """Nothing of prompts, whose answers are trained."""
    trained = report.trained_tokens
    return f", {trained:,} of them trained ({trained / report.tokens:.1%})" if trained else ""


def _first(place: str | None) -> str:
    return f", the first: {place}" if place else ""


def _sequences(report: DatasetReport) -> str | None:
    if not report.packed:
        return f"{report.sequences:,}" if report.sequences else None
    full = f", {report.packing_efficiency:.1%} full" if report.packing_efficiency else ""
    return f"{counted(report.sequences, 'pack')}{full}"
