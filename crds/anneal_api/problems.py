"""From pydantic's errors to lines that a person can act on: path, value, what is accepted, remedy.

All problems of a document are reported at once, in the order of their paths. Not here: where the document came from.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from anneal_api.base import PATTERN_WORDS, RULES_BROKEN
from anneal_api.kinds import KINDS

_SHOWN = 60


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to change: where, and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ManifestError(ValueError):
    """A document that is not a valid job; `problems` holds every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem in a validation error of `model`, sorted by path."""
    return sorted(set(_expand(error, model)))


def _expand(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        path = path_text(detail["loc"])
        if detail["type"] == RULES_BROKEN:
            for field, message in detail["ctx"]["broken"]:
                yield Problem(".".join(filter(None, (path, field))), message)
        else:
            yield Problem(path, _message(detail, model))


def path_text(loc: Iterable[str | int]) -> str:
    """A location as people write it.

    >>> path_text(("spec", "datasets", 0, "type"))
    'spec.datasets[0].type'
    """
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text.removesuffix(".[key]")


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, ctx = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return _unknown_key(detail["loc"], model)
    if kind == "literal_error":
        return _of_other_kind(value, detail["loc"]) or _not_one_of(value, ctx["expected"])
    if kind == "model_type":
        return _no_block(value, detail["loc"], model)
    return _of_value(detail)


def _of_value(detail: ErrorDetails) -> str:
    kind, value, ctx = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "string_pattern_mismatch":
        pattern = ctx["pattern"]
        return f"{_shown(value)} is not {PATTERN_WORDS.get(pattern, f'of the form {pattern}')}"
    text = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{text}, got {_shown(value)}"


def _shown(value: Any) -> str:
    kind = f" ({type(value).__name__})" if isinstance(value, str | bool) else ""
    return _cut(repr(value)) + kind


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _not_one_of(value: Any, expected: str) -> str:
    if isinstance(value, dict) and "'user_defined'" in expected:
        return "a mapping is not accepted; write user_defined, its texts in format and its columns in fields"
    accepted = expected.replace("'", "").replace(" or ", ", ").split(", ")
    return f"{value!r} is not accepted; write one of: {', '.join(accepted)}{_did_you_mean(value, accepted)}"


def _of_other_kind(value: Any, loc: tuple[str | int, ...]) -> str:
    """That a method is one of another kind of job; empty if it is of none."""
    kinds = (kind for kind, job in KINDS.items() if loc == ("spec", "method") and value in _methods(job))
    return next((f"{value} is a method of the other kind: write kind: {kind}" for kind in kinds), "")


def _methods(job: type[BaseModel]) -> tuple[Any, ...]:
    spec = model_in(job.model_fields["spec"].annotation)
    assert spec is not None, "every kind has one"
    return get_args(spec.model_fields["method"].annotation)


def _no_block(value: Any, loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """What to write where a mapping belongs."""
    name = next(str(part) for part in reversed(loc) if isinstance(part, str))
    block, among = _model_at(loc, model), _model_at(loc[:-1], model)
    if isinstance(value, list):
        lists = [str(info.alias) for info in _fields(among) if get_origin(info.annotation) is list]
        return f"a mapping belongs here, got a list{_did_you_mean(name, lists)}"
    needed = [str(info.alias) for info in _fields(block) if info.is_required()]
    field = name if name in _keys(block) else needed[0] if len(needed) == 1 else ""
    got = f"a mapping belongs here, got {_shown(value)}"
    if not field:
        return f"{got}; its fields: {', '.join(_keys(block))}"
    key = "" if isinstance(loc[-1], int) else f"{name}: "
    return f"{got}: write {key}{{{field}: {_cut(repr(value))}}}"


def _unknown_key(loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    known = _keys_at(loc[:-1], model)
    instead = _INSTEAD.get(_bare(loc[-1])) if "datasets" in loc else None
    if instead:
        return f"unknown key; {instead}"
    return f"unknown key{_did_you_mean(loc[-1], known)}; accepted here: {', '.join(known)}"


# Names that people bring and that are called otherwise here.
_KNOWN_AS = {"sharegpt": "chat_template"}

_NO_CODE = "no code of a data set is run: write the rows that it makes to a file"
_NOT_HERE = "it is for a kind of training that is not here"
# Options of Axolotl's datasets that have no counterpart of that name, as `_bare` writes them.
_INSTEAD = {
    "path": "write source",
    "name": "write subset",
    "field": "write fields: {text: …}",
    "textcolumn": "write fields: {text: …}",
    "fieldmessages": "write fields: {messages: …}",
    "fieldsystem": "write fields: {system: …}",
    "fieldtools": "write fields: {tools: …}",
    "fieldinstruction": "write fields: {instruction: …}",
    "fieldinput": "write fields: {input: …}",
    "fieldoutput": "write fields: {output: …}",
    "fieldhuman": "write messagePropertyMappings and roles",
    "fieldmodel": "write messagePropertyMappings and roles",
    "messagefieldrole": "write messagePropertyMappings: {role: …}",
    "messagefieldcontent": "write messagePropertyMappings: {content: …}",
    "chattemplatejinja": "write the Jinja text in chatTemplate",
    "conversation": "write type: alpaca:STYLE, or chatTemplate",
    "preprocessshards": "leave it out: memory does not grow with the data",
    "skip": "write a file without those rows, or a query",
    "trustremotecode": _NO_CODE,
    "inputtransform": _NO_CODE,
    "inputformat": "write type",
    "logprobsfield": _NOT_HERE,
    "temperature": _NOT_HERE,
}


def _bare(word: Any) -> str:
    return str(word).replace("_", "").lower()


def _did_you_mean(word: Any, known: list[str]) -> str:
    word = _KNOWN_AS.get(str(word).lower().partition(".")[0].partition(":")[0], word)
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(_bare(word), lowered, n=1, cutoff=0.6)
    return f" (did you mean {lowered[close[0]]}?)" if close else ""


def _keys_at(loc: Iterable[str | int], model: type[BaseModel]) -> list[str]:
    """The keys that the model at `loc` accepts."""
    return _keys(_model_at(loc, model))


def _keys(model: type[BaseModel] | None) -> list[str]:
    return sorted(str(info.alias) for info in _fields(model))


def _fields(model: type[BaseModel] | None) -> Iterable[FieldInfo]:
    return () if model is None else model.model_fields.values()


def _model_at(loc: Iterable[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    in_mapping = False
    for part in loc:
        if isinstance(part, int) or current is None or in_mapping:
            # An index, or a key that the manifest chose: what follows is below the same model.
            in_mapping = False
            continue
        fields = {info.alias: info.annotation for info in current.model_fields.values()}
        in_mapping = get_origin(fields.get(part)) is dict
        current = model_in(fields.get(part))
    return current


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, in a list or as a choice."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)
