"""Reading the columns of a row, with the error that says what was found instead."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anneal_api.columns import READS, Slots
from anneal_api.dataset import DatasetFields
from anneal_trainer.data.pieces import RowError

_SHOWN = 60
_COLUMNS = 16

Row = dict[str, Any]


def shown(value: Any) -> str:
    """A value for an error message: short, and as it stands in the file, so that its type can be seen."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (RecursionError, TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def names(row: Iterable[Any]) -> str:
    """The columns of a row for an error message, however many and long they are."""
    found = [str(name)[:_SHOWN] for name in row]
    more = [f"{len(found) - _COLUMNS} more"] if len(found) > _COLUMNS else []
    return ", ".join(found[:_COLUMNS] + more) or "no column"


def text_of(row: Row, column: str) -> str:
    """The text in a column that must be there."""
    if column not in row:
        raise RowError(f"the column {column!r} is missing; this row has {names(row)}")
    value = row[column]
    if not isinstance(value, str):
        raise RowError(f"{column} must be text, got {shown(value)}")
    return value


def optional_text_of(row: Row, column: str) -> str:
    """The text in a column that may be absent or null: then it is empty."""
    return "" if row.get(column) is None else text_of(row, column)


@dataclass(frozen=True)
class Columns:
    """Where one data set keeps what its type reads: for each slot the columns that it may be in."""

    names: dict[str, tuple[str, ...]]

    def of(self, row: Row, slot: str) -> str:
        """The column of this row that holds the slot; the first possible one if none does."""
        names = self.names[slot]
        return next((name for name in names if row.get(name) is not None), names[0])

    def text(self, row: Row, slot: str) -> str:
        """The slot's text, which must be there."""
        return text_of(row, self.of(row, slot))

    def optional(self, row: Row, slot: str) -> str:
        """The slot's text; empty if it is absent, null, or not read by the type."""
        return optional_text_of(row, self.of(row, slot)) if slot in self.names else ""

    def value(self, row: Row, slot: str) -> Any:
        """What the slot holds, mappings from their JSON if it is a list of them; RowError if it is absent or null."""
        column = self.of(row, slot)
        if row.get(column) is None:
            raise RowError(f"the column {column!r} is missing or null; this row has {names(row)}")
        found = listed(row[column])
        # A text that is a list of anything else is a text: an answer may be JSON.
        return found if isinstance(found, list) and all(isinstance(entry, dict) for entry in found) else row[column]

    def entries(self, row: Row, slot: str, what: str) -> list[Any]:
        """The slot's list, which must hold something; `what` names its entries in the error."""
        column = self.of(row, slot)
        value = listed(row.get(column))
        if not isinstance(value, list) or not value:
            raise RowError(f"{column} must be a list of {what}, got {shown(row.get(column))}")
        return value


def listed(value: Any) -> Any:
    """A list that a CSV file holds as JSON is read as one; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) else value


def resolved(slots: Slots, given: dict[str, str]) -> Columns:
    """The columns of `slots`, under the names that the data set gives them."""
    return Columns({slot: (given[slot],) if slot in given else column.names for slot, column in slots.items()})


def fitting(reads: dict[str, Slots], given: dict[str, str], present: set[str]) -> list[str]:
    """The types whose columns are all there; of these, the ones that read the most of them."""
    found = {
        kind: sum(bool(present.intersection(names)) for names in resolved(slots, given).names.values())
        for kind, slots in reads.items()
        if given.keys() <= slots.keys()
        and all(present.intersection(resolved(slots, given).names[slot]) for slot in slots if slots[slot].required)
    }
    return [kind for kind, read in found.items() if read == max(found.values())]


def renamed(fields: Any) -> dict[str, str]:
    """The columns that an entry's `fields` name, by their slots."""
    return {} if fields is None else {slot: name for slot, name in fields if name is not None}


def columns(kind: str, fields: DatasetFields | None) -> Columns:
    """The columns that a dataset type reads, under the names that the data set gives them."""
    return resolved(READS[kind], renamed(fields))
