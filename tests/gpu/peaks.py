"""Jobs whose peak memory is measured on a GPU and compared with its estimate: for the test and for `make bench`.

The model has a few hundred million random weights, so that tensors and not the allocator's rounding decide. Rows are
packed, so that every sequence is as long as it may be.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api import resolve
from anneal_api.memory import estimate
from anneal_api.model import ModelSource
from anneal_trainer.shape_of import shape_of
from trainer.training import alpaca_rows, job, trained, write_jsonl

BATCH = {"globalBatchSize": 4, "microBatchSize": 2, "sequenceLength": 1024, "packing": True, "maxSteps": 3}
CASES: dict[str, dict[str, Any]] = {
    "lora": {"training": {"gradientCheckpointing": False}},
    "lora, checkpointing": {"training": {"gradientCheckpointing": True}},
    "qlora": {"training": {"gradientCheckpointing": True}, "model": {"quantization": "nf4"}},
    "qlora, kept": {"training": {"gradientCheckpointing": False}, "model": {"quantization": "nf4"}},
    "full": {"training": {"gradientCheckpointing": True}, "adapter": None},
    "full, kept": {"training": {"gradientCheckpointing": False}, "adapter": None},
    "full, adamw_8bit": {"training": {"gradientCheckpointing": True, "optimizer": "adamw_8bit"}, "adapter": None},
    "lora, sdpa": {"training": {"gradientCheckpointing": False}, "model": {"attention": "sdpa"}},
}


@dataclass(frozen=True)
class Peak:
    """Bytes that torch's allocator handed out at most."""

    estimated: int
    measured: int


def make_storage(root: Path, tiny: Path, *, hidden: int = 1024, layers: int = 12) -> Path:
    """A claim with a larger model of random weights under the small one's tokenizer, and rows that fill packs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(tiny, root / "model", dirs_exist_ok=True)
    config = json.loads((root / "model/config.json").read_text())
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers, "vocab_size": 32000}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": hidden // 16}
    # What names each layer would name the small model's.
    kept = {key: value for key, value in config.items() if key not in ("layer_types", "model_type")}
    wide = kept | sizes | heads | {"max_position_embeddings": 4096}
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **wide))
    for file in (root / "model").glob("*.safetensors"):
        file.unlink()
    made.save_pretrained(root / "model")
    write_jsonl(root / "data.jsonl", alpaca_rows(4000))
    return root


def peak(storage: Path, name: str, *, gpus: int = 1) -> Peak:
    """Run one case for a few steps."""
    case = CASES[name]
    made = job(
        name.replace(", ", "-").replace("_", "-"),
        **{**case, "training": {**BATCH, **case["training"]}, "compute": {"gpusPerNode": gpus}},
    )
    spec = resolve(made.spec)
    shape = shape_of(storage / "model", ModelSource("model.source", spec.model.source, "main"), spec.method)
    result = trained(storage, made)
    assert result.peak_memory_bytes is not None
    return Peak(estimate(spec, shape).allocated, result.peak_memory_bytes)
