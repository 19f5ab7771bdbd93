"""Weights and adapters are counted from a config alone, exactly as real modules have them."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from anneal_api.memory import estimate, trained_tensors
from anneal_api.model import ModelSource
from anneal_api.modelshape import ModelShape
from anneal_trainer import shape_of
from anneal_trainer.errors import InputError
from trainer.shapes import CONFIGS, built, spec

NAMED = ModelSource("model.source", "volume://runs/model", "main")


def shape(tmp_path: Path, config: dict[str, Any], method: str = "sft") -> ModelShape:
    """The shape of a config that lies alone in a directory."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    return shape_of.shape_of(tmp_path, NAMED, method)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_real_module(tmp_path: Path, name: str) -> None:
    """Every weight with its name and size, tied ones once."""
    found = shape(tmp_path, CONFIGS[name])
    real = built(name)
    assert {weight.name: weight.shape for weight in found.weights} == {
        key: tuple(value.shape) for key, value in real.named_parameters()
    }
    assert found.parameters == real.num_parameters()


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "v_proj"]], ids=["all-linear", "named"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "phi3"])
def test_adapters_are_those_of_peft(tmp_path: Path, name: str, targets: list[str]) -> None:
    """Every tensor that PEFT would train, fused experts among them."""
    _compare_adapter(tmp_path, name, targets)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("phi3", ["all-linear"]),
        ("phi3", ["qkv_proj"]),
        ("llama", ["lm_head", "layers.1.mlp.down_proj"]),
        ("mixtral", ["w1", "w2", "w3"]),
        ("qwen3-moe", ["gate_proj", "up_proj", "k_proj"]),
    ],
)
def test_adapters_on_other_layers_are_those_of_peft(tmp_path: Path, name: str, targets: list[str]) -> None:
    """Fused projections, the head, a layer of its own, the experts by the names of their checkpoints."""
    _compare_adapter(tmp_path, name, targets)


def _compare_adapter(tmp_path: Path, name: str, targets: list[str]) -> None:
    from peft import LoraConfig, get_peft_model

    job = spec(adapter={"r": 4, "targetModules": targets})
    made = trained_tensors(job, shape(tmp_path, CONFIGS[name]))
    chosen = targets[0] if targets == ["all-linear"] else targets
    real = get_peft_model(built(name), LoraConfig(r=4, target_modules=chosen, task_type="CAUSAL_LM"))
    shapes = [tuple(each.shape) for each in real.parameters() if each.requires_grad]
    assert sorted(each.shape for each in made) == sorted(shapes)


@pytest.mark.parametrize(("method", "outputs"), [("reward", 1), ("prm", 2)])
def test_a_head_of_scores_stands_in_place_of_the_language_head(tmp_path: Path, method: str, outputs: int) -> None:
    """Models that judge have another head, which is trained beside an adapter, and no logits."""
    found = shape(tmp_path, CONFIGS["llama"], method)
    assert (outputs, 64) in [weight.shape for weight in found.weights if weight.name.startswith("score")]
    job = spec(method, adapter={"r": 4})
    assert (outputs, 64) in [each.shape for each in trained_tensors(job, found)]
    assert "logits" not in {part.name for part in estimate(job, found).parts}


def test_an_unknown_architecture_is_counted_from_its_weight_files(tmp_path: Path) -> None:
    """What the files' headers say is in the estimate; what is missing is named."""
    tensors = {
        "embed.weight": {"dtype": "F32", "shape": [10, 4], "data_offsets": [0, 160]},
        "layers.0.proj.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [160, 224]},
    }
    header = json.dumps(tensors).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(224))
    found = shape(tmp_path, {"model_type": "of_tomorrow"})
    made = estimate(spec(adapter={"r": 2}), found)
    assert (made.parameters, made.trained, made.missing) == (56, 16, ("activations",))


def test_an_unknown_architecture_without_weights_leaves_them_out(tmp_path: Path) -> None:
    """An estimate without weights says so."""
    assert estimate(spec(), shape(tmp_path, {"model_type": "of_tomorrow"})).missing == ("weights", "activations")


def test_layers_that_no_formula_is_for_are_left_out(tmp_path: Path) -> None:
    """A model without attention is counted, its activations are not."""
    config = {"model_type": "mamba", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2}
    assert estimate(spec(), shape(tmp_path, config)).missing == ("activations",)


def test_a_config_that_describes_no_model_is_told(tmp_path: Path) -> None:
    """With the source, the architecture and the library's reason."""
    with pytest.raises(InputError, match=r"volume://runs/model: its config.json describes no llama model"):
        shape(tmp_path, {**CONFIGS["llama"], "hidden_size": "wide"})
