"""One tiny model a session, and a fresh storage with it for each test."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from trainer.training import alpaca_rows, write_jsonl

# Two tests run at once on two cores: a thread each, or they wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples every time: a failure is the change's, and nothing is kept between runs.
settings.register_profile("anneal", derandomize=True, database=None, deadline=None)
settings.load_profile("anneal")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-style model of about 60 thousand weights, with a ChatML tokenizer."""
    from anneal_trainer import quiet_libraries
    from anneal_trainer.data.formats import alpaca
    from anneal_trainer.quickstart import model

    quiet_libraries.apply()
    texts = [alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in alpaca_rows()]
    path = tmp_path_factory.mktemp("tiny") / "model"
    model.build(texts, path, vocabulary=320, width=32, heads=2)
    return path


@pytest.fixture
def storage(tmp_path: Path, tiny_model: Path) -> Path:
    """A claim with model/ and data.jsonl (alpaca)."""
    shutil.copytree(tiny_model, tmp_path / "model")
    write_jsonl(tmp_path / "data.jsonl", alpaca_rows())
    return tmp_path
