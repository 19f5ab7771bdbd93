"""The chart as Helm renders it: the real helm, built by the test cluster's code, once a session."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anneal_api import documents
from cluster.binaries import ensure_binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/anneal"

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm program; built if it is not there yet."""
    return ensure_binaries().program("helm")


@pytest.fixture
def helm_template(helm: Path, tmp_path: Path) -> Callable[[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """`helm template` with values, as a finished process."""

    def template(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values))
        command = [str(helm), "template", "anneal", str(CHART), "-n", "anneal-system", "-f", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return template


@pytest.fixture
def render(helm_template: Callable[[dict[str, Any]], subprocess.CompletedProcess[str]]) -> Render:
    """The objects of the chart with the given values."""

    def rendered(**values: Any) -> list[dict[str, Any]]:
        done = helm_template(values)
        assert done.returncode == 0, done.stderr
        return documents(done.stdout)

    return rendered
