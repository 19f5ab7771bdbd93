"""Rows to prepared data in two passes: tokenize every row, then decide with all of them known, and write once.

The first pass (`rows`) runs in as many processes as there are cores, over chunks of the sources; the second (`decide`,
`packing`) over arrays of a few numbers a row. So memory hardly grows with the data. Every bad row is collected and told
together; whatever is dropped is counted with its reason and its place.
Not here: where prepared data is kept and found (`store`).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anneal_api.datasetreport import DatasetReport
from anneal_api.job import JobSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.words import counted
from anneal_trainer import apart, model
from anneal_trainer.context import Context
from anneal_trainer.data import decide, near, report, shape, store
from anneal_trainer.data.detect import Detected, detected
from anneal_trainer.data.packing import pack
from anneal_trainer.data.partners import partners
from anneal_trainer.data.problems import PLACES, Lost
from anneal_trainer.data.reading import limits_of
from anneal_trainer.data.report import Built
from anneal_trainer.data.rows import Maker, Task
from anneal_trainer.data.spool import SpoolReader
from anneal_trainer.data.table import Gathered, Table
from anneal_trainer.data.workers import Crew, processes
from anneal_trainer.errors import ConfigError, DataError, listed
from anneal_trainer.reporter import Reporter

_WARNINGS = 24


def build(context: Context, tokenizer: Any, model_path: Path, *, draft: Path, reporter: Reporter) -> Built:
    """Write the splits into `draft` and say what was made; DataError with every problem if there is one too many."""
    begun, spec = time.monotonic(), context.spec
    packed, why_not = packing_of(spec, model_path)
    gathered, found = _first_pass(context, tokenizer, model_path, draft, reporter)
    table = Table.of(gathered)
    chosen = _chosen(spec, table, gathered)
    splits = {store.TRAIN: chosen.train, store.EVAL: chosen.measured}
    packs = {name: _packs(table, rows, spec, packed=packed) for name, rows in splits.items() if len(rows)}
    wanted = table.value[chosen.train] > 0
    _check_classes(spec, table.value[chosen.train])
    with SpoolReader(table.sequences) as reader:
        special = report.special_ids(tokenizer, model.vocabulary(model_path, tokenizer))
        trained = {
            name: store.write_split(draft / name, reader, split, special=special) for name, split in packs.items()
        }
    # Those of processes that kept no row, too.
    for spool in draft.glob("*.spool"):
        spool.unlink()
    result = _report(spec, table, gathered, chosen, packs)
    result = result.model_copy(
        update={
            "types": [entry.kind for entry in found],
            "detected": [entry.words for entry in found if entry.words],
            "special_tokens": report.special_tokens(trained[store.TRAIN], tokenizer),
            "packed": packed,
            "seconds": round(time.monotonic() - begun, 3),
        }
    )
    remarks = gathered.problems.remarks
    again = decide.trained_too(table.digest, chosen.train, chosen.measured)
    remarks |= report.measured_too([table.place(row) for row in again[:PLACES].tolist()], len(again))
    if isinstance(spec, RLHFSpec) and spec.family == "unpaired":
        remarks |= report.unbalanced(wanted)
    result = result.model_copy(update={"warnings": list(report.warnings(result, remarks, why_not))[:_WARNINGS]})
    places = {reason: lost.places for reason, lost in gathered.lost.items()}
    return Built(result, places | {reason: found.places for (reason, _), found in remarks.items()})


def packing_of(spec: JobSpec, model_path: Path) -> tuple[bool, str | None]:
    """Whether rows share sequences, and if they do not because they cannot, why."""
    if isinstance(spec, RLHFSpec):
        return False, None
    wanted, why_not = spec.training.packing, apart.why_not(model_path)
    if wanted and why_not:
        raise ConfigError(f"training.packing is true, but this model cannot: {why_not}; set it to false")
    return (wanted is not False and why_not is None), (why_not if wanted is None else None)


def _first_pass(
    context: Context, tokenizer: Any, model_path: Path, draft: Path, reporter: Reporter
) -> tuple[Gathered, list[Detected]]:
    gathered, found = Gathered(), list[Detected]()
    here = Maker(context, model_path, draft, tokenizer)
    crew = Crew(Maker, (context, model_path, draft), here, processes())

    def tasks() -> Iterator[Task]:
        for entry, (name, dataset) in enumerate(context.spec.all_datasets):
            bad = gathered.problems.rows
            kind = detected(name, dataset, context, tokenizer, gathered.problems)
            # Rows that were all of a source and cannot be read.
            gathered.rows += gathered.problems.rows - bad
            if kind:
                found.append(kind)
                yield from (Task(entry, kind.dataset, chunk) for chunk in kind.chunks)

    for made in crew.results(tasks()):
        gathered.add(made)
        reporter.update(rows=gathered.rows)
    _judge(gathered, context.spec)
    return gathered, found


def _judge(gathered: Gathered, spec: JobSpec) -> None:
    """Whether what is bad can be lived with."""
    problems, policy = gathered.problems, spec.preparation
    if policy.on_bad_row == "fail" or problems.fatal:
        problems.raise_if_any()
    if problems.total > policy.max_bad_rows:
        problems.add(
            "preparation.maxBadRows",
            f"{problems.total} of {gathered.rows} rows are bad, more than {policy.max_bad_rows}",
            fatal=True,
        )
        problems.raise_if_any()
    if problems.total:
        gathered.lost[shape.BAD] = Lost(problems.total, list(problems.first))
    if not gathered.kept:
        raise DataError(f"no row has a token to train on: {_why_none(gathered, limits_of(spec))}")


def _why_none(gathered: Gathered, limits: shape.Limits) -> str:
    """What became of all rows, a sentence for each reason; the bad ones last, each with what is wrong with it."""
    remedies = {
        shape.MASKED: "all labels of {rows} are masked, -100 (the first: {first}); look for empty answers, or "
        "conversations without an assistant turn",
        shape.CUT_OFF: f"the whole answer of {{rows}} lies beyond {limits.field} {limits.most} "
        "(the first: {first}); raise it",
        shape.TOO_LONG: f"{{rows}} longer than {limits.field} {limits.most} dropped, as preparation.longRows says "
        "(the first: {first}); raise it, or set longRows to truncate",
    }
    told = [
        words.format(rows=counted(gathered.lost[reason].rows, "row"), first=gathered.lost[reason].places[0])
        for reason, words in remedies.items()
        if reason in gathered.lost
    ]
    if problems := gathered.problems.total:
        told.append(f"{counted(problems, 'bad row')} dropped\n{listed(gathered.problems.first, problems)}")
    return "; ".join(told)


@dataclass(frozen=True)
class Chosen:
    """Rows of the two splits; training rows may repeat."""

    train: Any
    measured: Any
    duplicates: int


def _chosen(spec: JobSpec, table: Table, gathered: Gathered) -> Chosen:
    """The second pass: who is in which split. Adds to `gathered.lost` whom it leaves out."""
    import numpy as np

    policy, seed = spec.preparation, spec.training.seed
    columns = decide.Columns(table.entry, table.digest, table.entry >= len(spec.datasets))
    repeated, leaked = decide.repeats(columns)
    out: dict[str, Any] = {}
    alive = np.ones(len(table.entry), dtype=bool)
    if policy.duplicates != "keep":
        out = {decide.LEAKED: leaked, decide.DUPLICATE: repeated & ~leaked}
        alive &= ~repeated
    if policy.duplicates == "dropNear":
        preferred = columns.preferred
        out[decide.NEAR] = near.alike(gathered.similar, preferred[alive[preferred]], policy.similarity)
        alive &= ~out[decide.NEAR]
    train = np.flatnonzero(alive & ~columns.measured)
    held = decide.held_out(train, spec.evaluation, seed)
    train = np.setdiff1d(train, held, assume_unique=True)
    drawn = decide.mixed(
        train,
        table.entry,
        [dataset.weight for dataset in spec.datasets],
        replace=policy.sampling == "withReplacement",
        seed=seed,
    )
    out[decide.UNSAMPLED] = np.bincount(np.setdiff1d(train, drawn), minlength=len(alive)).astype(bool)
    _note(out, table, gathered)
    if not len(drawn):
        raise DataError("no row is left to train on: all rows that could be are evaluation rows too")
    return Chosen(drawn, np.concatenate([held, np.flatnonzero(alive & columns.measured)]), int(repeated.sum()))


def _note(out: dict[str, Any], table: Table, gathered: Gathered) -> None:
    import numpy as np

    for reason, mask in out.items():
        lost = Lost(int(mask.sum()))
        lost.places = [table.place(row) for row in np.flatnonzero(mask)[:100].tolist()]
        if lost.rows:
            gathered.lost[reason] = lost


def _packs(table: Table, rows: Any, spec: JobSpec, *, packed: bool) -> store.Packs:
    import numpy as np

    sequences = decide.sequences_of(rows, table.pieces)
    if isinstance(spec, RLHFSpec):
        return _examples(spec, table, rows, sequences)
    if not packed:
        return store.Packs(sequences, np.arange(len(sequences) + 1))
    order, starts = pack(table.sequences.length[sequences], spec.training.sequence_length)
    return store.Packs(sequences[order], starts, lengths=True)


def _examples(spec: RLHFSpec, table: Table, rows: Any, sequences: Any) -> store.Packs:
    """A row of judgements with everything that belongs to it: both answers of a pair, the partner of a judged one."""
    import numpy as np

    each = np.concatenate(([0], np.cumsum(table.pieces[rows])))
    match spec.family:
        case "unpaired":
            twos = np.stack([sequences, partners(sequences, spec.training.seed)], axis=1).reshape(-1)
            wanted = ("desirable", table.value[rows] > 0)
            most = spec.training.sequence_length
            return store.Packs(twos, 2 * np.arange(len(rows) + 1), lengths=True, values=wanted, spliced=most)
        case "reward":
            return store.Packs(sequences, each, lengths=True, values=("margin", table.value[rows]))
        case "prompt":
            return store.Packs(sequences, each, texts=table.text[rows])
        case _:
            return store.Packs(sequences, each, lengths=True)


def _check_classes(spec: JobSpec, values: Any) -> None:
    """What is judged one by one teaches nothing where all of it is judged alike."""
    if not isinstance(spec, RLHFSpec) or spec.family not in _ALIKE:
        return
    # As `reading` writes them: of an answer 0 or 1, of steps 1, 2 or 3.
    right, wrong = (values == 1, values == 0) if spec.family == "unpaired" else (values != 2, values != 1)  # noqa: PLR2004
    if not (right.any() and wrong.any()):
        label = "true" if right.any() else "false"
        words = _ALIKE[spec.family].format(method=spec.method)
        raise DataError(f"all labels are {label}, of {counted(len(values), 'row')}: {words}")


_ALIKE = {
    "unpaired": "method {method} learns from answers that are wanted and from such as are not; add rows with the other "
    "label, or pairs (type chat_template.default)",
    "stepwise": "method {method} learns from steps that are right and from such as are wrong; add rows with the other "
    "label",
}


def _report(
    spec: JobSpec, table: Table, gathered: Gathered, chosen: Chosen, packs: dict[str, store.Packs]
) -> DatasetReport:
    import numpy as np

    train = decide.sequences_of(chosen.train, table.pieces)
    tokens = int(table.sequences.length[train].sum(dtype=np.int64))
    count = len(packs[store.TRAIN])
    return DatasetReport(
        rows=gathered.rows,
        used=len(np.unique(chosen.train)),
        eval_rows=len(chosen.measured),
        truncated=int(table.cut[np.unique(chosen.train)].sum()),
        eval_truncated=int(table.cut[chosen.measured].sum()),
        tokens=tokens,
        trained_tokens=int(table.trained[train].sum(dtype=np.int64)),
        sequences=count,
        eval_sequences=len(packs[store.EVAL]) if store.EVAL in packs else 0,
        longest=int(table.sequences.length[train].max()),
        packing_efficiency=round(tokens / (count * spec.training.sequence_length), 4),
        dropped=report.dropped(gathered.lost),
        duplicates=chosen.duplicates,
        lengths=report.lengths(gathered.histogram),
        prepared_time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
