"""The type of each source, given or found from its first row; checked against the columns either way.

A given type is not judged by one bad row: `preparation.onBadRow` says what becomes of that.
Not here: what a type needs (`reading`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from typing import Any

from anneal_api.datasource import DataSource
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import sources
from anneal_trainer.data.formats.values import names, renamed
from anneal_trainer.data.pieces import Note, RowError
from anneal_trainer.data.problems import Problems, line
from anneal_trainer.data.reading import Reading, reading_of

# Rows of which one must have the columns of a type that is given.
_LOOKED_AT = 20


@dataclass(frozen=True)
class Detected:
    """A source on its way: with its type, its chunks, and words for people if the type was found and not given."""

    dataset: Any
    chunks: Iterator[sources.Chunk]
    words: str | None

    @property
    def kind(self) -> str:
        """The type."""
        return str(self.dataset.type)


def detected(name: str, dataset: DataSource, context: Context, tokenizer: Any, problems: Problems) -> Detected | None:
    """None, and a problem, if there is no row or its columns fit no type or not the one given."""
    before, reading = problems.total, reading_of(context.spec)
    chunks = sources.chunks(dataset, context.volumes, problems, seed=context.spec.training.seed)
    seen, aside = list[sources.Chunk](), Problems()
    for chunk in chunks:
        seen.append(chunk)
        rows = list(islice(chunk.read(aside), _LOOKED_AT if _type(dataset) else 1))
        if rows:
            break
    else:
        problems.absorb(aside)
        if problems.total == before:
            problems.add(dataset.source, "has no row: write one at least, or leave the source out", fatal=True)
        return None
    if _type(dataset):
        typed = _given(reading, name, dataset, rows, problems)
    else:
        typed = _found(reading, name, dataset, rows[0].row, problems)
    if typed is None:
        return None
    # Whatever is wrong with the options alone (a template that is not there) is found before processes start.
    reading.formatter(typed, lambda: model.renderer(context.spec.model, tokenizer))
    found = chain(seen, chunks)
    if _type(dataset):
        return Detected(typed, found, None)
    named = "".join(f", {slot} in {column}" for slot, column in renamed(typed.fields).items())
    words = line(f"{name}: {typed.type}{named}, from the columns {names(rows[0].row)}")[:256]
    return Detected(typed, (Watched(chunk, typed, reading) for chunk in found), words)


@dataclass(frozen=True)
class Watched:
    """A chunk of a source whose type was detected: rows with columns that speak of another type are told."""

    chunk: sources.Chunk
    dataset: Any
    reading: Reading

    def read(self, problems: Problems) -> Iterator[sources.Placed]:
        """Its rows, in order."""
        told = cache(partial(_other, self.reading, self.dataset))
        for placed in self.chunk.read(problems):
            note = told(tuple(placed.row))
            if note is not None:
                problems.remark(placed.place, note)
            yield placed


def _other(reading: Reading, dataset: Any, columns: tuple[str, ...]) -> Note | None:
    kind = reading.detect(columns, dataset)
    if kind is None or kind == dataset.type:
        return None
    words = f"have the columns of type {kind} and are read as {dataset.type}, as the first row is: set a type"
    return Note("ColumnsUnread", words)


def explained(reading: Reading, row: dict[str, Any], dataset: Any, error: RowError) -> str:
    """What is wrong with a row that its type refuses: every column that it lacks, and the type that it looks like."""
    assert dataset.type is not None, "the type is detected before rows are formatted"
    there = [name for name, value in row.items() if value is not None]
    needed = reading.needed(dataset).values()
    lacked = [choices for choices in needed if not set(choices) & set(there)]
    other = reading.detect(there, dataset.model_copy(update={"fields": None}))
    if not lacked or (other is None and any(name in row for choices in lacked for name in choices)):
        return str(error)
    wanted = " and ".join(" or ".join(map(repr, choices)) for choices in lacked)
    told = f"the column{'s' if len(lacked) > 1 else ''} {wanted} {'are' if len(lacked) > 1 else 'is'} missing"
    if other not in (None, dataset.type):
        return f"{told}; {names(there)} would be type {other}: give rows of another type an entry of their own"
    return f"{told}; this row has {names(row)}"


def _type(dataset: Any) -> str | None:
    """The type that the entry gives; every kind of rows has one."""
    found: str | None = dataset.type
    return found


def _detected(reading: Reading, row: dict[str, Any], dataset: Any) -> Any:
    """By the columns, and where what these speak of is null in the row, by those that are not."""
    kind = reading.detect(row, dataset)
    there = [name for name, value in row.items() if value is not None]
    if kind is None or all(set(choices) & set(there) for choices in _needed(reading, kind, dataset).values()):
        return kind
    return reading.detect(there, dataset) or kind


def _needed(reading: Reading, kind: str, dataset: Any) -> dict[str, tuple[str, ...]]:
    return reading.needed(dataset.model_copy(update={"type": kind}))


def _given(reading: Reading, name: str, dataset: Any, rows: list[sources.Placed], problems: Problems) -> Any:
    """The dataset, if one of its first rows has the columns of its type; None, and a problem, if not."""
    needed = _needed(reading, dataset.type, dataset)
    if any(not _missing(needed, placed.row) for placed in rows):
        return dataset
    first = rows[0]
    wanted = " and ".join(" or ".join(needed[key]) for key in _missing(needed, first.row))
    problems.add(
        first.place,
        f"type {dataset.type} needs the column {wanted}; this row has {names(first.row)}, and none of the first rows "
        f"has them all: name the right ones in {name}.fields, or set another {name}.type",
        fatal=True,
    )
    return None


def _missing(needed: dict[str, tuple[str, ...]], row: dict[str, Any]) -> list[str]:
    return [key for key, choices in needed.items() if not set(choices) & set(row)]


def _found(reading: Reading, name: str, dataset: Any, row: dict[str, Any], problems: Problems) -> Any:
    """The dataset with the type that its first row speaks of; None, and a problem, if it speaks of none."""
    kind, fields = _detected(reading, row, dataset), dataset.fields
    if kind is None and fields is None:
        kind, fields = reading.detect_turns(row) or (None, None)
    if kind is not None:
        return dataset.model_copy(update={"type": kind, "fields": fields})
    problems.add(dataset.source, _undetected(reading, name, dataset, row), fatal=True)
    return None


def _undetected(reading: Reading, name: str, dataset: Any, row: dict[str, Any]) -> str:
    """Why no type was found, and what to set: a name in `fields` that is wrong, a choice, or what a type needs."""
    there = names(row)
    for slot, column in renamed(dataset.fields).items():
        if column not in row:
            return f"no type fits its columns ({there}): {name}.fields.{slot} names {column}, which is not among them"
    choices = reading.choices(row, dataset)
    if choices:
        return f"its columns ({there}) can be worded in several ways: set {name}.type to one of {choices}"
    return (
        f"no type fits its columns ({there}); a type needs {reading.expected}: "
        f"set {name}.type, and {name}.fields if the columns have other names"
    )
