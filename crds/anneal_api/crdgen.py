"""From the models to the CustomResourceDefinition: a structural schema, CEL rules, printer columns.

Pydantic's JSON schema is not structural: it has `$ref`, `anyOf` with null, `const` and numeric `exclusiveMinimum`.
`structural` rewrites each. Run `python -m anneal_api.crdgen DIR` (or `make generate`); the files are committed and
CI fails on a difference. Not here: anything about Helm (the chart's copies are made from these files).
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from anneal_api.kinds import DESCRIBED
from anneal_api.meta import CATEGORIES, GROUP, VERSION

_KEPT = (
    "type", "description", "default", "enum", "format", "pattern", "minLength", "maxLength", "minItems", "maxItems",
    "minimum", "maximum", "minProperties", "maxProperties", "required", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
)  # fmt: skip
NOT_OBSERVED = -1
HEADER = "# Generated from crds/anneal_api by `make generate`; never edited.\n"


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`schema` as OpenAPI v3 that the API server accepts; ValueError where it cannot be expressed."""
    schema = _inlined(schema, definitions)
    result = {key: schema[key] for key in _KEPT if key in schema and schema[key] is not None}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:
            result[bound.lower()] = schema[f"exclusive{bound}"]
            result[f"exclusive{bound}"] = True
    if "properties" in schema:
        result["properties"] = {name: structural(value, definitions) for name, value in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _without_defaults(structural(schema["items"], definitions))
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    if "patternProperties" in schema:
        result |= _keys_checked(schema["patternProperties"], definitions)
    if "type" not in result and "x-kubernetes-int-or-string" not in result:
        raise ValueError(f"not structural: {schema}")
    return result


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Kubectl replaces lists as a whole: a default in one would make every later apply of a manifest a change.

    The models fill it all the same, when they read the object; so it is told in words.
    """
    default = schema.pop("default", None)
    if default not in (None, False, "", [], {}):
        schema["description"] = f"{schema.get('description', '')} Default: {json.dumps(default)}.".strip()
    for child in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        _without_defaults(child)
    return schema


def _keys_checked(patterns: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A map whose keys have a pattern: structural schemas limit values only, so a rule limits the keys."""
    ((pattern, values),) = patterns.items()
    rule = {"rule": f"self.all(key, key.matches(r'{pattern}'))", "message": f"keys must match {pattern}"}
    return {"additionalProperties": structural(values, definitions), "x-kubernetes-validations": [rule]}


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """References replaced by what they name and `X or null` by X; a field's own description wins."""
    while True:
        if "$ref" in schema:
            target = definitions[schema["$ref"].removeprefix("#/$defs/")]
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        elif "anyOf" in schema:
            options = [option for option in schema["anyOf"] if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"a structural schema has no unions: {schema}")
            schema = {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
        elif "allOf" in schema and len(schema["allOf"]) == 1:
            schema = {**schema["allOf"][0], **{key: value for key, value in schema.items() if key != "allOf"}}
        else:
            return schema


def open_api_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a kind: `spec` required, `metadata` left to the API server."""
    raw = model.model_json_schema(by_alias=True)
    schema = structural(raw, raw.get("$defs", {}))
    properties = schema["properties"]
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string"}
    properties["metadata"] = {"type": "object"}
    # Tools that follow kstatus take an object without status for ready; with this one it is not seen yet.
    properties["status"]["default"] = {"observedGeneration": NOT_OBSERVED}
    return schema


def custom_resource_definition(kind: Any, model: type[BaseModel]) -> dict[str, Any]:
    """The CRD of the kind that module `kind` describes."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": kind.PLURAL,
                "singular": kind.SINGULAR,
                "shortNames": list(kind.SHORT_NAMES),
                "categories": list(CATEGORIES),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(kind.PRINTER_COLUMNS),
                    "schema": {"openAPIV3Schema": open_api_schema(model)},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """No anchors: they are noise in a diff."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def crd_yaml(kind: Any, model: type[BaseModel]) -> str:
    """The CRD as text."""
    return HEADER + yaml.dump(custom_resource_definition(kind, model), Dumper=_Dumper, sort_keys=False, width=120)


def main(directory: Path) -> None:
    """Write a file for each kind into `directory`."""
    for kind, model in DESCRIBED:
        (directory / f"{kind.PLURAL}.yaml").write_text(crd_yaml(kind, model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
