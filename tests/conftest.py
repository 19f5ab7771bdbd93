"""How tests are shared by two processes (`-n 2`): one has all those of the cluster, which there is only one of.

xdist's own groups (`--dist loadgroup`) do nothing with this pytest.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ClusterTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Every test alone, but those of the cluster as one; the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return "e2e" if nodeid.startswith("tests/e2e/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ClusterTogether:
    """Xdist asks for it in the process that hands the tests out."""
    return ClusterTogether(config, log)
