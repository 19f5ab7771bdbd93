"""All chunks' facts put together: one array a column, so that a million rows take tens of megabytes.

Not here: what is decided from them (`decide`).
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anneal_trainer.data import near
from anneal_trainer.data.problems import Lost, Problems
from anneal_trainer.data.rows import POWERS, Facts, Made
from anneal_trainer.data.spool import Sequences


@dataclass
class Gathered:
    """What chunks made, while they come in."""

    facts: Facts = field(default_factory=Facts)
    problems: Problems = field(default_factory=Problems)
    lost: dict[str, Lost] = field(default_factory=dict)
    entries: list[tuple[int, int]] = field(default_factory=list)
    spools: list[Path] = field(default_factory=list)
    spool_of: list[tuple[int, int]] = field(default_factory=list)
    similar: list[near.Part] = field(default_factory=list)
    rows: int = 0
    kept: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * POWERS)

    def add(self, made: Made) -> None:
        """One more chunk."""
        for name in ("number", "digest", "pieces", "length", "trained", "cut", "value", "offset", "text"):
            getattr(self.facts, name).extend(getattr(made.facts, name))
        self.facts.files += [(self.kept + index, file, unit) for index, file, unit in made.facts.files]
        self.problems.absorb(made.problems)
        for reason, lost in made.lost.items():
            self.lost.setdefault(reason, Lost()).absorb(lost)
        if made.spool not in self.spools:
            self.spools.append(made.spool)
        self.entries.append((made.entry, made.kept))
        self.spool_of.append((self.spools.index(made.spool), sum(len(part) for part in made.facts.length)))
        self.similar += made.similar
        self.rows += made.rows
        self.kept += made.kept
        self.histogram = [a + b for a, b in zip(self.histogram, made.histogram.tolist(), strict=True)]


@dataclass(frozen=True)
class Table:
    """The facts of all rows that can be trained on."""

    entry: Any
    number: Any
    digest: Any
    pieces: Any
    trained: Any
    cut: Any
    value: Any
    text: Any
    sequences: Sequences
    files: list[tuple[int, str, str]]

    @classmethod
    def of(cls, gathered: Gathered) -> "Table":
        """Emptying `gathered` of its columns, so that they are not there twice."""
        import numpy as np

        facts = gathered.facts

        def column(name: str, kind: str) -> Any:
            parts = getattr(facts, name)
            setattr(facts, name, [])
            return np.concatenate(parts) if parts else np.zeros((0, 2) if name in ("digest", "text") else 0, dtype=kind)

        def repeated(pairs: list[tuple[int, int]], kind: str) -> Any:
            values, counts = zip(*pairs, strict=True) if pairs else ((), ())
            return np.repeat(np.asarray(values, dtype=kind), np.asarray(counts, dtype=np.int64))

        return cls(
            entry=repeated(gathered.entries, "int16"),
            number=column("number", "int64"),
            digest=column("digest", "uint64"),
            pieces=column("pieces", "int32"),
            trained=column("trained", "int32"),
            cut=column("cut", "bool"),
            value=column("value", "float32"),
            text=column("text", "int64"),
            sequences=Sequences(
                gathered.spools,
                repeated(gathered.spool_of, "int16"),
                column("offset", "int64"),
                column("length", "int32"),
            ),
            files=facts.files,
        )

    def place(self, row: int) -> str:
        """Where a row is, for people."""
        _, file, unit = self.files[bisect_right(self.files, row, key=lambda entry: entry[0]) - 1]
        return f"{file}, {unit} {self.number[row]}"
