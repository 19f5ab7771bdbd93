"""The reference page is generated, current and complete."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anneal_api import crdgen
from anneal_api.kinds import DESCRIBED
from anneal_api.refgen import reference

DOCS = Path(__file__).parents[2] / "docs"
KINDS = pytest.mark.parametrize(("module", "model"), DESCRIBED, ids=[module.KIND for module, _ in DESCRIBED])


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a block with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
        yield from fields(field.get("items", {}), f"{path}.{name}[]")


def page(module: Any) -> str:
    """The committed page of a kind."""
    return (DOCS / f"reference-{module.SINGULAR}.md").read_text()


@KINDS
def test_the_committed_reference_is_the_generated_one(module: Any, model: Any) -> None:
    """Nobody edits the page by hand."""
    assert page(module) == reference(module, model)


@KINDS
def test_every_field_says_what_it_means(module: Any, model: Any) -> None:
    """`kubectl explain` and the reference are never empty for a field."""
    del module
    schema = crdgen.open_api_schema(model)
    silent = [
        path
        for root in ("spec", "status")
        for path, field in fields(schema["properties"][root], root)
        if not field.get("description")
    ]
    assert silent == []


@KINDS
def test_every_link_of_the_reference_leads_to_a_section(module: Any, model: Any) -> None:
    """The anchors are those that the headings make."""
    del model
    text = page(module)
    headings = re.findall(r"(?m)^#+ `(.+)`$", text)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()) for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\]\(#(.+?)\)", text)) <= anchors
