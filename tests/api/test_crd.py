"""The generated CRD is structural, current and bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anneal_api import crdgen
from anneal_api.job import immutable
from anneal_api.kinds import DESCRIBED

ROOT = Path(__file__).parents[2]
SCHEMAS = {module.KIND: crdgen.open_api_schema(model) for module, model in DESCRIBED}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below `schema` with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize(("module", "model"), DESCRIBED, ids=list(SCHEMAS))
def test_the_committed_crd_is_the_generated_one(module: Any, model: Any) -> None:
    """Nobody edits the YAML by hand."""
    text = (ROOT / f"crds/{module.PLURAL}.yaml").read_text()
    assert text == crdgen.crd_yaml(module, model)
    assert yaml.safe_load(text)["metadata"]["name"] == f"{module.PLURAL}.anneal.dev"


# Both kinds have most of them.
ALL = {f"{kind}{path}": (path, schema) for kind, root in SCHEMAS.items() for path, schema in nodes(root)}
SPEC = {place: (path, schema) for place, (path, schema) in ALL.items() if path.startswith(".spec.")}


@pytest.mark.parametrize(("path", "schema"), ALL.values(), ids=list(ALL))
def test_every_schema_is_structural_and_bounded(path: str, schema: dict[str, Any]) -> None:
    """No references or unions; what a person writes has a bound, or CEL's cost estimate explodes."""
    assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & schema.keys()
    if path.startswith(".spec") and schema.get("type") == "array":
        assert "maxItems" in schema
    if path.startswith(".spec") and schema.get("type") == "string" and "enum" not in schema:
        assert "maxLength" in schema


@pytest.mark.parametrize("place", [place for place in SPEC if "[]" in place])
def test_no_default_stands_in_a_list(place: str) -> None:
    """Lists are replaced as a whole by kubectl: a default in one would make the same manifest a change at every apply."""
    assert "default" not in SPEC[place][1]


@pytest.mark.parametrize("place", [place for place in SPEC if not place.endswith(("[]", "{}"))])
def test_every_spec_field_is_described(place: str) -> None:
    """`kubectl explain` answers for every field."""
    assert len(SPEC[place][1].get("description", "")) > 10


@pytest.mark.parametrize(("module", "model"), DESCRIBED, ids=list(SCHEMAS))
def test_only_the_run_policy_may_change_later(module: Any, model: Any) -> None:
    """Every other field of the spec has a transition rule."""
    fields = set(SCHEMAS[module.KIND]["properties"]["spec"]["properties"])
    rules = immutable(model.model_fields["spec"].annotation)
    assert {rule.field.removeprefix("spec.") for rule in rules} == fields - {"runPolicy"}


@pytest.mark.parametrize("place", [place for place, (_, schema) in ALL.items() if schema.get("type") == "number"])
def test_no_exclusive_bound_is_a_fraction(place: str) -> None:
    """The API server cuts a bound to a whole number to compare a whole number with it: 0 would not be less than 0.5."""
    schema = ALL[place][1]
    for bound in ("minimum", "maximum"):
        assert float(schema.get(bound, 0)).is_integer() or not schema.get(f"exclusive{bound.title()}")
