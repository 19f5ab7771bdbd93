"""Tests that need an NVIDIA GPU. They are not collected where there is none."""

import shutil

from trainer.conftest import tiny_model

__all__ = ["tiny_model"]

if shutil.which("nvidia-smi") is None:
    collect_ignore_glob = ["test_*.py"]
