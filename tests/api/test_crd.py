"""The generated CRD is structural, current and bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anneal_api import crdgen, finetunejob

ROOT = Path(__file__).parents[2]
SCHEMA = crdgen.open_api_schema(finetunejob.FineTuneJob)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below `schema` with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def test_the_committed_crd_is_the_generated_one() -> None:
    """Nobody edits the YAML by hand."""
    text = (ROOT / "crds/finetunejobs.yaml").read_text()
    assert text == crdgen.crd_yaml(finetunejob, finetunejob.FineTuneJob)
    assert yaml.safe_load(text)["metadata"]["name"] == "finetunejobs.anneal.dev"


@pytest.mark.parametrize(("path", "schema"), list(nodes(SCHEMA)), ids=[path or "root" for path, _ in nodes(SCHEMA)])
def test_every_schema_is_structural_and_bounded(path: str, schema: dict[str, Any]) -> None:
    """No references or unions; what a person writes has a bound, or CEL's cost estimate explodes."""
    assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & schema.keys()
    if path.startswith(".spec") and schema.get("type") == "array":
        assert "maxItems" in schema
    if path.startswith(".spec") and schema.get("type") == "string" and "enum" not in schema:
        assert "maxLength" in schema


@pytest.mark.parametrize("path", [path for path, _ in nodes(SCHEMA) if path.startswith(".spec.") and "[]" in path])
def test_no_default_stands_in_a_list(path: str) -> None:
    """Lists are replaced as a whole by kubectl: a default in one would make the same manifest a change at every apply."""
    assert "default" not in dict(nodes(SCHEMA))[path]


@pytest.mark.parametrize(
    "path", [path for path, _ in nodes(SCHEMA) if path.startswith(".spec.") and not path.endswith(("[]", "{}"))]
)
def test_every_spec_field_is_described(path: str) -> None:
    """`kubectl explain` answers for every field."""
    schema = dict(nodes(SCHEMA))[path]
    assert len(schema.get("description", "")) > 10


def test_only_the_run_policy_may_change_later() -> None:
    """Every other field of the spec has a transition rule."""
    fields = set(SCHEMA["properties"]["spec"]["properties"])
    assert set(finetunejob.IMMUTABLE_FIELDS) == fields - {"runPolicy"}
