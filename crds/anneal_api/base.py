"""What every block of a manifest shares: strictness, camelCase, and rules that are written once.

A `Rule` carries both forms of a cross-field check: the CEL that the API server evaluates and the Python that
`anneal validate`, the operator and the trainer evaluate. They stand side by side so that a change cannot
touch one alone, and a test on a real API server holds that they refuse the same manifests with the same words.

Deliberately not here: single-field limits (pydantic's `Field` gives both forms by itself).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError

RULES_BROKEN = "anneal_rules"
# Of the fields that a rule's message names, those that are numbers.
_NUMBERS_NAMED = re.compile(r"\b(?:nodes|gpus|[a-z]+[A-Z][A-Za-z]*)\b")


@dataclass(frozen=True)
class Rule:
    """One cross-field check of a block.

    `cel` and `holds` must say the same; `field` is the path below the block that the error points at.
    A `transition` rule compares with the stored object: only the API server can check it. `defaults` are numbers that the
    message names and that hold where the manifest has none; they look at nothing that `holds` does not.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] = lambda _block: True
    field: str = ""
    transition: bool = False
    defaults: Callable[[Any], dict[str, float]] = lambda _block: {}

    def as_validation(self) -> dict[str, Any]:
        """The entry of `x-kubernetes-validations`."""
        entry: dict[str, Any] = {"rule": self.cel, "message": self.message}
        if self.field:
            entry["fieldPath"] = self.field if self.field.startswith(".") else f".{self.field}"
        return entry

    def told_of(self, block: "Block") -> str:
        """The message, with what the numbers are that it and the rule are about. The API server has no place for them."""
        numbers = self.defaults(block) | _numbers(block)
        named = dict.fromkeys(name for name in _NUMBERS_NAMED.findall(self.message) if f".{name}" in self.cel)
        here = ", ".join(f"{name} {numbers[name]:g}" for name in named if name in numbers)
        return f"{self.message} (here {here})" if here else self.message


class Block(BaseModel):
    """A strict, immutable piece of a manifest: unknown keys and wrong types are errors, never ignored."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        # Not by name: `micro_batch_size` in a manifest must be refused as kubectl refuses it.
        validate_by_name=False,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        """`training:` with nothing below it takes its defaults, as the API server prunes nulls before it fills them in."""
        if not isinstance(data, dict):
            return data
        known = {info.alias for info in cls.model_fields.values()}
        return {key: value for key, value in data.items() if value is not None or key not in known}

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [(rule.field.lstrip("."), rule.told_of(self)) for rule in self.rules if not rule.holds(self)]
        if broken:
            raise PydanticCustomError(RULES_BROKEN, "broken rules", {"broken": broken})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        if cls.rules:
            schema["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.rules]
        for info in cls.model_fields.values():
            # An absent block takes the defaults inside it, at the API server as in Python.
            if isinstance(info.default_factory, type) and issubclass(info.default_factory, Block):
                schema["properties"][info.alias]["default"] = {}
        return schema

    def dump(self) -> dict[str, Any]:
        """The block as a manifest holds it: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _numbers(block: Block) -> dict[str, float]:
    """The fields of a block, and of those in it, that are numbers."""
    found: dict[str, float] = {}
    for name, info in type(block).model_fields.items():
        # One that is wrong is not there while mistakes are looked for.
        value = getattr(block, name, None)
        if isinstance(value, Block):
            found = _numbers(value) | found
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[str(info.alias)] = value
    return found


class Record(BaseModel):
    """What Anneal itself writes (status, reports): camelCase, immutable, and tolerant of newer fields.

    Readers may be older than writers during an upgrade, so unknown keys are ignored here and only here.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def dump(self) -> dict[str, Any]:
        """Camel-cased JSON, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def exactly_one(*values: object) -> bool:
    """Whether exactly one of the values is given."""
    return sum(value is not None for value in values) == 1


def at_most_one(*values: object) -> bool:
    """Whether no two of the values are given."""
    return sum(value is not None for value in values) <= 1


DNS_1123_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_1123_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
# A path below a volume: no leading slash and no `..`, so that a manifest cannot leave its claim.
RELATIVE_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._=+@-]*(/[A-Za-z0-9_][A-Za-z0-9._=+@-]*)*$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
MODULE_FILE = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*\.py$"
ABSOLUTE_PATH = r"^/[A-Za-z0-9._/-]+$"
ONE_WORD = r"^[^\s]+$"
FILE_PATTERN = r"^[A-Za-z0-9_*?][A-Za-z0-9._=+@*?-]*(/[A-Za-z0-9_*?][A-Za-z0-9._=+@*?-]*)*$"
# What `str.format` fills in, with those names and no others; a brace of the text itself is doubled, as there.
TURN_TEMPLATE = r"^([^{}]|\{\{|\}\}|\{instruction\}|\{input\})*$"
INSTRUCTION_TEMPLATE = r"^([^{}]|\{\{|\}\}|\{instruction\})*$"
SYSTEM_TEMPLATE = r"^([^{}]|\{\{|\}\}|\{system\})*$"
_VARIABLE = "[$][(][A-Za-z_][A-Za-z0-9_]*[)]"
# ASCII, and no user: a password would be in the spec, and none is sent.
HTTP_ADDRESS = rf"^https?://([A-Za-z0-9.:_\[\]-]|{_VARIABLE})+([/?#]([!-#%-~]|{_VARIABLE})*)?$"

# What a pattern means, for the error of a value that does not match it.
PATTERN_WORDS = {
    DNS_1123_SUBDOMAIN: "a Kubernetes name: lower-case letters, digits, '-' and '.'",
    DNS_1123_LABEL: "a Kubernetes label: lower-case letters, digits and '-'",
    TURN_TEMPLATE: "a text in which only {instruction} and {input} are filled in; write {{ and }} for braces",
    INSTRUCTION_TEMPLATE: "a text in which only {instruction} is filled in; write {{ and }} for braces",
    SYSTEM_TEMPLATE: "a text in which only {system} is filled in; write {{ and }} for braces",
    HTTP_ADDRESS: "an address like http://judge:8000/v1?key=$(KEY): no user before the host, $ as in $(NAME) only, and what is not ASCII percent-encoded",
    RELATIVE_PATH: "a path below the storage, like adapters/first: no leading '/' and no '..'",
    LABEL_KEY: "the key of a label, like example.com/team: letters, digits, '-', '_' and '.', a prefix in lower case before '/'",
    LABEL_VALUE: "the value of a label: letters, digits, '-', '_' and '.', a letter or digit first and last",
    IDENTIFIER: "a name of letters, digits and '_', no digit first",
    MODULE_FILE: "the path of a Python file, like rewards.py or mine/rewards.py: it ends in .py, with no leading '/' and no '..'",
    ABSOLUTE_PATH: "a path from the root, like /data: letters, digits, '.', '_', '-' and '/'",
    ONE_WORD: "one word, without spaces",
    FILE_PATTERN: "a path or pattern of files, like train/*.jsonl: no leading '/' and no '..'",
}

ObjectName = Annotated[str, StringConstraints(pattern=DNS_1123_SUBDOMAIN, min_length=1, max_length=253)]
LabelName = Annotated[str, StringConstraints(pattern=DNS_1123_LABEL, min_length=1, max_length=63)]
RelativePath = Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=16384)]
TurnTemplate = Annotated[str, StringConstraints(pattern=TURN_TEMPLATE, min_length=1, max_length=16384)]
InstructionTemplate = Annotated[str, StringConstraints(pattern=INSTRUCTION_TEMPLATE, min_length=1, max_length=16384)]
SystemTemplate = Annotated[str, StringConstraints(pattern=SYSTEM_TEMPLATE, max_length=16384)]

_QUANTITY_SCHEMA = {"x-kubernetes-int-or-string": True, "pattern": QUANTITY, "maxLength": 20}


def _quantity_text(value: object) -> object:
    """`4` and `"4"` are the same quantity; a float is refused, as the API server refuses it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(QUANTITY, value):
        raise ValueError(f"{value!r} is not a quantity; write a whole number, or text like 500m (half a core) or 64Gi")
    return value


Quantity = Annotated[
    Annotated[str, StringConstraints(pattern=QUANTITY, max_length=20)],
    BeforeValidator(_quantity_text),
    WithJsonSchema(_QUANTITY_SCHEMA),
]

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_UNITS |= {f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGTP", start=1)}


def quantity_value(quantity: str) -> float:
    """A Kubernetes quantity as a number: bytes for memory, cores for CPU.

    >>> quantity_value("1500m"), quantity_value("2Gi"), quantity_value("3Ki")
    (1.5, 2147483648.0, 3072.0)
    """
    number = quantity.rstrip("mkKMGTPi")
    return float(number) * _UNITS[quantity[len(number) :]]


def walk_blocks(block: Block, path: str = "") -> Iterator[tuple[str, Block]]:
    """Every block below and including `block`, with its path (`spec.datasets[0]`)."""
    yield path, block
    for name, info in type(block).model_fields.items():
        # One that is wrong is not there while mistakes are looked for.
        value = getattr(block, name, None)
        here = f"{path}.{info.alias}" if path else str(info.alias)
        if isinstance(value, Block):
            yield from walk_blocks(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Block):
                    yield from walk_blocks(item, f"{here}[{index}]")


def bounded(description: str, *, most: int, least: int = 0) -> Any:
    """An absent-by-default list field with the bound that keeps CEL's cost estimate finite."""
    return Field(default_factory=list, min_length=least, max_length=most, description=description)
