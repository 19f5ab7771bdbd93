"""What the layout promises: the standard library stays whole, public names are listed, no secret is touched."""

import importlib
import operator
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    """`import operator` is the standard library's, from any working directory."""
    assert hasattr(operator, "itemgetter")
    code = "import operator; print(operator.itemgetter(0)([7]))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout == "7\n"
    assert not (ROOT / "operator/__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("name", ["anneal_api"])
def test_public_names_are_sorted_and_exist(name: str) -> None:
    """`__all__` is the promise of what may be imported."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)


@pytest.mark.parametrize("module", ["anneal_api", "anneal_cli.__main__", "anneal_trainer.__main__"])
def test_light_modules_do_not_load_the_training_stack(module: str) -> None:
    """`anneal validate` and PID 1 of a pod answer before torch could even be found."""
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'kopf', 'kubernetes'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
