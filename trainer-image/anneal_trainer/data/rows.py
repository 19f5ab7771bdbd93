"""The first pass over one chunk, in any process: rows read, formatted, tokenized, cut, and spooled with their facts.

What comes back is small and flat: a few numbers a row, where its tokens are, and a bounded list of what is wrong.
Not here: any decision that needs rows of another chunk (`decide`).
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from anneal_api.datasource import DataSource
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import detect, near, shape
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import RowError
from anneal_trainer.data.problems import Lost, Problems
from anneal_trainer.data.reading import Read, limits_of, reading_of
from anneal_trainer.data.sources import Chunk, Placed
from anneal_trainer.data.spool import TYPE, WIDTH, SpoolWriter

_BATCH = 512
POWERS = 32
# Rows of each chunk that are looked at closely.
CLOSELY = 4


@dataclass(frozen=True)
class Task:
    """One chunk of the dataset with the number `entry`, whose type is known by now."""

    entry: int
    dataset: DataSource
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
    value: list[Any] = field(default_factory=list)
    offset: list[Any] = field(default_factory=list)
    # Where the texts of rows that have some are in the spool: first byte and length.
    text: list[Any] = field(default_factory=list)
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
        self._reading = reading_of(spec)
        self._format = cache(self._formatter)
        self._limits = limits_of(spec)

    def __call__(self, task: Task) -> Made:
        """The first pass over one chunk."""
        import numpy as np

        made = Made(task.entry, self._spool.path, histogram=np.zeros(POWERS, dtype=np.int64))
        rows = _counted(task.chunk.read(made.problems), made)
        for batch in _batches(self._examples(rows, task, made)):
            self._keep(batch, made)
        return made

    def _formatter(self, entry: int, dataset_json: str) -> Callable[[dict[str, Any]], Any]:
        del entry
        return self._reading.formatter(
            self._reading.parsed(dataset_json), lambda: model.renderer(self._context.spec.model, self._tokenizer)
        )

    def _examples(self, rows: Iterator[Placed], task: Task, made: Made) -> Iterator[tuple[Placed, Any]]:
        form = self._format(task.entry, task.dataset.model_dump_json(exclude_none=True))
        for placed in rows:
            try:
                example = form(placed.row)
                self._note(placed, example, made)
                yield placed, example
            except RowError as error:
                made.problems.add(placed.place, detect.explained(self._reading, placed.row, task.dataset, error))

    def _note(self, placed: Placed, example: Any, made: Made) -> None:
        """What is worth telling of a good row. Some of it costs time: the first rows show that."""
        for note in self._reading.notes(example, self._encoder, closely=made.rows <= CLOSELY):
            made.problems.remark(placed.place, note)

    def _keep(self, batch: list[tuple[Placed, Any]], made: Made) -> None:
        bad = made.problems.rows
        read = self._reading.read(batch, self._encoder, self._limits, made.problems)
        # A row that is read as several examples counts as so many, good or bad.
        made.rows += max(0, len(read) + made.problems.rows - bad - len(batch))
        self._count(read, made)
        for row in read:
            self._lose(row, row.reason, made)
        rows, flat = self._checked([row for row in read if not row.reason], made.problems)
        if not rows:
            return
        shaped = shape.shape(flat, len(rows), self._reading.limits(self._limits))
        for row, reason in zip(rows, shaped.reasons, strict=True):
            self._lose(row, reason, made)
        self._spool_rows(rows, flat, shaped, made)

    def _lose(self, row: Read, reason: str, made: Made) -> None:
        """Count a row that is not trained on, if there is a reason."""
        if reason == shape.TOO_LONG and self._limits.long_rows == "error":
            made.problems.add(row.placed.place, _too_long(row.length, self._limits), fatal=True)
        elif reason:
            made.lost.setdefault(reason, Lost()).add(row.placed.place)

    def _checked(self, rows: list[Read], problems: Problems) -> tuple[list[Read], shape.Flat]:
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
                for part in row.sequences:
                    self._encoder.check(part)
                good.append(row)
            except RowError as error:
                problems.add(row.placed.place, str(error))
        return good, shape.Flat.of([row.sequences for row in good])

    def _count(self, rows: list[Read], made: Made) -> None:
        import numpy as np

        full = np.fromiter((row.length for row in rows), dtype=np.int64, count=len(rows))
        powers = np.ceil(np.log2(np.maximum(full, 1))).astype(np.int64)
        made.histogram += np.bincount(powers, minlength=POWERS)[:POWERS]

    def _spool_rows(self, rows: list[Read], flat: shape.Flat, shaped: shape.Shaped, made: Made) -> None:
        import numpy as np

        numbers, pieces = np.unique(shaped.row, return_counts=True)
        if not numbers.size:
            return
        pairs = np.stack((flat.ids, flat.labels), axis=1).astype(TYPE)
        bounds = zip(shaped.start.tolist(), shaped.end.tolist(), strict=True)
        place = self._spool.write([np.concatenate([pairs[start:end] for start, end in bounds])])
        lengths = shaped.end - shaped.start
        chosen = [rows[number] for number in numbers.tolist()]
        kept = [row.placed for row in chosen]
        values = np.array([row.value for row in chosen], dtype=np.float32)
        # All tokens of a row count, cut or not: its first sequence's first to its last one's last.
        first, last = np.searchsorted(flat.row, numbers), np.searchsorted(flat.row, numbers, side="right")
        whole = list(zip(flat.starts[first].tolist(), flat.starts[last].tolist(), strict=True))
        facts = made.facts
        facts.offset.append(place + WIDTH * (np.cumsum(lengths) - lengths))
        facts.length.append(lengths.astype(np.int32))
        facts.trained.append(shaped.trained.astype(np.int32))
        facts.pieces.append(pieces.astype(np.int32))
        facts.cut.append(shaped.cut[numbers] | np.array([row.cut for row in chosen]))
        facts.value.append(values)
        facts.number.append(np.array([placed.number for placed in kept], dtype=np.int64))
        texts = [row.text.encode() for row in chosen]
        if any(texts):
            facts.text.append(self._spool_texts(texts))
        facts.digest.append(_digests(pairs, whole, values, texts))
        _note_files(facts, kept, made.kept)
        if self._per_band:
            made.similar.append(self._sign(pairs[:, 0], whole))
        made.kept += len(kept)

    def _spool_texts(self, texts: list[bytes]) -> Any:
        """Keep the texts of these rows beside their tokens."""
        import numpy as np

        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        place = self._spool.write([np.frombuffer(b"".join(texts), dtype=np.uint8)])
        return np.stack((place + np.cumsum(lengths) - lengths, lengths), axis=1)

    def _sign(self, ids: Any, whole: list[tuple[int, int]]) -> near.Part:
        """Keep the signatures of these rows beside their tokens."""
        import numpy as np

        assert self._per_band is not None, "asked for with dropNear alone"
        rows = [ids[start:end] for start, end in whole]
        starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
        found = near.signatures(np.concatenate(rows), starts)
        place = self._spool.write([found, near.keys(found, self._per_band)])
        return near.Part(self._spool.path, place, len(rows))


def _counted(rows: Iterator[Placed], made: Made) -> Iterator[Placed]:
    """The rows, each counted, and those between them that cannot be read: these are problems and nothing else."""
    while True:
        bad = made.problems.rows
        placed = next(rows, None)
        made.rows += made.problems.rows - bad
        if placed is None:
            return
        made.rows += 1
        yield placed


def _too_long(length: int, limits: shape.Limits) -> str:
    return (
        f"has {length} tokens, more than {limits.field} {limits.most}: raise it, or set preparation.longRows to "
        "truncate or drop"
    )


def _digests(pairs: Any, whole: list[tuple[int, int]], values: Any, texts: list[bytes]) -> Any:
    """Of tokens, labels, value and text: the same answer judged twice, and differently, is no repetition."""
    import numpy as np

    data = memoryview(pairs).cast("B")
    found = b""
    for (start, end), salt, text in zip(whole, map(np.float32.tobytes, values), texts, strict=True):
        made = hashlib.blake2b(data[WIDTH * start : WIDTH * end], digest_size=16, salt=salt)
        made.update(text)
        found += made.digest()
    return np.frombuffer(found, dtype=np.uint64).reshape(-1, 2)


def _note_files(facts: Facts, places: list[Placed], kept: int) -> None:
    for index, placed in enumerate(places, start=kept):
        if not facts.files or facts.files[-1][1:] != (placed.file, placed.unit):
            facts.files.append((index, placed.file, placed.unit))


def _batches(items: Iterator[tuple[Placed, Any]]) -> Iterator[list[tuple[Placed, Any]]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
