"""How tests are shared by two processes (`-n 2`), and the vLLM that they start.

One process has all tests of the cluster, which there is only one of. xdist's own groups (`--dist loadgroup`) do nothing
with this pytest.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from anneal_api.meta import ENV_VLLM_PYTHON


class ClusterTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Every test alone, but those of the cluster as one; the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/trainer/test_vllm"):
            # One server for all: it takes a minute to start.
            return nodeid.partition("::")[0]
        return "e2e" if nodeid.startswith("tests/e2e/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ClusterTogether:
    """Xdist asks for it in the process that hands the tests out."""
    return ClusterTogether(config, log)


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """A Python that has vLLM: the one that the environment names, or one for CPUs, which is made if it is not there."""
    named = os.environ.get(ENV_VLLM_PYTHON)
    if named:
        return Path(named)
    made = subprocess.run([Path(__file__).parents[1] / "scripts/vllm"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.strip())
