"""The first pass over one chunk, in any process: rows read, formatted, tokenized, cut, and spooled with their facts.

What comes back is small and flat: a few numbers a row, where its tokens are, and a bounded list of what is wrong.
Not here: any decision that needs rows of another chunk (`decide`).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from anneal_api.dataset import DatasetSpec
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import detect, formats, near, shape
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import Example, RowError, Text, Tokens
from anneal_trainer.data.problems import Lost, Problems
from anneal_trainer.data.seams import seam
from anneal_trainer.data.sources import Chunk, Placed
from anneal_trainer.data.spool import TYPE, WIDTH, SpoolWriter

_BATCH = 512
POWERS = 32
# Rows of each chunk whose pieces are compared with their whole text.
SEAMS = 4


@dataclass(frozen=True)
class Task:
    """One chunk of the dataset with the number `entry`, whose type is known by now."""

    entry: int
    dataset: DatasetSpec
    chunk: Chunk


@dataclass
class Facts:
    """Numbers of the rows that are kept, a column each; `files` says from which row on which file is meant."""

    number: list[Any] = field(default_factory=list)
    digest: list[Any] = field(default_factory=list)
    pieces: list[Any] = field(default_factory=list)
    length: list[Any] = field(default_factory=list)
    trained: list[Any] = field(default_factory=list)
    cut: list[Any] = field(default_factory=list)
    offset: list[Any] = field(default_factory=list)
    files: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass
class Made:
    """What came of one chunk."""

    entry: int
    spool: Path
    facts: Facts = field(default_factory=Facts)
    similar: list[near.Part] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    lost: dict[str, Lost] = field(default_factory=dict)
    rows: int = 0
    kept: int = 0
    histogram: Any = None


class _Row(NamedTuple):
    """A row with its tokens, and the sequences that these are divided into."""

    placed: Placed
    tokens: Tokens
    sequences: list[Tokens]


class Maker:
    """The work of the first pass, with what it needs once: tokenizer, encoder, one format a dataset, a spool."""

    def __init__(self, context: Context, model_path: Path, draft: Path, tokenizer: Any = None) -> None:
        spec = context.spec
        self._context = context
        self._tokenizer = tokenizer or model.load_tokenizer(spec.model, model_path)
        self._encoder = Encoder.of(self._tokenizer, model.vocabulary(model_path, self._tokenizer))
        self._spool = SpoolWriter(draft / f"rows-{os.getpid()}.spool")
        self._per_band = (
            near.band_rows(spec.preparation.similarity) if spec.preparation.duplicates == "dropNear" else None
        )
        self._format = cache(self._formatter)
        self._limits = shape.Limits(spec.training.sequence_length, spec.preparation.long_rows)

    def __call__(self, task: Task) -> Made:
        """The first pass over one chunk."""
        import numpy as np

        made = Made(task.entry, self._spool.path, histogram=np.zeros(POWERS, dtype=np.int64))
        rows = task.chunk.read(made.problems)
        for batch in _batches(self._examples(rows, task, made)):
            self._keep(batch, made)
        return made

    def _formatter(self, entry: int, dataset_json: str) -> formats.Format:
        del entry
        dataset = DatasetSpec.model_validate_json(dataset_json)
        return formats.formatter(dataset, renderer=lambda: model.renderer(self._context.spec.model, self._tokenizer))

    def _examples(self, rows: Iterator[Placed], task: Task, made: Made) -> Iterator[tuple[Placed, Example]]:
        form = self._format(task.entry, task.dataset.model_dump_json(exclude_none=True))
        for placed in rows:
            made.rows += 1
            try:
                example = form(placed.row)
                self._note(placed, example, made)
                yield placed, example
            except RowError as error:
                made.problems.add(placed.place, detect.explained(placed.row, task.dataset, error))

    def _note(self, placed: Placed, example: Example, made: Made) -> None:
        """What is worth telling of a good row. Seams cost a second tokenization: the first rows show them."""
        found = list(example.notes) if isinstance(example, Text) else []
        if made.rows <= SEAMS and (met := seam(self._encoder, example)):
            found.append(met)
        for note in found:
            made.problems.remark(placed.place, note)

    def _keep(self, batch: list[tuple[Placed, Example]], made: Made) -> None:
        tokens = self._encoder.encode([example for _, example in batch])
        rows = [
            _Row(placed, row, self._encoder.divided(example, row, self._limits.most))
            for (placed, example), row in zip(batch, tokens, strict=True)
        ]
        rows, flat = self._checked(rows, made.problems)
        if not rows:
            return
        shaped = shape.shape(flat, len(rows), self._limits)
        for row, reason in zip(rows, shaped.reasons, strict=True):
            if reason == shape.TOO_LONG and self._limits.long_rows == "error":
                words = _too_long(len(row.tokens.input_ids), self._limits.most)
                made.problems.add(row.placed.place, words, fatal=True)
            elif reason:
                made.lost.setdefault(reason, Lost()).add(row.placed.place)
        self._count(rows, made)
        self._spool_rows(rows, flat, shaped, made)

    def _checked(self, rows: list["_Row"], problems: Problems) -> tuple[list["_Row"], shape.Flat]:
        """Without the rows that the model's vocabulary does not have."""
        try:
            flat = shape.Flat.of([row.sequences for row in rows])
            if flat.valid(self._encoder.vocabulary):
                return rows, flat
        except OverflowError:
            pass
        good = []
        for row in rows:
            try:
                self._encoder.check(row.tokens)
                good.append(row)
            except RowError as error:
                problems.add(row.placed.place, str(error))
        return good, shape.Flat.of([row.sequences for row in good])

    def _count(self, rows: list["_Row"], made: Made) -> None:
        import numpy as np

        full = np.fromiter((len(row.tokens.input_ids) for row in rows), dtype=np.int64, count=len(rows))
        powers = np.ceil(np.log2(np.maximum(full, 1))).astype(np.int64)
        made.histogram += np.bincount(powers, minlength=POWERS)[:POWERS]

    def _spool_rows(self, rows: list["_Row"], flat: shape.Flat, shaped: shape.Shaped, made: Made) -> None:
        import numpy as np

        numbers, pieces = np.unique(shaped.row, return_counts=True)
        if not numbers.size:
            return
        pairs = np.stack((flat.ids, flat.labels), axis=1).astype(TYPE)
        bounds = zip(shaped.start.tolist(), shaped.end.tolist(), strict=True)
        place = self._spool.write([np.concatenate([pairs[start:end] for start, end in bounds])])
        lengths = shaped.end - shaped.start
        kept = [rows[number].placed for number in numbers.tolist()]
        # All tokens of a row count, cut or not: its first sequence's first to its last one's last.
        first, last = np.searchsorted(flat.row, numbers), np.searchsorted(flat.row, numbers, side="right")
        whole = list(zip(flat.starts[first].tolist(), flat.starts[last].tolist(), strict=True))
        facts = made.facts
        facts.offset.append(place + WIDTH * (np.cumsum(lengths) - lengths))
        facts.length.append(lengths.astype(np.int32))
        facts.trained.append(shaped.trained.astype(np.int32))
        facts.pieces.append(pieces.astype(np.int32))
        facts.cut.append(shaped.cut[numbers])
        facts.number.append(np.array([placed.number for placed in kept], dtype=np.int64))
        facts.digest.append(_digests(pairs, whole))
        _note_files(facts, kept, made.kept)
        if self._per_band:
            made.similar.append(self._sign(pairs[:, 0], whole))
        made.kept += len(kept)

    def _sign(self, ids: Any, whole: list[tuple[int, int]]) -> near.Part:
        """Keep the signatures of these rows beside their tokens."""
        import numpy as np

        assert self._per_band is not None, "asked for with dropNear alone"
        rows = [ids[start:end] for start, end in whole]
        starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
        found = near.signatures(np.concatenate(rows), starts)
        place = self._spool.write([found, near.keys(found, self._per_band)])
        return near.Part(self._spool.path, place, len(rows))


def _too_long(length: int, most: int) -> str:
    return (
        f"has {length} tokens, more than training.sequenceLength {most}: raise it, or set preparation.longRows to "
        "truncate or drop"
    )


def _digests(pairs: Any, whole: list[tuple[int, int]]) -> Any:
    import numpy as np

    data = memoryview(pairs).cast("B")
    found = [hashlib.blake2b(data[WIDTH * start : WIDTH * end], digest_size=16).digest() for start, end in whole]
    return np.frombuffer(b"".join(found), dtype=np.uint64).reshape(-1, 2)


def _note_files(facts: Facts, places: list[Placed], kept: int) -> None:
    for index, placed in enumerate(places, start=kept):
        if not facts.files or facts.files[-1][1:] != (placed.file, placed.unit):
            facts.files.append((index, placed.file, placed.unit))


def _batches(items: Iterator[tuple[Placed, Example]]) -> Iterator[list[tuple[Placed, Example]]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
