"""What a model's config says about serving it with vLLM: how many tokens it reads at most, as vLLM finds that out.

`prepare` asks, so that no server takes a GPU only to refuse the length. Not here: whether its sizes can be divided and
fit a GPU (`anneal_api.serving`, which the operator asks for the pools that there are).
"""

from collections.abc import Iterable
from typing import Any

from anneal_api.serving import rollout_of
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError

# In `model_arch_config_convertor.py` of vLLM 0.31; the smallest of those that are there counts.
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Kinds of rope after which the length in the config is already the longer one (`_get_and_verify_max_len`).
_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default")


def check_length(context: Context) -> None:
    """ConfigError if servers were to have room for longer sequences than the model reads."""
    spec, rollout = context.spec, rollout_of(context.spec)
    if rollout is None or rollout.max_model_len is None:
        return
    found = longest(model.config_of(model.directory(spec.models[0], context)))
    if found is None or rollout.max_model_len <= found[0]:
        return
    most, key = found
    field = "rollout.maxModelLen"
    if spec.training.sequence_length > most:
        field = "training.sequenceLength, which bounds prompt and answer together"
    raise ConfigError(
        f"spec.{field}: {max(rollout.max_model_len, spec.training.sequence_length)} tokens, but "
        f"{spec.models[0]} reads {most} at most ({key} in its config.json), and vLLM serves no longer ones: write at "
        f"most {most}"
    )


def longest(config: dict[str, Any]) -> tuple[int, str] | None:
    """The most tokens, and what says so; None where nothing does."""
    text = config.get("text_config") or config
    if isinstance(own := text.get("model_max_length"), int):
        return own, "model_max_length"
    known = [(text[key], key) for key in _LENGTHS if isinstance(text.get(key), int)]
    if not known:
        return None
    most, key = min(known)
    factor = 1.0 if "gemma3" in str(config.get("model_type")) else max(_factors(text), default=1.0)
    return int(most * factor), key


def _factors(text: dict[str, Any]) -> Iterable[float]:
    """By what rope makes the length more; of one kind, or of each kind of layer."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    for each in rope.values() if all(isinstance(value, dict) for value in rope.values()) else [rope]:
        kind = each.get("rope_type") or each.get("type") or "default"
        if kind not in _SCALED_ALREADY and each.get("factor"):
            yield float(each["factor"])
