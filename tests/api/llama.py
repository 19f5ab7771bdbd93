"""A small llama in numbers, and jobs over it: what the estimate of memory and the choices over it are tested with."""

from typing import Any

from anneal_api import parse_job, resolve
from anneal_api.job import JobSpec
from anneal_api.modelshape import Decoder, Linear, ModelShape, Weight

HIDDEN, INNER, LAYERS, VOCABULARY = 512, 1024, 4, 32_000


def linears() -> tuple[Linear, ...]:
    """Those of four llama layers and of the head."""
    made = []
    for number in range(LAYERS):
        made += [
            Linear(f"layers.{number}.self_attn.{name}_proj", HIDDEN, HIDDEN, "attention" if name == "o" else "stream")
            for name in "qkvo"
        ]
        made += [Linear(f"layers.{number}.mlp.{name}_proj", HIDDEN, INNER, "stream") for name in ("gate", "up")]
        made.append(Linear(f"layers.{number}.mlp.down_proj", INNER, HIDDEN, "inner"))
    return (*made, Linear("lm_head", HIDDEN, VOCABULARY, "head"))


def shape() -> ModelShape:
    """A small llama, in numbers."""
    weights = [
        Weight(f"{each.name}.weight", (each.fan_out, each.fan_in), quantizable=each.reads != "head")
        for each in linears()
    ]
    return ModelShape(
        architecture="LlamaForCausalLM",
        weights=(Weight("embed_tokens.weight", (VOCABULARY, HIDDEN), embedding=True), *weights),
        linears=linears(),
        decoder=Decoder(LAYERS, HIDDEN, heads=8, query=HIDDEN, key=HIDDEN, inner=INNER, norms=2 * HIDDEN),
        vocabulary=VOCABULARY,
        hidden=HIDDEN,
        tied=False,
    )


def job(method: str = "sft", **changes: Any) -> JobSpec:
    """A resolved job with changes; blocks are merged."""
    spec: dict[str, Any] = {
        "model": {"source": "hf://org/model"},
        "datasets": [{"source": "hf://org/rows"}],
        "method": method,
        "training": {"microBatchSize": 2, "globalBatchSize": 8, "sequenceLength": 1024},
    }
    for name, value in changes.items():
        spec[name] = {**spec[name], **value} if isinstance(spec.get(name), dict) else value
    kind = "FineTuneJob" if method == "sft" else "RLHFJob"
    document = {"apiVersion": "anneal.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    return resolve(parse_job(document).spec)
