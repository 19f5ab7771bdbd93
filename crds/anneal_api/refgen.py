"""From the CRDs to `docs/reference-KIND.md`: every field, its type, limits, default and meaning, as the API server has them.

The reference is made from the structural schema and not from the models, so that it cannot say anything that the API
server does not do. Run `python -m anneal_api.refgen DIR` (or `make generate`). Not here: what resolves defaults.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anneal_api.crdgen import custom_resource_definition
from anneal_api.kinds import DESCRIBED

Schema = dict[str, Any]
INTRODUCTION = """\
<!-- Generated from crds/anneal_api by `make generate`; never edited. -->
# Reference: {kind}

Every field of the kind. What `kubectl explain {singular}.spec --recursive` shows on a cluster is the same.

A default in the column *default* is filled in by the API server. One that depends on other fields is in the
description; `anneal validate --resolved FILE` prints a job with all of them filled.
A quantity is a Kubernetes quantity (`500m`, `64Gi`). All sizes are in sequences and optimizer steps, all durations in seconds.
"""
_BOUNDS = (("minimum", "≥", ">"), ("maximum", "≤", "<"))


def reference(module: Any, model: Any) -> str:
    """The page for one kind: the module that describes it and its model."""
    definition = custom_resource_definition(module, model)["spec"]
    (version,) = definition["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    names = definition["names"]
    lines = [
        INTRODUCTION.format(kind=names["kind"], singular=names["singular"]),
        f"`apiVersion: {definition['group']}/{version['name']}`, short name `{names['shortNames'][0]}`. {schema['description']}",
        "",
        *_rules(schema),
    ]
    for root in ("spec", "status"):
        lines += _section(root, schema["properties"][root])
    return "\n".join(lines)


def _section(path: str, schema: Schema) -> Iterator[str]:
    """A block's table, its rules, and the sections of the blocks inside it."""
    yield from (
        f"### `{path}`",
        "",
        schema["description"],
        "",
        "| field | type | default | meaning |",
        "|---|---|---|---|",
    )
    required = schema.get("required", [])
    for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required):
        default = "**required**" if name in required else _default(field)
        yield f"| `{name}` | {_type(path, name, field)} | {default} | {_cell(field.get('description', ''))} |"
    yield ""
    yield from _rules(schema)
    for name, field in schema["properties"].items():
        inner, suffix = _block(field)
        if inner:
            described = inner | {"description": field.get("description") or inner["description"]}
            yield from _section(f"{path}.{name}{suffix}", described)


def _rules(schema: Schema) -> Iterator[str]:
    """What must hold between fields, in the words that a violation is answered with."""
    rules = [rule for rule in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"]]
    for rule in rules:
        place = f"`{rule['fieldPath'].lstrip('.')}`: " if "fieldPath" in rule else ""
        yield f"- {place}{rule['message']}"
    if rules:
        yield ""
    fixed = [rule["fieldPath"].lstrip(".") for rule in schema.get("x-kubernetes-validations", ()) if rule not in rules]
    if fixed:
        yield f"Cannot change after the first attempt has begun: {', '.join(f'`{field}`' for field in fixed)}."
        yield ""


def _block(field: Schema) -> tuple[Schema | None, str]:
    """The block that a field holds, one or a list of them."""
    if "properties" in field:
        return field, ""
    if "properties" in field.get("items", {}):
        return field["items"], "[]"
    return None, ""


def _type(path: str, name: str, field: Schema) -> str:
    inner, suffix = _block(field)
    if inner:
        target = f"{path}.{name}{suffix}"
        anchor = "".join(c for c in target.lower() if c.isalnum() or c in "-_ ")
        return f"{'list of ' if suffix else ''}[object](#{anchor}){_sizes(field)}"
    return f"{_scalar(field)}{_sizes(field)}"


def _scalar(field: Schema) -> str:
    """The type in a word or, for an enumeration, its values."""
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field["type"] == "array":
        return f"list of {_scalar(field['items'])}"
    if "additionalProperties" in field:
        return f"map of {_scalar(field['additionalProperties'])}"
    return str(field["type"])


def _sizes(field: Schema) -> str:
    """The limits that people meet: ranges of numbers and lengths of lists."""
    found = [
        f"{strict if field.get(f'exclusive{bound.title()}') else loose} {field[bound]:,}"
        for bound, loose, strict in _BOUNDS
        if bound in field
    ]
    if "maxItems" in field:
        found.append(
            f"{field['minItems']} to {field['maxItems']}" if "minItems" in field else f"at most {field['maxItems']}"
        )
    return f", {', '.join(found)}" if found else ""


def _default(field: Schema) -> str:
    value = field.get("default")
    if value in (None, "", {}, []):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if not isinstance(value, list) else f"`[{', '.join(map(str, value))}]`"


def _cell(text: str) -> str:
    """Text that does not end its cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def main(directory: Path) -> None:
    """Write a page for each kind."""
    for module, model in DESCRIBED:
        (directory / f"reference-{module.SINGULAR}.md").write_text(reference(module, model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
