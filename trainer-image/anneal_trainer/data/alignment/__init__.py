"""Rows of alignment: one pure function per type and family, from a row to an example of its kind.

The shape is that of `formats`: `formatter`, `needed`, `detect`; tokenization is `encode`, and what happens to rows that
are too long, `fit`. Not here: a method that trains on them.
"""

from collections.abc import Callable, Iterable
from typing import Any

from anneal_api.alignment import ALIGNMENT_DETECTED, ALIGNMENT_READS, AlignmentFields, AlignmentRows, Family
from anneal_trainer.data.alignment import pairs, steps
from anneal_trainer.data.alignment.examples import Aligned, Asked, Prompt
from anneal_trainer.data.alignment.turns import Template, rendered, turns
from anneal_trainer.data.formats.values import Columns, Row, fitting, listed, renamed, resolved
from anneal_trainer.data.pieces import RowError
from anneal_trainer.errors import ConfigError

Format = Callable[[Row], Aligned]


def formatter(rows: AlignmentRows, family: Family, *, template: Callable[[], Template]) -> Format:
    """The function of one source, whose type is given or was detected; `template` is called where one is needed."""
    assert rows.type is not None, "the type is detected before rows are formatted"
    if rows.type not in ALIGNMENT_READS[family]:
        accepted = ", ".join(ALIGNMENT_READS[family])
        raise ConfigError(f"type {rows.type} is not for rows of kind {family}; write one of: {accepted}")
    columns, read = _columns(rows.type, rows.fields, family), _reader(rows, rows.type, family, template)
    return lambda row: read(row, columns)


def _reader(
    rows: AlignmentRows, kind: str, family: Family, template: Callable[[], Template]
) -> Callable[[Row, Columns], Aligned]:
    match family:
        case "preference":
            return _preference(rows, kind, template)
        case "unpaired":
            return pairs.judged_user_defined(rows.format) if rows.format else pairs.judged(kind)
        case "reward":
            return pairs.compared(template())
        case "stepwise":
            return steps.stepwise(rows)
        case "prompt":
            return _asked(kind, template)


def _preference(rows: AlignmentRows, kind: str, template: Callable[[], Template]) -> Callable[[Row, Columns], Aligned]:
    if rows.format is not None:
        return pairs.user_defined(rows.format)
    match kind.partition(".")[0]:
        case "chat_template":
            return pairs.templated(kind, template())
        case "zephyr":
            return pairs.nectar
        case "passthrough":
            return pairs.passthrough
        case _:
            return pairs.worded(kind)


def _asked(kind: str, template: Callable[[], Template]) -> Callable[[Row, Columns], Asked]:
    """Turns are rendered, with the beginning of the answer behind them; so is a text, but for type `prompt`."""
    slot, made = ("prompt" if kind == "prompt" else "messages"), list[Template]()

    def read(row: Row, columns: Columns) -> Asked:
        column = columns.of(row, slot)
        rest = {name: value for name, value in row.items() if name != column}
        if kind == "prompt" and isinstance(row.get(column), str):
            text = columns.text(row, slot)
            return Asked(Prompt(text, starts=True), rest, text)
        said = turns(columns.value(row, slot), column)
        if said[-1]["role"] == "assistant":
            raise RowError(f"{column} must end with what is asked, got a turn of assistant: the model answers itself")
        if not made:
            made.append(template())
        return Asked(Prompt(rendered(made[0], said, generate=True), starts=False), rest, said)

    return read


def choices(columns: Iterable[str], fields: AlignmentFields | None, families: Iterable[Family]) -> str:
    """The types that a person can choose from for such columns; empty if there is none."""
    present, given = set(columns), renamed(fields)
    found = (fitting(ALIGNMENT_READS[family], given, present) for family in families)
    return ", ".join(dict.fromkeys(kind for kinds in found for kind in kinds))


def conversational(row: Row) -> tuple[str, AlignmentFields | None] | None:
    """The type, and its fields, of a pair whose answers are turns: the chat template words these, and nobody has to.

    With the prompt as turns, or with whole conversations on both sides; a system text beside them would not be read.
    """
    chosen, rejected, prompt = (listed(row.get(name)) for name in ("chosen", "rejected", "prompt"))
    if row.get("system") is not None or not (_is_turns(chosen) and _is_turns(rejected)):
        return None
    if _is_turns(prompt):
        return "chat_template.default", AlignmentFields(messages="prompt")
    said = [turn.get("content", turn.get("value")) for turn in chosen[:-1]]
    return ("chat_template.argilla_chat", None) if said and (prompt is None or prompt in said) else None


def _is_turns(value: Any) -> bool:
    spoken = isinstance(value, list) and all(
        isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value
    )
    return spoken and bool(value)


def _columns(kind: str, fields: AlignmentFields | None, family: Family) -> Columns:
    given = renamed(fields)
    slots = ALIGNMENT_READS[family][kind]
    unread = sorted(set(given) - set(slots))
    if unread:
        raise ConfigError(f"type {kind} does not read fields.{unread[0]}; it reads {', '.join(slots)}")
    return resolved(slots, given)


def needed(kind: str, fields: AlignmentFields | None, family: Family) -> dict[str, tuple[str, ...]]:
    """For each thing the type cannot do without: the columns of which one must be there."""
    names = _columns(kind, fields, family).names
    return {slot: names[slot] for slot, column in ALIGNMENT_READS[family][kind].items() if column.required}


def detect(columns: Iterable[str], fields: AlignmentFields | None, family: Family) -> str | None:
    """The type that the columns speak of; None where a person must choose."""
    present = set(columns)
    named: set[Any] = set() if fields is None else {slot for slot, name in fields if name is not None}
    for kind in ALIGNMENT_DETECTED[family]:
        reads = named <= set(ALIGNMENT_READS[family][kind])
        if reads and all(present.intersection(names) for names in needed(kind, fields, family).values()):
            return kind
    return None
