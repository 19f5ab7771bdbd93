"""Small configs of many architectures, and jobs over them: what the estimate of memory is compared with is built of these."""

from typing import Any

from anneal_api import parse_job, resolve
from anneal_api.job import JobSpec
from anneal_api.online import ONLINE

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SMALL},
    "llama-tied": {"model_type": "llama", **SMALL, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **SMALL},
    "qwen2": {"model_type": "qwen2", **SMALL, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **SMALL, "head_dim": 32},
    "gemma3": {"model_type": "gemma3_text", **SMALL, "head_dim": 16},
    "phi3": {"model_type": "phi3", **SMALL},
    "mixtral": {"model_type": "mixtral", **SMALL, **_EXPERTS, "num_local_experts": 4},
    "qwen3-moe": {"model_type": "qwen3_moe", **SMALL, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 48},
    "qwen2-moe": {
        "model_type": "qwen2_moe",
        **SMALL,
        **_EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 80,
    },
}
DENSE = [name for name, config in CONFIGS.items() if "num_experts_per_tok" not in config]


def built(name: str, **changes: Any) -> Any:
    """A real model of a small config, on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIGS[name]), **changes)


def spec(method: str = "sft", **changes: Any) -> JobSpec:
    """A resolved job; `training`, `model` and `compute` are merged, the rest replaced."""
    rows = {"source": "hf://org/rows"}
    blocks: dict[str, Any] = {
        "model": {"source": "volume://runs/model"},
        "datasets": [rows],
        "method": method,
        "compute": {"gpusPerNode": 0},
        "training": {"globalBatchSize": 4, "microBatchSize": 2, "sequenceLength": 64},
    }
    if method in ONLINE:
        blocks |= {"rewards": [{"name": "short", "length": {"most": 4}}], "sampling": {"maxTokens": 8}}
        blocks |= {method: {"numGenerations": 4}, "rollout": {"mode": "generate"}}
    for name, value in changes.items():
        blocks[name] = {**blocks[name], **value} if isinstance(blocks.get(name), dict) else value
    kind = "FineTuneJob" if method in ("sft", "pretrain") else "RLHFJob"
    document = {"apiVersion": "anneal.dev/v1alpha1", "kind": kind, "metadata": {"name": "job"}, "spec": blocks}
    return resolve(parse_job(document).spec)
