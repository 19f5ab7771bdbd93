"""How many tokens a model reads, as vLLM finds it out, and jobs whose servers would refuse their length."""

import json
from pathlib import Path
from typing import Any

import pytest

from anneal_trainer import served
from anneal_trainer.errors import ConfigError
from trainer.prompting import online_job, prepared

LENGTHS: list[tuple[dict[str, Any], tuple[int, str] | None]] = [
    ({"max_position_embeddings": 4096}, (4096, "max_position_embeddings")),
    ({"n_positions": 1024}, (1024, "n_positions")),
    ({"max_position_embeddings": 4096, "seq_length": 2048}, (2048, "seq_length")),
    ({"model_max_length": 131072, "max_position_embeddings": 8192}, (131072, "model_max_length")),
    ({"text_config": {"max_position_embeddings": 512}}, (512, "max_position_embeddings")),
    ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}, (400, "max_position_embeddings")),
    ({"max_position_embeddings": 100, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, (100, "max_position_embeddings")),
    (
        {"max_position_embeddings": 100, "rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}},
        (200, "max_position_embeddings"),
    ),
    ({"model_type": "gemma3_text", "max_position_embeddings": 100, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, (100, "max_position_embeddings")),
    ({"model_type": "mamba"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), LENGTHS)
def test_the_most_tokens_that_a_model_reads(config: dict[str, Any], expected: tuple[int, str] | None) -> None:
    """From the field that says it, and longer where its positions are stretched."""
    assert served.longest(config) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rollout": {"mode": "server", "maxModelLen": 2049}}, r"spec\.rollout\.maxModelLen: 2049 tokens, but model\.source .* reads 1000 at most"),
        ({"rollout": {"mode": "server"}, "training": {"sequenceLength": 1001}}, r"spec\.training\.sequenceLength, which bounds prompt and answer together: 1001"),
    ],
    ids=["room", "sequences"],
)  # fmt: skip
def test_a_length_that_a_server_would_refuse_is_told_by_prepare(
    storage: Path, changes: dict[str, Any], expected: str
) -> None:
    """Before a GPU is asked for; where the trainer draws itself nothing is refused."""
    config = next(storage.glob("**/config.json"))
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"max_position_embeddings": 1000}))
    with pytest.raises(ConfigError, match=expected):
        prepared(storage, online_job(**changes))
    generate = {**changes, "rollout": {"mode": "generate"}}
    assert prepared(storage, online_job(name="alone", **generate)).report.used
