"""The command line and the environment of a vLLM server that draws answers: the same in a pod and beside `anneal run`.

Not here: starting it (the operator's manifests, and the trainer's local servers).
"""

from typing import Final

from anneal_api.meta import BASE_MODEL
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import server_rank

# What the server loads at once beside the adapter that it draws from: the next one, before the last one is dropped.
_ADAPTERS_KEPT: Final = 2
MODULE: Final = "vllm.entrypoints.openai.api_server"
# GiB of the cache of keys and values on a CPU: small models, since others are drawn from on GPUs.
_CPU_CACHE: Final = "1"


def arguments(spec: RLHFSpec, *, model: str, port: int, host: str = "0.0.0.0") -> list[str]:  # noqa: S104 - a pod's own
    """After the program's name, for a resolved spec. `model` is the directory of the base."""
    rollout = spec.rollout
    assert rollout is not None, "resolve() fills rollout"
    given = [
        f"--model={model}",
        f"--served-model-name={BASE_MODEL}",
        f"--host={host}",
        f"--port={port}",
        f"--tensor-parallel-size={rollout.tensor_parallel}",
        f"--max-model-len={rollout.max_model_len}",
        # Log-probabilities of what is drawn from, temperature and all, to compare with the trainer's.
        "--logprobs-mode=processed_logprobs",
        f"--seed={spec.training.seed}",
        # A model's own generation_config.json would change what is drawn.
        "--generation-config=vllm",
        # Probes and draws are many: what it says itself would be lost among them.
        "--disable-uvicorn-access-log",
    ]
    if on_cpu(spec):
        # A prompt with a seed that is read in pieces ends vLLM's engine on CPUs ("CPU Generator does not use offset").
        given += ["--dtype=float32", "--no-enable-chunked-prefill"]
    else:
        given.append(f"--gpu-memory-utilization={rollout.memory_utilization}")
    if rollout.weight_sync == "adapter":
        assert spec.adapter is not None, "a rule of the spec"
        rank = server_rank(spec.adapter.r)
        given += ["--enable-lora", "--max-loras=1", f"--max-cpu-loras={_ADAPTERS_KEPT}", f"--max-lora-rank={rank}"]
    else:
        given.append('--weight-transfer-config={"backend":"nccl"}')
    return [*given, *rollout.extra_args]


def environment(spec: RLHFSpec) -> dict[str, str]:
    """Beside what the image sets."""
    rollout = spec.rollout
    assert rollout is not None, "resolve() fills rollout"
    adapter = rollout.weight_sync == "adapter"
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        **({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if adapter else {"VLLM_SERVER_DEV_MODE": "1"}),
        **({"VLLM_CPU_KVCACHE_SPACE": _CPU_CACHE} if on_cpu(spec) else {}),
    }


def on_cpu(spec: RLHFSpec) -> bool:
    """Whether the server computes without a GPU; `anneal run` looks at its own machine instead."""
    assert spec.rollout is not None, "resolve() fills rollout"
    return not (spec.compute.gpus_per_node if spec.rollout.mode == "colocate" else spec.rollout.gpus)
