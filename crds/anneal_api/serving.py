"""Whether vLLM can serve a job's model as `rollout` asks for it: sizes that tensorParallel divides, and its GPUs. Pure.

vLLM finds both out itself, after it has taken its GPUs and loaded the model. The memory here is the least that it can do
with: what is refused would not have started, and what is not may have little room. Not here: the trainer's memory
(`memory`), and the command line (`vllm`).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from anneal_api.activations import FP32
from anneal_api.job import JobSpec
from anneal_api.memory import BF16, CUDA_CONTEXT, NCCL_BUFFERS, Part, adapted
from anneal_api.modelshape import Decoder, ModelShape
from anneal_api.online_rules import most_tokens
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import RolloutSpec, server_rank

MOST_GPUS = 64
# Rows of the vocabulary are a multiple of it (`vocab_parallel_embedding.py`).
_VOCABULARY_PADDING = 64
# Tokens that share a block of the cache.
_BLOCK = 16
# What it computes with at once while it measures its own needs: tokens, and sequences that are sampled from, at least.
_TOKENS, _SEQUENCES = 2048, 256
# Further arguments after which it holds its weights or its cache in another way.
_CHANGING = ("--quantization", "-q", "--dtype", "--kv-cache-", "--cpu-offload", "--load-format", "--pipeline-parallel")
_ROUND = 64
_MOST_UTILIZATION = 0.95


def rollout_of(spec: JobSpec) -> RolloutSpec | None:
    """The rollout block of a resolved spec whose answers vLLM draws."""
    rollout = spec.rollout if isinstance(spec, RLHFSpec) else None
    return rollout if rollout and rollout.mode != "generate" else None


def parallel_problem(spec: JobSpec, shape: ModelShape) -> str | None:
    """Why tensorParallel cannot divide the model, and what can."""
    rollout = rollout_of(spec)
    if rollout is None or shape.decoder is None:
        return None
    why = _indivisible(shape, rollout.tensor_parallel)
    if why is None:
        return None
    accepted = ", ".join(str(size) for size in range(1, MOST_GPUS + 1) if _indivisible(shape, size) is None)
    return f"spec.rollout.tensorParallel: {rollout.tensor_parallel} {why}; this model can be shared by {accepted}"


def _indivisible(shape: ModelShape, size: int) -> str | None:
    """As vLLM 0.31 divides it (`config/model.py`, `model_executor/layers/linear.py`)."""
    decoder = shape.decoder
    assert decoder is not None, "checked by the caller"
    if decoder.heads % size:
        return f"does not divide the model's {decoder.heads} attention heads"
    pairs = _key_heads(decoder)
    if not _compressed(shape) and pairs % size and size % pairs:
        return f"and the model's {pairs} key-value heads do not divide one another"
    if not decoder.experts_per_token and decoder.inner % size:
        return f"does not divide the width inside the model's MLPs, {decoder.inner}"
    rows = ceil(shape.vocabulary / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    return f"does not divide the model's vocabulary of {rows} rows" if rows % size else None


def _key_heads(decoder: Decoder) -> int:
    return max(1, decoder.key // max(1, decoder.query // decoder.heads))


def _compressed(shape: ModelShape) -> bool:
    """Whether keys and values are made from a few shared numbers, which alone are cached (MLA)."""
    return any("kv_a_proj" in linear.name for linear in shape.linears)


@dataclass(frozen=True)
class Serving:
    """A server on GPUs of so many bytes, each with its part of the model; `gpu` None: not known."""

    spec: JobSpec
    shape: ModelShape
    gpu: int | None = None
    where: str = ""

    @property
    def rollout(self) -> RolloutSpec:
        """Its block."""
        rollout = rollout_of(self.spec)
        assert rollout is not None, "made where there is one"
        return rollout

    @property
    def budget(self) -> int:
        """What vLLM may take of a GPU."""
        return int((self.gpu or 0) * (self.rollout.memory_utilization or 0))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it takes at least, with one sequence of full length."""
        size, length = self.rollout.tensor_parallel, self.rollout.max_model_len
        found = (
            Part("weights", BF16 * self.shape.parameters // size),
            Part("adapter", self._adapter // size),
            Part("context", CUDA_CONTEXT + (NCCL_BUFFERS if size > 1 else 0)),
            Part("work", self._work),
            Part("cache", self.cache, f"one sequence of {length} tokens"),
        )
        return tuple(part for part in found if part.size)

    @property
    def needs(self) -> int:
        """All of it."""
        return sum(part.size for part in self.parts)

    @property
    def fits(self) -> bool | None:
        """None where it is not known: it may hold things in another way than is counted here."""
        if self.gpu is None:
            return None
        if self.needs <= self.budget:
            return True
        changed = any(argument.startswith(_CHANGING) for argument in self.rollout.extra_args)
        return None if changed or _compressed(self.shape) else False

    @property
    def room(self) -> int:
        """Sequences of full length that there can be at once, at most."""
        return (self.budget - self.needs) // max(1, self.cache) + 1 if self.needs <= self.budget else 0

    @property
    def cache(self) -> int:
        """Keys and values of one sequence of full length."""
        decoder, length = self._decoder, self.rollout.max_model_len or 0
        windowed = decoder.windowed * _blocks(min(length, decoder.window))
        tokens = (decoder.layers - decoder.windowed) * _blocks(length) + windowed
        heads = _key_heads(decoder)
        # One head at least is on each GPU.
        mine = decoder.key // heads * max(1, heads // self.rollout.tensor_parallel)
        return 2 * BF16 * mine * tokens

    @property
    def _decoder(self) -> Decoder:
        assert self.shape.decoder is not None, "made where it is known"
        return self.shape.decoder

    @property
    def _adapter(self) -> int:
        """The place for one on the GPU, as large as --max-lora-rank lets it be."""
        adapter = self.spec.adapter
        if adapter is None or self.rollout.weight_sync != "adapter":
            return 0
        numbers = (
            max(1, len(linear.parts)) * linear.experts * (linear.fan_in + linear.fan_out)
            for linear in adapted(adapter, self.shape)
        )
        return BF16 * server_rank(adapter.r) * sum(numbers)

    @property
    def _work(self) -> int:
        """The stream before and after an MLP and what lies inside; and probabilities of the sequences sampled from."""
        inside = 3 * self._decoder.inner // self.rollout.tensor_parallel
        return BF16 * _TOKENS * (2 * self._decoder.hidden + inside) + FP32 * _SEQUENCES * self.shape.vocabulary


def _blocks(tokens: int) -> int:
    return ceil(tokens / _BLOCK) * _BLOCK


def serving(spec: JobSpec, shape: ModelShape, gpu: int | None = None, where: str = "") -> Serving | None:
    """A server of a resolved job on GPUs of `gpu` bytes; None where it is on CPUs, or nothing can be told."""
    rollout = rollout_of(spec)
    if rollout is None or shape.decoder is None or not shape.weights:
        return None
    gpus = spec.compute.gpus_per_node if rollout.mode == "colocate" else rollout.gpus
    return Serving(spec, shape, gpu, where) if gpus else None


def sentence(server: Serving) -> str:
    """Whether it fits, with the numbers; and if not, what would."""
    rollout, length = server.rollout, server.rollout.max_model_len
    told = ", ".join(
        f"{part.name} {_gib(part.size)}{f' for {part.note}' if part.note else ''}" for part in server.parts
    )
    needs = f"a vLLM server needs {_gib(server.needs)} GiB of a GPU at least ({told})"
    if server.gpu is None:
        return f"{needs}; what a GPU has is not known"
    where = f" ({server.where})" if server.where else ""
    share = f"{_gib(server.budget)} GiB that rollout.memoryUtilization {rollout.memory_utilization:g} gives it{where}"
    if server.fits:
        return f"a vLLM server has room for {server.room} sequences of {length} tokens at most, in the {share}"
    words = f"{needs}, of the {share}"
    if server.fits is None:
        return f"{words}; it may take less than is counted here"
    return f"{words}: {'; '.join((*remedies(server), 'or name GPUs with more memory' + _named(rollout)))}"


def _named(rollout: RolloutSpec) -> str:
    return " in rollout.pool or gpuType" if rollout.mode == "server" else ""


def remedies(server: Serving, most_gpus: int = MOST_GPUS) -> Iterator[str]:
    """Changes of the manifest after which it would start."""
    rollout = server.rollout
    if rollout.mode == "server":
        sizes = range(rollout.tensor_parallel + 1, most_gpus + 1)
        usable = (size for size in sizes if _indivisible(server.shape, size) is None)
        yield from _first(server, "tensorParallel", usable, gpus=True)
        if (rollout.memory_utilization or 0) < _MOST_UTILIZATION:
            yield from _first(server, "memoryUtilization", iter([_MOST_UTILIZATION]))
    else:
        yield "rollout.mode: server, on GPUs of its own"
    yield from _shorter(server)


def _first(server: Serving, field: str, values: Iterator[Any], *, gpus: bool = False) -> Iterator[str]:
    names = {"tensorParallel": "tensor_parallel", "memoryUtilization": "memory_utilization"}
    for value in values:
        changed = _with(server, **{names[field]: value}, **({"gpus": value} if gpus else {}))
        if changed.fits:
            yield f"rollout.{field}: {value} would need {_gib(changed.needs)} of {_gib(changed.budget)} GiB"
            return


def _shorter(server: Serving) -> Iterator[str]:
    """The longest sequence that there is room for."""
    left = server.budget - _with(server, max_model_len=0).needs
    tried = range((server.rollout.max_model_len or 0) // _ROUND + 1)
    fitting = bisect_right(tried, left, key=lambda count: _with(server, max_model_len=count * _ROUND).cache)
    length = (fitting - 1) * _ROUND
    if length >= server.spec.training.sequence_length:
        yield f"rollout.maxModelLen: {length} is the most"
    elif length > most_tokens(server.spec):
        yield f"training.sequenceLength: {length} (and no longer rollout.maxModelLen) is the most"


def _with(server: Serving, **values: Any) -> Serving:
    rollout = server.rollout.model_copy(update=values)
    return replace(server, spec=server.spec.model_copy(update={"rollout": rollout}))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
