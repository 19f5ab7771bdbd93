"""A shape goes into a termination message and comes out with the same estimate, for every architecture and method."""

import json
from pathlib import Path
from typing import Any

import pytest

from anneal_api import Outcome, TerminationMessage
from anneal_api.memory import estimate
from anneal_api.model import ModelSource
from anneal_api.modelrecord import ModelRecord, record_of
from anneal_api.modelshape import ModelShape
from anneal_api.resolve import prepare_inputs
from anneal_api.rlhfjob import FAMILIES
from anneal_trainer import shape_of
from anneal_trainer.estimate import records
from anneal_trainer.model import class_for
from trainer.shapes import CONFIGS, SMALL, spec
from trainer.training import context, job

NAMED = ModelSource("model.source", "volume://runs/model", "main")
EIGHT = {"compute": {"gpusPerNode": 8}, "training": {"globalBatchSize": 16}}
JOBS: dict[str, dict[str, Any]] = {
    "full": {},
    "full-8bit": {**EIGHT, "training": {"globalBatchSize": 32, "optimizer": "adamw_8bit"}},
    "adafactor": {"training": {"optimizer": "adafactor", "gradientCheckpointing": False}},
    "lora": {"adapter": {"r": 8}},
    "lora-kept": {"adapter": {"r": 8, "dropout": 0.1}, "training": {"gradientCheckpointing": False}, **EIGHT},
    "lora-named": {"adapter": {"r": 4, "targetModules": ["q_proj", "mlp.down_proj", "w1", "up_proj", "lm_head"]}},
    "one-layer": {"adapter": {"r": 4, "targetModules": ["layers.1.self_attn.q_proj"]}},
    "nf4": {"adapter": {"r": 8}, "model": {"quantization": "nf4", "addSpecialTokens": ["<x>"]}},
    "int8": {"adapter": {"r": 8}, "model": {"quantization": "int8"}, "training": {"precision": "bf16"}},
}
LLAVA = {
    "model_type": "gemma3",
    "text_config": {**CONFIGS["gemma3"]},
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
}  # fmt: skip
# The order of the layers' kinds is not regular: dense ones first, then mixtures.
UNEVEN = {
    "model_type": "qwen3_moe", **SMALL, "num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 48,
    "mlp_only_layers": [1], "decoder_sparse_step": 1,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 320}
MAMBA = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 320, "state_size": 8}
ALL = {**CONFIGS, "gemma3-vision": LLAVA, "uneven": UNEVEN, "gpt2": GPT2, "mamba": MAMBA}


def shape(tmp_path: Path, config: dict[str, Any], method: str = "sft") -> ModelShape:
    """The shape of a config that lies alone in a directory."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    return shape_of.shape_of(tmp_path, NAMED, method)


def told(record: ModelRecord) -> ModelRecord:
    """What the operator reads of it."""
    words = TerminationMessage(outcome=Outcome.SUCCEEDED, models=[record])
    decoded = TerminationMessage.decode(words.encode())
    assert decoded is not None
    return decoded.models[0]


# What the library has no class for.
NONE = {("gemma3", "prm"), ("gemma3-vision", "prm"), ("mamba", "prm"), ("mamba", "reward")}
CASES = [(name, method) for name in ALL for method in ("sft", "dpo", "reward", "prm") if (name, method) not in NONE]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_the_estimate_survives_the_way_to_the_operator(tmp_path: Path, name: str, method: str) -> None:
    """Whatever a job does with the model, and though names of weights are not told."""
    found = shape(tmp_path, ALL[name], method)
    record = record_of(found)
    assert record is not None
    again = told(record).shape
    for changes in JOBS.values():
        wanted = spec(method, **changes)
        assert estimate(wanted, again) == estimate(wanted, found)
    assert again.parameters == record.parameters == found.parameters


def test_a_reference_is_told_without_its_layers(tmp_path: Path) -> None:
    """Only its weights are held; the estimate with it is the same."""
    found, other = shape(tmp_path, CONFIGS["llama"], "dpo"), shape(tmp_path, CONFIGS["qwen3"], "dpo")
    short = record_of(other, is_reference=True)
    assert short is not None
    assert not short.linears
    wanted = spec("dpo", adapter={"r": 4}, reference={"source": "volume://runs/other"})
    assert estimate(wanted, found, told(short).shape) == estimate(wanted, found, other)


def test_who_shares_prepared_data_has_the_same_head() -> None:
    """So a job that makes no prepare pod may take the shapes of the job that did: their keys tell families apart."""
    heads: dict[str, set[tuple[Any, ...]]] = {}
    for method in FAMILIES:
        kind, labels = class_for(method)
        family = prepare_inputs(spec(method))["method"]
        heads.setdefault(family, set()).add((kind.__name__, *labels.items()))
    assert len(heads) > 2
    assert all(len(found) == 1 for found in heads.values()), heads


def test_what_keeps_an_estimate_from_being_made_is_only_told(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preparation does not fail of it, and says nothing of the models."""
    made = context(storage, job())
    assert [each.architecture for each in records(made)] == ["Qwen3ForCausalLM"]
    config = storage / "model/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": "many"}))
    assert records(made) == []
    assert "warning: the memory cannot be estimated: model.source" in capsys.readouterr().err
    config.write_text('{"model_type": "of_tomorrow"}')
    assert [(each.architecture, each.decoder) for each in records(made)] == [("of_tomorrow", None)]
