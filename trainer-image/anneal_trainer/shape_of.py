"""The shape of a model from its config, without weights: its library class is built on torch's meta device.

So parameters are counted exactly, tied ones once, and nothing is allocated. Of an architecture that the library does
not know only what the headers of its weight files say is known. Imports torch late. Not here: any formula
(`anneal_api.memory`).
"""

from pathlib import Path
from typing import Any

from anneal_api.model import ModelSource
from anneal_api.modelshape import Decoder, Linear, ModelShape, Reads, Weight
from anneal_trainer import model
from anneal_trainer.errors import InputError

# The last projection of an attention, and the first one, by the names that the library's models give them.
_ANSWERS = ("o_proj", "out_proj", "dense", "c_proj")
_QUERIES = ("q_proj", "qkv_proj", "query_key_value", "c_attn")
# Layers that the library has fused, by the names that adapters know them by (PEFT's
# utils/transformers_weight_conversion.py): all-linear means them too.
_FUSED = {
    "mixtral": {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",), "gate.weight": ("gate",)},
    "qwen2_moe": {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",), "gate.weight": ("gate",)},
}


def shape_of(path: Path, named: ModelSource, method: str) -> ModelShape:
    """The shape of the model that a method trains, from the config in a directory; InputError if it describes none."""
    config = model.config_of(path)
    kind = str(config.get("model_type"))
    if not _is_known(kind):
        return _from_files(path, named, kind)
    try:
        return of_model(_on_meta(config, method))
    except Exception as error:  # the library raises many kinds, and a broken config can raise any
        raise InputError(f"{named}: its config.json describes no {kind} model: {error}") from error


def _is_known(kind: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return kind in CONFIG_MAPPING_NAMES


def _on_meta(config: dict[str, Any], method: str) -> Any:
    import torch
    from transformers import AutoConfig

    # Code beside the weights is never run.
    known = {name: value for name, value in config.items() if name not in ("auto_map", "quantization_config")}
    kind, labels = model.class_for(method)
    with torch.device("meta"):
        return kind.from_config(AutoConfig.for_model(**known, **labels))


def of_model(built: Any) -> ModelShape:
    """The shape of a library's model, wherever its weights are."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config = built.config.get_text_config()
    head, embedded = built.get_output_embeddings(), built.get_input_embeddings().weight
    modules = dict(built.named_modules())
    fused = _fused(built)
    weights, last = list(built.named_parameters()), next(reversed(dict(built.named_parameters())))
    linear = {name for name, module in modules.items() if type(module) in (nn.Linear, Conv1D)}
    names = {id(module): name for name, module in modules.items()}
    unquantized = {last, f"{names.get(id(head))}.weight"}
    plain = (_linear(name, modules[name], config, head) for name in sorted(linear) if not _is_score(name))
    replaced = {part for linear in fused for part in linear.parts}
    return ModelShape(
        architecture=type(built).__name__,
        weights=tuple(
            Weight(
                name,
                tuple(parameter.shape),
                quantizable=name.removesuffix(".weight") in linear and name not in unquantized,
                embedding=parameter is embedded,
            )
            for name, parameter in weights
        ),
        linears=(*(each for each in plain if each.name.rpartition(".")[2] not in replaced), *fused),
        decoder=_decoder(config, modules),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        tied=head is not None and head.weight is embedded,
    )


def _is_score(name: str) -> bool:
    return name in ("score", "classifier")


def _linear(name: str, module: Any, config: Any, head: Any) -> Linear:
    rows, columns = module.weight.shape
    # GPT-2's layers are written the other way round.
    fan_in, fan_out = (columns, rows) if hasattr(module, "in_features") else (rows, columns)
    return Linear(name, fan_in, fan_out, _reads(name, fan_in, config.hidden_size, is_head=module is head))


def _reads(name: str, fan_in: int, hidden: int, *, is_head: bool) -> Reads:
    if is_head:
        return "head"
    if "att" in name and name.rpartition(".")[2] in _ANSWERS:
        return "attention"
    return "stream" if fan_in == hidden else "inner"


def _fused(built: Any) -> tuple[Linear, ...]:
    """The parameters that stand for layers, as adapters name those."""
    from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN

    kind = built.config.model_type
    parts = _FUSED.get("mixtral" if kind == "mixtral" else _MODEL_TO_CONVERSION_PATTERN.get(kind, ""), {})
    found = []
    for name, parameter in built.named_parameters():
        known = next((old for new, old in parts.items() if name.endswith(f".{new}")), None)
        if known:
            *experts, fan_out, fan_in = parameter.shape
            reads: Reads = "stream" if fan_in == built.config.get_text_config().hidden_size else "inner"
            found.append(Linear(name, fan_in, fan_out, reads, experts[0] if experts else 1, known))
    return tuple(found)


def _decoder(config: Any, modules: dict[str, Any]) -> Decoder | None:
    """The layers, if each has an attention of the usual kind."""
    layers, heads = config.num_hidden_layers, getattr(config, "num_attention_heads", None)
    # A tower that sees is frozen and small beside them.
    modules = {name: module for name, module in modules.items() if "vision" not in name}
    attentions, inner = sum(1 for name in modules if name.rpartition(".")[2] in _QUERIES), _inner(config)
    if not isinstance(heads, int) or attentions != layers or inner is None:
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    query, key = heads * size, (getattr(config, "num_key_value_heads", None) or heads) * size
    return Decoder(
        layers=layers,
        hidden=config.hidden_size,
        heads=heads,
        query=query,
        key=key,
        inner=inner,
        norms=_norms(modules, query, key) // layers,
        experts_per_token=getattr(config, "num_experts_per_tok", None) or 0,
        **_windows(config),
    )


def _windows(config: Any) -> dict[str, int]:
    """The layers that see only a window of tokens: all of them, or those that the config says."""
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    windowed = sum(1 for kind in kinds if kind != "full_attention")
    return {"windowed": windowed, "window": window} if window and windowed else {}


def _inner(config: Any) -> int | None:
    """The width of what lies inside the MLPs that a token goes through."""
    width: int | None = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    experts = getattr(config, "num_experts_per_tok", None)
    if not experts:
        return width or 4 * config.hidden_size
    each = getattr(config, "moe_intermediate_size", None) or width
    return each and experts * each + (getattr(config, "shared_expert_intermediate_size", None) or 0)


def _norms(modules: dict[str, Any], query: int, key: int) -> int:
    """The numbers that the normalizations inside all layers read; those of queries and keys read all heads."""
    whole = {"q_norm": query, "k_norm": key}
    inside = [(name, each) for name, each in modules.items() if "Norm" in type(each).__name__ and _is_repeated(name)]
    return sum(whole.get(name.rpartition(".")[2], each.weight.shape[0]) for name, each in inside)


def _is_repeated(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _from_files(path: Path, named: ModelSource, kind: str) -> ModelShape:
    """What the weight files say of a model that the library does not know."""
    entries: dict[str, Any] = {}
    if next(path.glob("*.safetensors"), None):
        for file in model.weight_files(path, named):
            entries |= model.weights_header(file)[1]
    weights = [(name, tuple(entry["shape"])) for name, entry in entries.items()]
    matrices = [name for name, shape in weights if len(shape) > 1 and "embed" not in name and "head" not in name]
    return ModelShape(
        architecture=kind,
        weights=tuple(
            Weight(name, shape, quantizable=name in matrices, embedding="embed" in name) for name, shape in weights
        ),
        linears=tuple(
            Linear(name.removesuffix(".weight"), shape[-1], shape[-2], "stream")
            for name, shape in weights
            if name in matrices
        ),
        decoder=None,
        vocabulary=0,
        hidden=0,
        tied=False,
    )
