"""The first rows of each source of a job, formatted, tokenized, cut and packed by the functions that `prepare` uses.

Only as much is read as is shown; a row that cannot be used is shown with its problem, where `prepare` would refuse.
Not here: the job's storage, which a preview does not write, and needs for job:// sources alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from anneal_api import Job, resolve
from anneal_api.datasource import DataSource
from anneal_api.job import JobSpec
from anneal_api.sources import UnmappedVolumeError
from anneal_trainer import earlier, model
from anneal_trainer.context import Context
from anneal_trainer.data import shape
from anneal_trainer.data.build import packing_of
from anneal_trainer.data.detect import detected, explained
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.packing import pack
from anneal_trainer.data.pieces import RowError, Tokens
from anneal_trainer.data.problems import Problems, line
from anneal_trainer.data.reading import Read, Reading, limits_of, reading_of
from anneal_trainer.data.sources import Placed
from anneal_trainer.errors import InputError
from anneal_trainer.preview.view import Preview, Shown, segments

# What becomes of a row that is not trained on, by the words of `status.dataset.dropped`.
_FATES = {
    shape.MASKED: "dropped: no token of it is trained",
    shape.CUT_OFF: "dropped: its whole answer lies beyond training.sequenceLength",
    shape.TOO_LONG: "longer than training.sequenceLength: preparation.longRows says what becomes of it",
}

# A row of megabytes is shown by its beginning: parts of a divided one, tokens beyond the sequence length.
_PARTS, _CUT_SHOWN = 4, 256


@dataclass(frozen=True)
class _Reader:
    """What every row of a preview needs."""

    context: Context
    encoder: Encoder
    most: int

    @property
    def reading(self) -> Reading:
        """The kind of rows that the job has."""
        return reading_of(self.context.spec)

    def source(self, index: int, name: str, entry: DataSource) -> Iterator[Shown]:
        """The first rows of one source, or why there are none."""
        problems = Problems()
        found = detected(name, entry, self.context, self.encoder.tokenizer, problems)
        if found is not None:
            spec, tokenizer = self.context.spec, self.encoder.tokenizer
            form = self.reading.formatter(found.dataset, lambda: model.renderer(spec.model, tokenizer))
            rows = chain.from_iterable(chunk.read(problems) for chunk in found.chunks)
            kind = found.kind if index < len(spec.datasets) else f"{found.kind} (evaluation)"
            for placed in islice(rows, self.most):
                yield from self._row(Shown(index, placed.place, kind), placed, found.dataset, form)
        for place, _, words in (problem.partition(": ") for problem in problems.first):
            yield Shown(index, place, problem=words)

    def _row(
        self, empty: Shown, placed: Placed, dataset: Any, form: Callable[[dict[str, Any]], Any]
    ) -> Iterator[Shown]:
        reading, problems = self.reading, Problems()
        limits = limits_of(self.context.spec)
        try:
            example = form(placed.row)
            read = reading.read([(placed, example)], self.encoder, limits, problems)
            for part in chain.from_iterable(row.sequences for row in read):
                self.encoder.check(part)
        except RowError as error:
            yield empty.but(problem=line(explained(reading, placed.row, dataset, error)))
            return
        for problem in problems.first:
            yield empty.but(problem=problem.removeprefix(f"{placed.place}: "))
        notes = [*reading.notes(example, self.encoder, closely=True), *problems.notes]
        said = tuple(f"{note.kind}: {note.detail}" if note.detail else note.kind for note in notes)
        for row in read:
            yield from self._sequences(empty.but(notes=(*said, *reading.told(row))), row, limits)

    def _sequences(self, empty: Shown, row: Read, limits: shape.Limits) -> Iterator[Shown]:
        (judged,) = shape.shape(shape.Flat.of([row.sequences]), 1, self.reading.limits(limits)).reasons
        fate = _FATES.get(row.reason or judged, "")
        names = self.reading.names or [f"part {n} of {len(row.sequences)}" for n in range(1, len(row.sequences) + 1)]
        for name, sequence in zip(names, row.sequences[:_PARTS], strict=False):
            place = f"{empty.place} ({name})" if len(row.sequences) > 1 else empty.place
            yield self._sequence(empty.but(place=place, fate=fate), sequence, limits.most)

    def _sequence(self, empty: Shown, sequence: Tokens, most: int) -> Shown:
        if len(sequence.input_ids) <= most:
            return empty.but(segments=segments(self.encoder.tokenizer, sequence))
        kept = Tokens(sequence.input_ids[:most], sequence.labels[:most])
        end = most + _CUT_SHOWN
        rest = Tokens(sequence.input_ids[most:end], sequence.labels[most:end])
        tokenizer, lost = self.encoder.tokenizer, len(sequence.input_ids) - most
        return empty.but(segments=segments(tokenizer, kept), cut=segments(tokenizer, rest), cut_tokens=lost)


def preview(job: Job, volumes: dict[str, Path], *, rows: int, dataset: int | None) -> Preview:
    """The first `rows` rows of every source, those of evaluation last, or of source number `dataset` alone."""
    spec = resolve(job.spec)
    context = earlier.looking(job.model_copy(update={"spec": spec}), volumes)
    try:
        path = model.tokenizer_directory(spec.models[0], context)
        return first_rows(context, model.load_tokenizer(spec.model, path), path, rows=rows, dataset=dataset)
    except UnmappedVolumeError as error:
        raise InputError(str(error)) from error


def first_rows(context: Context, tokenizer: Any, model_path: Path, *, rows: int, dataset: int | None = None) -> Preview:
    """`preview` with the tokenizer at hand."""
    spec = context.spec
    reader = _Reader(context, Encoder.of(tokenizer, model.vocabulary(model_path, tokenizer)), rows)
    sources = [(i, *source) for i, source in enumerate(spec.all_datasets) if dataset in (None, i)]
    shown = tuple(row for source in sources for row in reader.source(*source))
    packed, why_not = packing_of(spec, model_path)
    notes = (f"rows are not packed: {why_not}",) if why_not else ()
    packs = _packs(shown, spec) if packed else ()
    return Preview(context.job.name or "job", spec.training.sequence_length, shown, packs, notes)


def _packs(shown: tuple[Shown, ...], spec: JobSpec) -> tuple[tuple[int, ...], ...]:
    """How the rows that are shown would share sequences if they were all there is: trained ones, then measured ones."""
    used = [index for index, row in enumerate(shown) if row.segments and not row.fate]
    trained = [index for index in used if shown[index].dataset < len(spec.datasets)]
    splits = (trained, [index for index in used if index not in trained])
    return tuple(chain.from_iterable(_split_packs(shown, split, spec) for split in splits if split))


def _split_packs(shown: tuple[Shown, ...], used: list[int], spec: JobSpec) -> list[tuple[int, ...]]:
    import numpy as np

    order, starts = pack(np.array([shown[index].tokens for index in used]), spec.training.sequence_length)
    return [tuple(used[number] for number in part.tolist()) for part in np.split(order, starts[1:-1])]
