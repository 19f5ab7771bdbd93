"""The documentation names what the API has, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from anneal_api import ConditionType, Outcome, Phase, Reason
from anneal_api.alignment import ALIGNMENT_READS
from anneal_api.columns import READS
from anneal_api.conditions import DataReason
from anneal_operator import pools
from anneal_operator.settings import Pool, parse_settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("helm/**/*.md")])
STATUS = (ROOT / "docs/status.md").read_text()


def rows(text: str) -> dict[str, list[str]]:
    """Table rows by their first cell, backticks removed."""
    found = re.findall(r"(?m)^\| (.+?) \|(.*)\|$", text)
    return {first.strip("`"): [cell.strip() for cell in rest.split("|")] for first, rest in found}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    """Each reason has a row that says what it means."""
    assert len(rows(STATUS)[reason][0]) > 10


@pytest.mark.parametrize("word", [*Phase, *Outcome, *ConditionType])
def test_every_phase_outcome_and_condition_is_explained(word: str) -> None:
    """The other words of the status have a row too."""
    assert f"| {word} |" in STATUS or f"| `{word}`" in STATUS or f"`{word}`, " in STATUS


def test_nothing_is_explained_that_does_not_exist() -> None:
    """A reason that was removed from the API is removed from the page."""
    section = STATUS.split("## Reasons")[1].split("## Attempts")[0]
    before, about_data = section.split("### Warnings about the data")
    warnings, heading, after = about_data.partition("\n### ")
    assert set(re.findall(r"`([A-Z]\w+)`", warnings)) == set(DataReason)
    section = before + heading + after
    assert set(rows(section)) - {"reason"} <= set(Reason)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that anchors name."""
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_every_dataset_type_is_described_with_its_columns() -> None:
    """The page of types names each type of the API once, with the columns that it reads."""
    table = (ROOT / "docs/dataset-types.md").read_text().split("## Types")[1].split("## user_defined")[0]
    described = [kind for line in table.splitlines() for kind in re.findall(r"`([^`]+)`", line.partition(" | ")[0])]
    kinds = [kind for kind in described if kind in READS]
    assert sorted(kinds) == sorted(READS)
    for line in table.splitlines():
        for kind in set(re.findall(r"`([^`]+)`", line.partition(" | ")[0])) & set(READS):
            cell = line.split(" | ")[1]
            missing = [name for column in READS[kind].values() for name in column.names if name not in cell]
            assert not missing or cell == "the same", kind


@pytest.mark.parametrize("family", ALIGNMENT_READS)
def test_every_type_of_judgements_is_in_the_page(family: str) -> None:
    """With its columns."""
    table = (ROOT / "docs/dataset-types.md").read_text().split("## Rows of judgements")[1].split("\n## ")[0]
    for kind in ALIGNMENT_READS[family]:  # type: ignore[index]
        assert f"`{kind}`" in table


def test_the_pools_of_the_page_are_what_the_operator_reads() -> None:
    """Each example of declared pools parses, and the tables name every field of a pool and every label that is read."""
    page = (ROOT / "docs/pools.md").read_text()
    examples = [text for text in re.findall(r"(?s)```yaml\n(.*?)```", page) if text.startswith("pools:")]
    assert len(examples) == 2
    for text in examples:
        parse_settings(f"trainerImage: x:1\noperatorImage: y:1\nrolloutImage: z:1\n{text}", namespace="sys")
    fields = {str(info.alias) for info in Pool.model_fields.values()}
    labels = {*pools.PRODUCT_LABELS, pools.INSTANCE_TYPE, *pools.MIB_LABELS, pools.AMD_MEMORY}
    assert not [name for name in fields | labels if f"`{name}`" not in page]
