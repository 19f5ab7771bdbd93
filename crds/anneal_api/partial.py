"""The rules that a document breaks while some of its fields are wrong, so that all mistakes are told at once.

pydantic asks for a block's rules once all its fields are right. Here each block is made of those that are; a rule that
looks at another one finds no such attribute and is left for when it is mended.
Not here: what is wrong with the fields (`problems`).
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from anneal_api.base import Block, Rule, walk_blocks
from anneal_api.problems import Problem, model_in


def broken_rules(model: type[Block], document: Any) -> Iterator[Problem]:
    """Of every block of a document that is not valid, as far as its right fields tell."""
    if not isinstance(document, dict):
        return
    # Those below come first: what breaks a rule of theirs is wrong to those above.
    for path, block in reversed(list(walk_blocks(_right_part(model, document)))):
        for rule in [rule for rule in block.rules if _is_broken(rule, block)]:
            yield Problem(".".join(filter(None, (path, rule.field.lstrip(".")))), rule.told_of(block))
            _forget(block, rule.field)


def _is_broken(rule: Rule, block: Block) -> bool:
    try:
        return not rule.holds(block)
    except AttributeError:
        return False


def _forget(block: Block, field: str) -> None:
    for name, info in type(block).model_fields.items():
        if info.alias == field:
            block.__dict__.pop(name, None)


def _right_part(model: type[Block], data: dict[str, Any]) -> Block:
    """The block with its right fields, and without an attribute for each of the others."""
    block = model.model_construct()
    block.__dict__.clear()
    # What is spelled wrong may be any of the fields that are not there.
    all_known = data.keys() <= {info.alias for info in model.model_fields.values()}
    for name, info in model.model_fields.items():
        given = data.get(str(info.alias))
        if given is not None:
            with suppress(ValidationError):
                block.__dict__[name] = _right_value(model, name, given)
        elif all_known and not info.is_required():
            block.__dict__[name] = info.get_default(call_default_factory=True)
    return block


def _right_value(model: type[Block], name: str, given: Any) -> Any:
    """The field's value; ValidationError if nothing of it can be used."""
    try:
        return _adapter(model, name).validate_python(given)
    except ValidationError:
        annotation = model.model_fields[name].annotation
        below, among = model_in(annotation), get_origin(annotation)
        if below is not None and issubclass(below, Block):
            if isinstance(given, dict) and among not in (dict, list):
                return _right_part(below, given)
            if isinstance(given, list) and among is list and given and all(isinstance(each, dict) for each in given):
                return [_right_part(below, each) for each in given]
        raise


@cache
def _adapter(model: type[Block], name: str) -> TypeAdapter[Any]:
    info = model.model_fields[name]
    held: Any = info.annotation
    if isinstance(held, type) and issubclass(held, Block):
        return TypeAdapter(held)
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return TypeAdapter(Annotated[held, *info.metadata] if info.metadata else held, config=strict)
