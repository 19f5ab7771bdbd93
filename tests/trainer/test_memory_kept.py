"""What autograd keeps is estimated by formula, and compared here with what real models save: storages, each once."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from anneal_api.job import JobSpec
from anneal_api.memory import Held
from anneal_api.memory import kept as estimated
from anneal_trainer import shape_of
from trainer.shapes import built, spec

# No tensor of activations has the shape of a weight at this length.
LENGTH = 120
WITHIN = 0.15
# Packs have a matrix for a mask; a single whole sequence needs none.
MICRO = {"eager": 2, "packs": 2, "single": 1}
ADAPTERS = {"full": None, "lora": {"r": 8}, "lora-named": {"r": 8, "targetModules": ["q_proj", "v_proj"]}}


def job(attention: str, adapter: str, *, precision: str, again: bool) -> JobSpec:
    """A job of one micro batch."""
    training = {"sequenceLength": LENGTH, "microBatchSize": MICRO[attention], "precision": precision}
    training |= {"gradientCheckpointing": again, "packing": attention == "packs"}
    kernel = "eager" if attention == "eager" else "sdpa"
    return spec(model={"attention": kernel}, training=training, adapter=ADAPTERS[adapter])


def prepared(name: str, made: JobSpec, **options: Any) -> Any:
    """The model as a trainer has it."""
    half = Held(made).frozen_width == 2
    model = built(name, attn_implementation=made.model.attention, dtype=torch.bfloat16 if half else torch.float32)
    add_fused_lm_head(model)
    if made.adapter:
        targets = made.adapter.target_modules
        chosen = "all-linear" if targets == ["all-linear"] else targets
        model = get_peft_model(model, LoraConfig(r=8, target_modules=chosen, task_type="CAUSAL_LM", **options))
    if made.training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    return model.train()


class Kept:
    """Collects the storages of what is kept; weights and autocast's copies of them are not."""

    def __init__(self, model: Any) -> None:
        self._weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
        self._shapes = {shape for each in model.parameters() if each.dim() > 1 for shape in (each.shape, each.T.shape)}
        self.found: dict[int, int] = {}

    def save(self, tensor: Any) -> Any:
        """Count one tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights and tensor.shape not in self._shapes:
            self.found[storage.data_ptr()] = storage.nbytes()
        return tensor

    def arguments(self, _module: Any, _positional: Any, named: dict[str, Any]) -> None:
        """A layer that is computed again keeps its arguments where autograd's hooks do not look."""
        for value in named.values():
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, torch.Tensor) and each.is_floating_point() | (each.dim() > 2):
                    self.save(each)


def kept(model: Any, made: JobSpec, attention: str) -> int:
    """Bytes that are kept at the end of a forward pass."""
    collected = Kept(model)
    layer = next(module for name, module in model.named_modules() if name.endswith("layers.0"))
    layer.register_forward_pre_hook(collected.arguments, with_kwargs=True)
    micro = MICRO[attention]
    ids = torch.arange(micro * LENGTH).view(micro, LENGTH) % 300
    positions = torch.arange(LENGTH).remainder(LENGTH // 2 if attention == "packs" else LENGTH).expand(micro, -1)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=made.training.precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(collected.save, lambda tensor: tensor),
    ):
        model(input_ids=ids, labels=ids, position_ids=positions, use_cache=False, fused_lm_head=True)
    return sum(collected.found.values())


# Phi-3 has no q_proj to name; an adapter on experts is a part of its own.
IMPOSSIBLE = {("phi3", "lora-named"), ("mixtral", "lora")}
NAMES = ("llama", "qwen3", "gemma3", "phi3", "mixtral")


@pytest.mark.parametrize("again", [False, True], ids=["kept", "again"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("name", "adapter"), [(name, kind) for name in NAMES for kind in ADAPTERS if (name, kind) not in IMPOSSIBLE]
)
@pytest.mark.parametrize("attention", MICRO)
def test_activations_are_those_that_a_real_model_keeps(
    name: str, attention: str, adapter: str, precision: str, *, again: bool
) -> None:
    """Within 15%, whatever is trained, in both precisions, with and without checkpointing."""
    made = job(attention, adapter, precision=precision, again=again)
    real = kept(prepared(name, made), made, attention)
    ours = estimated(Held(made), shape_of.of_model(built(name))).forward
    assert ours == pytest.approx(real, rel=WITHIN)
