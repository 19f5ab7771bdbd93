"""What a job holds from step to step is estimated to the byte: a real trainer's tensors are counted after a step."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim import GlobalOptimManager
from transformers import TrainerCallback

from anneal_api import ProgressReport
from anneal_api.memory import Estimate, estimate
from anneal_trainer import shape_of
from anneal_trainer.data.formats import alpaca
from anneal_trainer.methods import loop, sft
from anneal_trainer.prepare import prepare
from anneal_trainer.quickstart import model
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.stop import Stop
from trainer.training import alpaca_rows, context, job, write_jsonl

CASES = {
    "full-adamw": {"adapter": None},
    "full-8bit": {"adapter": None, "training": {"optimizer": "adamw_8bit"}},
    "full-adafactor": {"adapter": None, "training": {"optimizer": "adafactor"}},
    "full-bf16": {"adapter": None, "training": {"precision": "bf16"}},
    "lora": {},
    "lora-bf16": {"training": {"precision": "bf16"}},
    "lora-named": {"adapter": {"r": 8, "targetModules": ["q_proj", "down_proj"]}},
    "lora-tokens": {"model": {"addSpecialTokens": ["<|think|>", "<|answer|>"]}},
    "nf4": {"model": {"quantization": "nf4"}},
    "nf4-8bit": {"model": {"quantization": "nf4"}, "adapter": {"r": 32}, "training": {"optimizer": "adamw_8bit"}},
    "int8-adafactor": {"model": {"quantization": "int8"}, "training": {"optimizer": "adafactor"}},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a model wide enough for blocks of quantization, and data."""
    storage = tmp_path_factory.mktemp("wide")
    texts = [alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in alpaca_rows()]
    model.build(texts, storage / "model", vocabulary=320, width=128, heads=2)
    write_jsonl(storage / "data.jsonl", alpaca_rows())
    return storage


@pytest.fixture(autouse=True)
def _new_overrides() -> None:
    """Bitsandbytes keeps for the life of a process which tensors are held in 32 bits, by their place in a model."""
    GlobalOptimManager.get_instance().initialize()


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Counts their bytes before they are used."""

    def __init__(self) -> None:
        self.size = 0

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.size = bytes_of(p.grad for p in model.parameters() if p.grad is not None)


def bytes_of(tensors: Any) -> int:
    """Of tensors whose memory is each one's own; one that is met twice counts once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def constants(module: Any) -> Iterator[Any]:
    """The tensors beside a quantized weight."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is not None:
        yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    state = getattr(module, "state", None)
    if state is not None:
        yield state.SCB


def held(storage: Path, made: Any) -> dict[str, int]:
    """Bytes of a real trainer after two steps."""
    here, reporter, stop = context(storage, made), Reporter(ProgressReport(), silent), Stop()
    trainers, gradients = [], Gradients()

    def make(setup: loop.Setup) -> Any:
        trainers.append(sft._trainer(setup))
        trainers[0].add_callback(gradients)
        return trainers[0]

    try:
        loop.run(here, prepare(here, reporter), make=make, reporter=reporter, stop=stop)
    finally:
        stop.restore()
    trainer = trainers[0]
    parameters = list(trainer.model.parameters())
    frozen = [p for p in parameters if not p.requires_grad]
    state = [v for each in trainer.optimizer.state.values() for v in each.values() if isinstance(v, torch.Tensor)]
    return {
        "weights": bytes_of([*frozen, *(c for module in trainer.model.modules() for c in constants(module))]),
        "adapter": bytes_of(p for p in parameters if p.requires_grad),
        "gradients": gradients.size,
        "optimizer": bytes_of(state),
    }


def estimated(storage: Path, made: Any) -> Estimate:
    """The same job's estimate."""
    spec = context(storage, made).spec
    return estimate(spec, shape_of.shape_of(storage / "model", spec.models[0], spec.method))


@pytest.mark.parametrize("case", CASES)
def test_weights_gradients_and_state_are_those_of_a_real_trainer(wide: Path, tmp_path: Path, case: str) -> None:
    """Byte for byte, for full fine-tuning, adapters, quantized bases and every optimizer."""
    storage = tmp_path / "storage"
    shutil.copytree(wide, storage)
    made = job(**{**CASES[case], "training": {"maxSteps": 2, "microBatchSize": 2, **CASES[case].get("training", {})}})
    parts = {part.name: part.size for part in estimated(storage, made).parts}
    real = held(storage, made)
    if made.spec.adapter is None:
        real["weights"], real["adapter"] = real["adapter"], 0
    assert {name: parts.get(name, 0) for name in real} == real
