"""The reference page is generated, current and complete."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anneal_api import crdgen, finetunejob
from anneal_api.refgen import reference

PAGE = Path(__file__).parents[2] / "docs/reference.md"
SCHEMA = crdgen.open_api_schema(finetunejob.FineTuneJob)


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a block with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
        yield from fields(field.get("items", {}), f"{path}.{name}[]")


def test_the_committed_reference_is_the_generated_one() -> None:
    """Nobody edits the page by hand."""
    assert PAGE.read_text() == reference([(finetunejob, finetunejob.FineTuneJob)])


def test_every_field_says_what_it_means() -> None:
    """`kubectl explain` and the reference are never empty for a field."""
    silent = [
        path
        for root in ("spec", "status")
        for path, field in fields(SCHEMA["properties"][root], root)
        if not field.get("description")
    ]
    assert silent == []


def test_every_link_of_the_reference_leads_to_a_section() -> None:
    """The anchors are those that the headings make."""
    text = PAGE.read_text()
    headings = re.findall(r"(?m)^#+ `(.+)`$", text)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()) for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\]\(#(.+?)\)", text)) <= anchors
