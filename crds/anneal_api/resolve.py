"""Defaults that depend on other fields, filled by one pure function; and the digest of what shapes prepared data.

Defaults that depend on nothing are in the schema, so that `kubectl get -o yaml` shows them. These are not: they would
be wrong as soon as another field changed. `anneal validate --resolved` and the job's ConfigMap show them filled.
Not here: anything that depends on the machine (precision `auto`) or on the data (the number of steps).
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from anneal_api.base import Block
from anneal_api.compute import ComputeSpec
from anneal_api.job import JobSpec
from anneal_api.model import AdapterSpec
from anneal_api.online import SamplingSpec
from anneal_api.online_rules import most_tokens
from anneal_api.practice import ADAPTER_FACTOR, PRACTICE
from anneal_api.rlhfjob import BLOCKS, RLHFSpec
from anneal_api.rollout import RolloutSpec
from anneal_api.status import SourceReport
from anneal_api.training import TrainingSpec

LARGEST_DEFAULT_MICRO_BATCH = 8

# Raised when the meaning of prepared data changes, so that older directories are not reused.
DATA_FORMAT_VERSION = 4


Spec = TypeVar("Spec", bound=JobSpec)


def resolve(spec: Spec) -> Spec:
    """`spec` with every default filled. Idempotent: resolving twice changes nothing."""
    resolved: Spec = _with(
        spec,
        adapter=spec.adapter and _adapter(spec.adapter),
        training=_training(spec),
        compute=_compute(spec),
        **(_own_block(spec) if isinstance(spec, RLHFSpec) else {}),
    )
    return resolved


def _own_block(spec: RLHFSpec) -> dict[str, Block]:
    """The method's block with its defaults, where the manifest has none."""
    if spec.method not in BLOCKS:
        return {}
    own: dict[str, Block] = {spec.method: getattr(spec, spec.method) or BLOCKS[spec.method]()}
    if spec.is_online:
        own |= {"sampling": spec.sampling or SamplingSpec(), "rollout": _rollout(spec)}
    return own


def _rollout(spec: RLHFSpec) -> Block:
    rollout = spec.rollout or RolloutSpec()
    filled: dict[str, Any] = {}
    if rollout.mode != "generate":
        filled = {
            "max_model_len": rollout.max_model_len or spec.training.sequence_length,
            "memory_utilization": rollout.memory_utilization or (0.3 if rollout.mode == "colocate" else 0.9),
            "weight_sync": _weight_sync(spec, rollout),
        }
    if rollout.mode == "server":
        gpus = rollout.gpus
        if gpus is None:
            gpus = rollout.tensor_parallel if spec.compute.gpus_per_node else 0
        filled |= {
            "replicas": rollout.servers,
            "gpus": gpus,
            "cpu": rollout.cpu or (str(4 * gpus) if gpus else "1"),
            "memory": rollout.memory or (f"{64 * gpus}Gi" if gpus else "6Gi"),
        }
    return rollout.model_copy(update=filled)


def _weight_sync(spec: RLHFSpec, rollout: RolloutSpec) -> str:
    if rollout.weight_sync != "auto":
        return rollout.weight_sync
    return "adapter" if spec.adapter else "nccl"


def _with(block: Any, **values: Any) -> Any:
    """A copy with `values` set where the block has none."""
    missing = {name: value for name, value in values.items() if value is not None}
    return block.model_copy(update=missing)


def _adapter(adapter: AdapterSpec) -> AdapterSpec:
    filled: AdapterSpec = _with(adapter, alpha=adapter.alpha or 2 * adapter.r)
    return filled


def _training(spec: JobSpec) -> TrainingSpec:
    training, world, usual = spec.training, spec.compute.world_size, PRACTICE[spec.method]
    micro = training.given_micro_batch
    batch = training.global_batch_size or _default_batch(usual.batch, spec.compute, micro, spec.group)
    filled: TrainingSpec = _with(
        training,
        epochs=training.epochs if training.epochs or training.max_steps else 1.0,
        global_batch_size=batch,
        # For `auto` this is what is taken where the memory is not known.
        micro_batch_size=micro or largest_divisor(batch // world, LARGEST_DEFAULT_MICRO_BATCH),
        learning_rate=training.learning_rate or usual.learning_rate * (ADAPTER_FACTOR if spec.adapter else 1),
        warmup_ratio=_warmup_ratio(training, usual.warmup_ratio),
    )
    return filled


def _default_batch(usual: int, compute: ComputeSpec, micro: int | None, group: int) -> int:
    """What is usual, or the next multiple of what one pass, or group, holds over all devices, and over the fewest."""
    unit = math.lcm(compute.world_size * math.lcm(micro or 1, group), compute.fewest_processes * group)
    return unit * math.ceil(usual / unit)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def _warmup_ratio(training: TrainingSpec, usual: float) -> float | None:
    if training.warmup_steps is not None:
        return None
    return usual if training.warmup_ratio is None else training.warmup_ratio


def _compute(spec: JobSpec) -> Block:
    compute, gpus = spec.compute, spec.compute.gpus_per_node
    filled: Block = _with(
        compute,
        cpu=compute.cpu or (str(4 * gpus) if gpus else "1"),
        memory=compute.memory or (f"{64 * gpus}Gi" if gpus else "4Gi"),
        shared_memory=compute.shared_memory or (f"{2 * gpus}Gi" if gpus else "256Mi"),
    )
    return filled


def prepare_inputs(spec: JobSpec) -> dict[str, Any]:
    """Everything in a spec that shapes the prepared data, and nothing else (a learning rate does not)."""
    evaluation = spec.evaluation
    online = isinstance(spec, RLHFSpec) and spec.is_online
    return {
        **({"maxTokens": most_tokens(spec)} if online else {}),
        "version": DATA_FORMAT_VERSION,
        # Methods that read the same rows share what is made of them.
        "method": spec.family if isinstance(spec, RLHFSpec) else spec.method,
        "model": spec.model.source,
        "revision": spec.model.revision,
        "chatTemplate": spec.model.chat_template,
        "addSpecialTokens": spec.model.add_special_tokens,
        "datasets": [dataset.dump() for dataset in spec.datasets],
        "holdout": evaluation.holdout.dump() if evaluation and evaluation.holdout else None,
        "evaluationDatasets": [dataset.dump() for dataset in evaluation.datasets] if evaluation else [],
        "preparation": {key: value for key, value in spec.preparation.dump().items() if key != "previewRows"},
        "packing": spec.training.packing,
        "seed": spec.training.seed,
        "sequenceLength": spec.training.sequence_length,
    }


def digest(value: Any) -> str:
    """A short, stable digest of a JSON value (16 hex digits: 64 bits)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def prepare_key(spec: JobSpec, claim: str, sources: Sequence[SourceReport] = ()) -> str:
    """Equal for two jobs of a namespace for which the same is prepared on the claim `claim`: data and models.

    `sources` are what the spec's job:// sources stand for: a job that was run again has made another model.
    """
    models = [named._asdict() for named in (*spec.models, *spec.judges)]
    return digest(
        {"claim": claim, "inputs": prepare_inputs(spec), "models": models, "sources": [each.dump() for each in sources]}
    )
