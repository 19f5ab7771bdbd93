"""Whether a model keeps the rows of a pack apart: by its config before a GPU is asked for, and by trying it then.

A pack marks its rows by positions that begin again at 0. Attention masks are made from that; layers that carry a state
from token to token (Mamba, linear attention, short convolutions) and models that take no positions do not look at it,
and would mix rows without a word. Not here: making packs (`data.packing`).
"""

from pathlib import Path
from typing import Any

from anneal_trainer.errors import ConfigError
from anneal_trainer.model import config_of

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention", "global", "local"}
_STATEFUL = (
    "mamba",
    "rwkv",
    "recurrent",
    "zamba",
    "jamba",
    "bamba",
    "lfm2",
    "falcon_h1",
    "nemotron_h",
    "xlstm",
    "next",
)
_WITHOUT_POSITIONS = ("bloom", "mpt", "xlnet")
_PROBE = 12
# fp32 noise of a tiny model is 1e-6, bf16's of a large one some 1e-2 of its scores; a mixed row's differ by their size.
_TOLERANCE = 0.05


def why_not(path: Path) -> str | None:
    """Why the model in this directory cannot train on packs, as far as its config tells; None if it can."""
    config = config_of(path)
    config = config | config.get("text_config", {})
    kind = str(config.get("model_type", ""))
    layers = config.get("layer_types") or config.get("layers_block_type") or config.get("block_types") or []
    other = sorted({str(layer) for layer in layers} - _ATTENTION)
    if other:
        return f"its layers of type {', '.join(other)} carry a state from one row to the next"
    if any(mark in kind for mark in _STATEFUL):
        return f"models of type {kind} carry a state from one row to the next"
    if kind in _WITHOUT_POSITIONS or config.get("alibi"):
        return f"models of type {kind} take no positions, from which rows of a pack are told apart"
    return None


def check(model: Any) -> None:
    """ConfigError if a row's scores change with the row that comes before it in a pack."""
    import torch

    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    table = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, table, (2, _PROBE), generator=generator).to(device)
    positions = torch.arange(_PROBE, device=device)
    with torch.no_grad():
        alone = model(input_ids=second[None], position_ids=positions[None], use_cache=False).logits[0]
        packed = model(
            input_ids=torch.cat([first, second])[None], position_ids=positions.repeat(2)[None], use_cache=False
        ).logits[0, _PROBE:]
    model.train(was_training)
    difference = (alone - packed).float().abs().max().item()
    if not difference <= _TOLERANCE * alone.float().abs().max().item():
        raise ConfigError(
            f"training.packing: this model ({type(model).__name__}) mixes the rows of a pack: a row's scores differ by "
            f"up to {difference:.3g} with another one before it; set training.packing to false"
        )
