"""The peak of a step is estimated, and measured here: every tensor that a real step makes is counted while it lives.

Tiles of logits are made small on both sides, since a CPU computes in them with several copies that a GPU's kernels do
not make. What differs on a GPU beside them (allocator, context, workspaces) cannot be seen here.
"""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from anneal_api import activations
from anneal_api.job import JobSpec
from anneal_api.memory import estimate
from anneal_trainer import shape_of
from anneal_trainer.methods.trainer import _give_head_its_bias
from trainer import shapes
from trainer.test_memory_kept import prepared

LENGTH, MICRO = 256, 2
WIDE = {
    **shapes.CONFIGS["llama"],
    "hidden_size": 256,
    "intermediate_size": 700,
    "num_hidden_layers": 6,
    "vocab_size": 4000,
    "max_position_embeddings": 512,
}


class Counted(TorchDispatchMode):
    """Bytes of all storages that live, and the most there were since `begin`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def begin(self) -> None:
        """Forget the peak."""
        self.most = self.now

    def add(self, tensor: Any) -> None:
        """Count a tensor for as long as its storage lives."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for each in tree_iter(made):
            if isinstance(each, torch.Tensor):
                self.add(each)
        return made


def measured(model: Any, made: JobSpec) -> int:
    """The most bytes in the second step, when there is an optimizer's state."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], fused=True)
    ids = torch.arange(MICRO * LENGTH).view(MICRO, LENGTH) % 900
    positions = torch.arange(LENGTH).remainder(LENGTH // 2).expand(MICRO, -1)
    counted = Counted()
    with counted:
        for each in model.parameters():
            counted.add(each.data)
        for _ in range(2):
            counted.begin()
            for _ in range(made.training.global_batch_size // MICRO):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=made.training.precision == "bf16"):
                    output = model(
                        input_ids=ids, labels=ids, position_ids=positions, use_cache=False, fused_lm_head=True
                    )
                output.loss.backward()
                del output
            optimizer.step()
            optimizer.zero_grad()
    return counted.most


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of logits, in the library and in the formula; and a model wide enough to tell."""
    monkeypatch.setitem(shapes.CONFIGS, "wide", WIDE)
    for module, name, size in (
        (chunked_logprob, "TOKEN_CHUNK_SIZE", 32),
        (activations, "HEAD_TOKENS", 32),
        (trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 128),
        (activations, "HEAD_COLUMNS", 128),
    ):
        monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "again"])
@pytest.mark.parametrize("adapter", [None, {"r": 16}], ids=["full", "lora"])
def test_the_peak_is_that_of_a_real_step(
    adapter: dict[str, Any] | None, precision: str, passes: int, *, again: bool
) -> None:
    """Within 10%: full fine-tuning and LoRA, with and without checkpointing, one pass a step and two."""
    training = {"sequenceLength": LENGTH, "microBatchSize": MICRO, "globalBatchSize": MICRO * passes}
    training |= {"gradientCheckpointing": again, "precision": precision}
    made = shapes.spec(model={"attention": "sdpa"}, adapter=adapter, training=training)
    ours = estimate(made, shape_of.of_model(shapes.built("wide")))
    real = measured(prepared("wide", made), made)
    assert ours.peak == pytest.approx(real, rel=0.1)


def test_the_peak_with_added_tokens_is_that_of_a_real_step() -> None:
    """Their rows alone are trained, but whole tables are copied and get a gradient on the way."""
    training = {"sequenceLength": LENGTH, "microBatchSize": MICRO, "globalBatchSize": MICRO, "precision": "bf16"}
    model = {"attention": "sdpa", "addSpecialTokens": ["<|a|>", "<|b|>"]}
    made = shapes.spec(model=model, adapter={"r": 16}, training=training)
    rows = {"embed_tokens": [5, 6], "lm_head": [5, 6]}
    real = prepared("wide", made, trainable_token_indices=rows)
    _give_head_its_bias(real)
    ours = estimate(made, shape_of.of_model(shapes.built("wide")))
    assert ours.peak == pytest.approx(measured(real, made), rel=0.1)
