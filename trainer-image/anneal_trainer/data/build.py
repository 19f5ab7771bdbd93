"""Rows to prepared data: every source read, every row formatted, tokenized, cut and judged, then written.

Nothing is trained on a data set with a row that cannot be read or understood: such rows are collected and told
together. A row that is fine but leaves nothing to train on (an empty answer, a prompt that fills the sequence) is
dropped and counted.
Not here: where prepared data is kept and found (`store`).
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from anneal_api.dataset import DatasetSpec, DatasetType, EvaluationSpec
from anneal_api.status import DatasetReport
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import formats, sources, store
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import IGNORED, Example, RowError, Tokens
from anneal_trainer.data.problems import Problems
from anneal_trainer.errors import DataError
from anneal_trainer.reporter import Reporter

_BATCH = 512


@dataclass
class Tally:
    """What is counted while rows go by."""

    rows: int = 0
    truncated: int = 0
    untrained: int = 0
    first_untrained: str = ""
    types: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


def build(context: Context, tokenizer: Any, model_path: Path, *, draft: Path, reporter: Reporter) -> DatasetReport:
    """Write the splits into `draft` and say what was made; DataError with every problem if any row is bad."""
    spec, problems, tally = context.spec, Problems(), Tally()
    encoder = Encoder.of(tokenizer, model.vocabulary(model_path, tokenizer))
    writer = store.SplitWriter(draft / store.TRAIN)
    for index, dataset in enumerate(spec.datasets):
        source = _Source(dataset, f"datasets[{index}]", context, tokenizer, problems, tally)
        for placed in _batches(source.examples()):
            writer.write(_kept(placed, encoder, spec.training.sequence_length, problems=problems, tally=tally))
            reporter.update(rows=tally.rows)
    writer.close()
    problems.raise_if_any()
    _check_any_left(tally)
    held_out = _held_out(len(tally.lengths), spec.evaluation, spec.training.seed)
    if held_out:
        store.split_off(draft, held_out)
    return _report(tally, held_out)


@dataclass(frozen=True)
class _Source:
    """One `datasets[]` entry on its way to examples."""

    dataset: DatasetSpec
    name: str
    context: Context
    tokenizer: Any
    problems: Problems
    tally: Tally

    def examples(self) -> Iterator[tuple[sources.Placed, Example]]:
        """Every row that its type understands."""
        rows = sources.rows(self.dataset, self.context.volumes, self.problems)
        first = next(rows, None)
        if first is None:
            if not self.problems.total:
                self.problems.add(self.dataset.source, "has no row")
            return
        kind = self._kind(first)
        if kind is None:
            return
        form = formats.formatter(
            kind, self.dataset.fields, renderer=lambda: model.renderer(self.context.spec.model, self.tokenizer)
        )
        self.tally.types.append(kind)
        yield from self._formatted(first, rows, form)

    def _formatted(
        self, first: sources.Placed, rest: Iterator[sources.Placed], form: formats.Format
    ) -> Iterator[tuple[sources.Placed, Example]]:
        for placed in _chain(first, rest):
            self.tally.rows += 1
            try:
                yield placed, form(placed.row)
            except RowError as error:
                self.problems.add(placed.place, str(error))

    def _kind(self, first: sources.Placed) -> DatasetType | None:
        """The type given or detected; None, and a problem, if the columns do not fit it."""
        columns, fields = list(first.row), self.dataset.fields
        kind = self.dataset.type or formats.detect(columns, fields)
        there = ", ".join(map(str, columns)) or "no column"
        if kind is None:
            self.problems.add(
                self.dataset.source,
                f"no type fits its columns ({there}); a type needs {formats.EXPECTED}: "
                f"set {self.name}.type, and {self.name}.fields if the columns have other names",
            )
            return None
        needed = formats.needed(kind, fields)
        missing = [name for name, choices in needed.items() if not set(choices) & set(columns)]
        if missing:
            wanted = " and ".join(" or ".join(needed[name]) for name in missing)
            self.problems.add(
                self.dataset.source,
                f"type {kind} needs the column {wanted}; this source has {there}: "
                f"name the right ones in {self.name}.fields, or set another {self.name}.type",
            )
            return None
        return kind


def _chain(first: sources.Placed, rest: Iterable[sources.Placed]) -> Iterator[sources.Placed]:
    yield first
    yield from rest


def _batches(items: Iterator[tuple[sources.Placed, Example]]) -> Iterator[list[tuple[sources.Placed, Example]]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


def _kept(
    placed: list[tuple[sources.Placed, Example]], encoder: Encoder, most: int, *, problems: Problems, tally: Tally
) -> Iterator[Tokens]:
    """The sequences of a batch that have something to train on, cut to `most` tokens."""
    for (place, _), tokens in zip(placed, encoder.encode([example for _, example in placed]), strict=True):
        try:
            encoder.check(tokens)
        except RowError as error:
            problems.add(place.place, str(error))
            continue
        cut = Tokens(tokens.input_ids[:most], tokens.labels[:most])
        # The first token is nobody's prediction, so a label there trains nothing.
        trained = sum(label != IGNORED for label in cut.labels[1:])
        if not trained:
            tally.untrained += 1
            tally.first_untrained = tally.first_untrained or place.place
            continue
        tally.truncated += len(tokens.input_ids) > most
        tally.lengths.append(len(cut.input_ids))
        tally.trained.append(trained)
        yield cut


def _check_any_left(tally: Tally) -> None:
    if not tally.lengths:
        raise DataError(
            f"no row has a token to train on: all {tally.rows} rows have only masked labels, -100 (the first: "
            f"{tally.first_untrained}); look for empty answers, conversations without an assistant turn, or prompts "
            f"that are longer than training.sequenceLength"
        )


def _held_out(rows: int, evaluation: EvaluationSpec | None, seed: int) -> set[int]:
    """The numbers of the rows that are held out: the same for the same rows and seed."""
    if evaluation is None or evaluation.holdout is None:
        return set()
    holdout = evaluation.holdout
    count = holdout.count if holdout.count is not None else max(1, round(rows * (holdout.fraction or 0)))
    if count >= rows:
        raise DataError(
            f"evaluation.holdout would keep {count} of {rows} rows out of training and leave none: make it smaller"
        )
    return set(random.Random(seed).sample(range(rows), count))  # noqa: S311 - a reproducible choice, not a secret


def _report(tally: Tally, held_out: set[int]) -> DatasetReport:
    used = [index for index in range(len(tally.lengths)) if index not in held_out]
    return DatasetReport(
        rows=tally.rows,
        used=len(used),
        eval_rows=len(held_out),
        truncated=tally.truncated,
        tokens=sum(tally.lengths[index] for index in used),
        trained_tokens=sum(tally.trained[index] for index in used),
        sequences=len(used),
        longest=max(tally.lengths[index] for index in used),
        types=tally.types,
        warnings=list(_warnings(tally)),
        prepared_time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _warnings(tally: Tally) -> Iterator[str]:
    if tally.untrained:
        yield (
            f"{tally.untrained} of {tally.rows} rows have no token to train on and are dropped "
            f"(the first: {tally.first_untrained})"
        )
    if tally.truncated:
        share = tally.truncated / tally.rows
        yield f"{tally.truncated} rows ({share:.1%}) are cut to training.sequenceLength: their ends are not learnt"
