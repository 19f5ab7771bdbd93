"""The type of each source, given or found from the columns of its first row; checked against them either way.

Not here: what a type needs (`formats`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from anneal_api.dataset import DatasetSpec
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import formats, sources
from anneal_trainer.data.problems import Problems


@dataclass(frozen=True)
class Detected:
    """A source on its way: with its type, its chunks, and words for people if the type was found and not given."""

    dataset: DatasetSpec
    chunks: Iterator[sources.Chunk]
    words: str | None

    @property
    def kind(self) -> str:
        """The type."""
        return str(self.dataset.type)


def detected(name: str, dataset: DatasetSpec, context: Context, tokenizer: Any, problems: Problems) -> Detected | None:
    """None, and a problem, if there is no row or its columns fit no type or not the one given."""
    chunks = sources.chunks(dataset, context.volumes, problems, seed=context.spec.training.seed)
    seen, aside = list[sources.Chunk](), Problems()
    for chunk in chunks:
        seen.append(chunk)
        first = next(chunk.read(aside), None)
        if first is not None:
            break
    else:
        problems.absorb(aside)
        if not aside.total:
            problems.add(dataset.source, "has no row", fatal=True)
        return None
    columns = list(first.row)
    kind = _kind(name, dataset, columns, problems)
    if kind is None:
        return None
    typed = dataset.model_copy(update={"type": kind})
    # Whatever is wrong with the options alone (a template that is not there) is found before processes start.
    formats.formatter(typed, renderer=lambda: model.renderer(context.spec.model, tokenizer))
    words = None if dataset.type else f"{name}: {kind}, from the columns {', '.join(map(str, columns))}"[:256]
    return Detected(typed, chain(seen, chunks), words)


def _kind(name: str, dataset: DatasetSpec, columns: list[str], problems: Problems) -> Any:
    fields = dataset.fields
    kind = dataset.type or formats.detect(columns, fields)
    there = ", ".join(map(str, columns)) or "no column"
    if kind is None:
        problems.add(
            dataset.source,
            f"no type fits its columns ({there}); a type needs {formats.EXPECTED}: "
            f"set {name}.type, and {name}.fields if the columns have other names",
            fatal=True,
        )
        return None
    needed = formats.needed(kind, fields)
    missing = [key for key, choices in needed.items() if not set(choices) & set(columns)]
    if missing:
        wanted = " and ".join(" or ".join(needed[key]) for key in missing)
        problems.add(
            dataset.source,
            f"type {kind} needs the column {wanted}; this source has {there}: "
            f"name the right ones in {name}.fields, or set another {name}.type",
            fatal=True,
        )
        return None
    return kind
