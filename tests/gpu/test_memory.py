"""The estimated peak of a job against what torch's allocator hands out on a real GPU."""

from pathlib import Path

import pytest

from gpu.peaks import CASES, make_storage, peak


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A storage with a model of a few hundred million weights."""
    return make_storage(tmp_path_factory.mktemp("large"), tiny_model)


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_within_a_tenth(large: Path, name: str) -> None:
    """Each kind of tuning, with activations kept and computed again."""
    found = peak(large, name)
    print(f"{name}: estimated {found.estimated / 2**30:.2f} GiB, measured {found.measured / 2**30:.2f} GiB")
    assert found.estimated == pytest.approx(found.measured, rel=0.1)
