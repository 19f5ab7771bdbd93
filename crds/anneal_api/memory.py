"""How much memory a GPU needs for a job at its peak: a pure function of the resolved spec and the model's shape.

A step is followed through the moments at which memory can be highest; the estimate is the highest of them. Terms,
assumptions and examples: docs/memory.md. Not here: reading a config (`anneal_trainer.shape_of`), evaluation and the
answering of samples (less than training with the same micro batch), and any choice of a batch that fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

from anneal_api import activations
from anneal_api.activations import FP32, Head, Pass
from anneal_api.job import JobSpec
from anneal_api.model import AdapterSpec
from anneal_api.modelshape import Linear, ModelShape, Weight
from anneal_api.online_rules import drawn_at_once
from anneal_api.rlhfjob import SCORING, RLHFSpec

BF16 = 2
# torch's CUDA context with its kernels loaded, as `nvidia-smi` shows it beside what torch has allocated: 450 to 550 MiB
# on A100 and H100.
CUDA_CONTEXT = 512 * 2**20
# cuBLAS's workspace, which torch allocates: `CUBLAS_WORKSPACE_CONFIG` of Hopper is one block of 32 MiB, others less.
CUBLAS_WORKSPACE = 32 * 2**20
# NCCL's channels: 16 to 32 of them, with buffers of 4 MiB (`NCCL_BUFFSIZE`) for both directions.
NCCL_BUFFERS = 256 * 2**20
# The caching allocator rounds blocks of over 1 MiB up to 2 MiB and keeps split ones: reserved over allocated.
FRAGMENTATION = 0.05

# bitsandbytes: 4-bit weights have a constant (a byte) a block, those a constant (fp32) a block of theirs, and two
# tables of values (16 and 256, fp32) and an offset a weight (`functional.quantize_4bit`).
NF4_BLOCK, NF4_NESTED_BLOCK, NF4_TABLES = 64, 256, FP32 * (16 + 256 + 1)
# bitsandbytes: 8-bit states in blocks with a constant each, two tables of 256 values; small tensors stay in fp32; a
# paged optimizer pages larger ones (`optim/optimizer.py`).
STATE_BLOCK, STATE_TABLES, SMALLEST_8BIT, SMALLEST_PAGED = 256, 2 * FP32 * 256, 4096, 100_000

# Parts that torch's allocator does not count.
BESIDE_TENSORS = ("context", "fragmentation", "vLLM")

# Sequences that a row of a micro batch has while gradients are computed: a pair has two.
_PAIRED = ("dpo", "ipo", "orpo", "simpo", "cpo", "reward")


@dataclass(frozen=True)
class Part:
    """What one thing takes, in bytes, at the moment of the peak."""

    name: str
    size: int
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """The parts that are known. `moment`: when in a step they are highest. `missing`: what could not be estimated."""

    parts: tuple[Part, ...]
    moment: str
    parameters: int
    trained: int
    missing: tuple[str, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes of the device."""
        return sum(part.size for part in self.parts)

    @property
    def allocated(self) -> int:
        """Bytes that torch's allocator has handed out: what `status.memory.peakGiB` will say."""
        return sum(part.size for part in self.parts if part.name not in BESIDE_TENSORS)


class Trained(NamedTuple):
    """A tensor with a gradient."""

    shape: tuple[int, ...]
    embedding: bool = False

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


class Moment(NamedTuple):
    """What differs between moments of a step, in bytes."""

    name: str
    gradients: int
    activations: int
    logits: int
    temporary: int


class Kept(NamedTuple):
    """Activations at the end of the forward pass, and in the backward passes of the last layer and of the first."""

    forward: int
    last: int
    first: int


@dataclass(frozen=True)
class Held:
    """How a job holds and computes, as `anneal_trainer.model` and the trainers do it."""

    spec: JobSpec

    @property
    def half(self) -> bool:
        """Whether it computes in bf16; auto is taken for a GPU that has it."""
        wanted = self.spec.training.precision
        return wanted == "bf16" or (wanted == "auto" and self.spec.compute.gpus_per_node > 0)

    @property
    def frozen_width(self) -> int:
        """Bytes a number of weights that are not quantized: full fine-tuning keeps them in fp32."""
        return BF16 if self.half and self.spec.adapter else FP32

    @property
    def accumulates(self) -> bool:
        """Whether gradients are there while a later micro batch is computed."""
        training = self.spec.training
        return training.global_batch > training.micro_batch * self.spec.compute.world_size

    @property
    def one_pass(self) -> Pass:
        """The pass over one micro batch, every sequence as long as it may be."""
        training, adapter = self.spec.training, self.spec.adapter
        sequences = training.micro_batch * (2 if self.spec.method in _PAIRED else 1)
        flash = self.spec.model.attention == "flash_attention_2"
        packed = not isinstance(self.spec, RLHFSpec) and training.packing is not False
        width = BF16 if self.half else FP32
        return Pass(
            sequences=sequences,
            length=training.sequence_length,
            width=width,
            frozen=adapter is not None,
            casts=self.half,
            inputs=self.spec.model.quantization == "int8",
            eager=self.spec.model.attention == "eager",
            # One whole sequence alone needs no mask but the causal one, which the kernels know.
            masked=not flash and (packed or sequences > 1 or self.spec.model.attention == "eager"),
            dropout=bool(adapter and adapter.dropout),
        )


def estimate(spec: JobSpec, shape: ModelShape, reference: ModelShape | None = None) -> Estimate:
    """What a GPU needs for a resolved job; `reference` is the shape of `reference.source`, if the job has one."""
    held = Held(spec)
    trained = trained_tensors(spec, shape)
    size = sum(each.size for each in trained) * FP32
    moment = max(_moments(held, shape, trained), key=lambda each: sum(each[1:]))
    parts = [
        *_weights_parts(held, shape, trained),
        Part("gradients", moment.gradients),
        Part("optimizer", optimizer_bytes(trained, spec.training.optimizer)),
        Part("gradient buckets", size if spec.compute.world_size > 1 else 0, "DDP's copy of the gradients"),
        Part("reference model", _reference(held, shape, reference)),
        Part("activations", moment.activations, _pass_text(held)),
        Part("logits", moment.logits, "tiles of the fused head"),
        Part("temporary", moment.temporary, "casts, one layer's weights dequantized, the optimizer's own"),
    ]
    parts += _around(spec, sum(part.size for part in parts))
    return Estimate(
        parts=tuple(part for part in parts if part.size),
        moment=moment.name,
        parameters=shape.parameters,
        trained=sum(each.size for each in trained),
        missing=_missing(spec, shape),
    )


def trained_tensors(spec: JobSpec, shape: ModelShape) -> list[Trained]:
    """Every tensor with a gradient: all weights, or the adapter's."""
    if spec.adapter is None:
        return [Trained(weight.shape, weight.embedding) for weight in shape.weights]
    made = [tensor for linear in adapted(spec.adapter, shape) for tensor in _lora(linear, spec.adapter.r)]
    rows = len(spec.model.add_special_tokens)
    made += [Trained((rows, shape.hidden))] * ((1 if shape.tied else 2) if rows else 0)
    # PEFT trains a copy of the head that says scores.
    return made + [Trained(weight.shape) for weight in shape.weights if _is_score(weight, spec)]


def _is_score(weight: Weight, spec: JobSpec) -> bool:
    return spec.method in SCORING and weight.is_score


def _lora(linear: Linear, rank: int) -> list[Trained]:
    rank *= max(1, len(linear.parts)) * linear.experts
    return [Trained((rank, linear.fan_in)), Trained((linear.fan_out, rank))]


def adapted(adapter: AdapterSpec, shape: ModelShape) -> tuple[Linear, ...]:
    """The layers that get an adapter, as PEFT chooses them."""
    if adapter.target_modules == ["all-linear"]:
        return tuple(linear for linear in shape.linears if linear.reads != "head")
    return tuple(linear for linear in shape.linears if any(_named(linear, name) for name in adapter.target_modules))


def _named(linear: Linear, target: str) -> bool:
    if linear.parts:
        return target.rpartition(".")[2] in linear.parts
    return linear.name == target or linear.name.endswith(f".{target}")


def weight_bytes(weight: Weight, quantization: str, width: int) -> int:
    """One weight with its constants."""
    if quantization == "none" or not weight.quantizable:
        return weight.size * width
    if quantization == "int8":
        return weight.size + FP32 * weight.shape[0]
    blocks = ceil(weight.size / NF4_BLOCK)
    return ceil(weight.size / 2) + blocks + FP32 * ceil(blocks / NF4_NESTED_BLOCK) + NF4_TABLES


def optimizer_bytes(trained: Iterable[Trained], optimizer: str) -> int:
    """Its state on the device."""
    match optimizer:
        case "adamw":
            # Two moments, and the number of the step.
            return sum(FP32 * (2 * each.size + 1) for each in trained)
        case "adafactor":
            # And the root mean square of the tensor itself.
            return sum(FP32 * (_factored(each.shape) + 1) for each in trained)
        case _:
            return STATE_TABLES + sum(_state_8bit(each, paged=optimizer.startswith("paged")) for each in trained)


def _factored(shape: tuple[int, ...]) -> int:
    """A matrix is held by its rows and columns (arXiv 1804.04235, section 3)."""
    if len(shape) == 1:
        return shape[0]
    return prod(shape[:-1]) + prod(shape[:-2]) * shape[-1]


def _state_8bit(tensor: Trained, *, paged: bool) -> int:
    # The library registers embeddings for 32 bits.
    wide = tensor.embedding or tensor.size < SMALLEST_8BIT
    constants = 0 if wide else 2 * FP32 * ceil(tensor.size / STATE_BLOCK)
    if paged and tensor.size >= SMALLEST_PAGED:
        return constants
    return constants + tensor.size * 2 * (FP32 if wide else 1)


def _weights_parts(held: Held, shape: ModelShape, trained: list[Trained]) -> list[Part]:
    form = held.spec.model.quantization
    width = "bf16" if held.frozen_width == BF16 else "fp32"
    note = width if form == "none" else f"{form}; embeddings, head and norms {width}"
    parts = [Part("weights", _model_bytes(held, shape), note)]
    if held.spec.adapter:
        parts.append(Part("adapter", FP32 * sum(each.size for each in trained), "fp32"))
    return parts


def _model_bytes(held: Held, shape: ModelShape) -> int:
    form = held.spec.model.quantization
    rows = len(held.spec.model.add_special_tokens) * shape.hidden * (1 if shape.tied else 2)
    return rows * held.frozen_width + sum(weight_bytes(weight, form, held.frozen_width) for weight in shape.weights)


def _reference(held: Held, shape: ModelShape, reference: ModelShape | None) -> int:
    """A second model; of an adapter job without a source it is the first one with the adapter off."""
    spec = held.spec
    if not isinstance(spec, RLHFSpec) or not spec.refers:
        return 0
    if spec.reference.source is not None:
        return _model_bytes(held, reference or shape)
    return 0 if spec.adapter or spec.reference.precompute else _model_bytes(held, shape)


def _moments(held: Held, shape: ModelShape, trained: list[Trained]) -> list[Moment]:
    """A step: the last of its forward passes, the backward pass from the head to the first layer, the optimizer."""
    one, again = held.one_pass, held.spec.training.gradient_checkpointing
    whole = FP32 * sum(each.size for each in trained)
    before = whole if held.accumulates else 0
    head, casts = _head(held, shape), _casts(held, shape, trained)
    work, gradient = _work(held, shape), _gradient_work(held, trained)
    score = held.spec.method in SCORING
    forward, backward = (0, 0) if score else (head.forward(one), head.backward(one))
    saved = kept(held, shape)
    merged = _merged_rows(held, shape)
    made = 0 if score else head.gradient + merged
    copies = 0 if again else casts
    first = 0 if held.spec.adapter else made
    step = 3 * FP32 * max((each.size for each in trained), default=0) if _is_adafactor(held.spec) else 0
    return [
        Moment("the end of the forward pass", before, saved.forward, forward, casts + work + merged),
        Moment("the head's backward pass", before, saved.forward, backward, copies + made),
        Moment("the last layer's backward pass", before or first, saved.last, 0, copies + work + gradient),
        Moment("the first layer's backward pass", whole, saved.first, 0, work + gradient + merged),
        Moment("the optimizer's step", whole, 0, 0, step),
        *_drawing(held, shape),
    ]


def _drawing(held: Held, shape: ModelShape) -> list[Moment]:
    """Before there are gradients: keys and values of all tokens, one layer's twice, and the last token's logits.

    Only where the trainer itself draws: a server has memory of its own (`serving`).
    """
    spec = held.spec
    if not (isinstance(spec, RLHFSpec) and spec.rollout and spec.rollout.mode == "generate") or shape.decoder is None:
        return []
    rows, width = drawn_at_once(spec), BF16 if held.half else FP32
    cache = 2 * shape.decoder.layers * shape.decoder.key * rows * spec.training.sequence_length * width
    # As they come, in fp32, as probabilities, and added up in fp64.
    logits = rows * shape.vocabulary * (width + 2 * FP32 + 2 * FP32)
    return [Moment("the drawing of answers", 0, cache, logits, cache // max(1, shape.decoder.layers))]


def _is_adafactor(spec: JobSpec) -> bool:
    return spec.training.optimizer == "adafactor"


def _head(held: Held, shape: ModelShape) -> Head:
    trained = held.spec.adapter is None or bool(held.spec.model.add_special_tokens)
    return Head(shape.vocabulary, shape.hidden, trained=trained, width=held.frozen_width)


def _merged_rows(held: Held, shape: ModelShape) -> int:
    """PEFT puts the trained rows of added tokens into a copy of their whole table (`TrainableTokensLayer`)."""
    if held.spec.adapter is None or not held.spec.model.add_special_tokens:
        return 0
    return shape.vocabulary * shape.hidden * held.frozen_width


def _casts(held: Held, shape: ModelShape, trained: list[Trained]) -> int:
    """Autocast keeps its bf16 copies of trained matrices until the pass is over; the head is cast in parts."""
    if not held.half:
        return 0
    whole = sum(each.size for each in trained if len(each.shape) > 1 and not each.embedding)
    none = held.spec.adapter or shape.tied or held.spec.method in SCORING
    head = 0 if none else shape.vocabulary * shape.hidden
    return BF16 * max(0, whole - head)


def _work(held: Held, shape: ModelShape) -> int:
    """One layer's largest matrix dequantized; and what adapters make of the weights of experts."""
    width = BF16 if held.half else FP32
    largest = max((weight.size for weight in shape.weights if weight.quantizable), default=0)
    dequantized = width * largest if held.spec.model.quantization != "none" else 0
    return dequantized + (_adapted_experts(held, shape) if held.spec.adapter else 0)


def _gradient_work(held: Held, trained: list[Trained]) -> int:
    """The largest gradient once more: as it is computed in bf16, and in fp32 before it is added to the one before."""
    largest = max((each.size for each in trained), default=0)
    return largest * ((BF16 if held.half else 0) + (FP32 if held.accumulates else 0))


def _adapted_experts(held: Held, shape: ModelShape) -> int:
    """PEFT adds an adapter to the weights of experts: the sum and the difference of a layer, as large as they are."""
    assert held.spec.adapter is not None, "only asked for with an adapter"
    fused = [linear for linear in adapted(held.spec.adapter, shape) if linear.experts > 1]
    layers = shape.decoder.layers if shape.decoder else 1
    all_of_them = sum(linear.experts * linear.fan_in * linear.fan_out for linear in fused) // layers
    at_once = 1 if held.spec.training.gradient_checkpointing else layers
    return (BF16 if held.half else FP32) * all_of_them * (at_once + 1)


def kept(held: Held, shape: ModelShape) -> Kept:
    """Activations, by the shape of the layers; nothing where that is not known."""
    decoder, one, adapter = shape.decoder, held.one_pass, held.spec.adapter
    if decoder is None:
        return Kept(0, 0, 0)
    trained = adapted(adapter, shape) if adapter else shape.linears
    layer = activations.layer(decoder, one, trained, adapter.r if adapter else 0)
    again = held.spec.training.gradient_checkpointing
    each = activations.boundary(decoder, one) if again else layer
    always, flow = activations.shared(decoder, one), activations.flow(decoder, one)
    whole = decoder.layers * each + always
    return Kept(
        forward=whole + activations.ending(decoder, one),
        last=whole + flow + (layer if again else 0),
        first=layer + always + flow + (each if again else 0),
    )


def _pass_text(held: Held) -> str:
    one = held.one_pass
    again = "computed again" if held.spec.training.gradient_checkpointing else "all kept"
    return f"{one.sequences} x {one.length} tokens, {again}"


def _around(spec: JobSpec, allocated: int) -> list[Part]:
    """What is on a GPU beside the tensors."""
    if not spec.compute.gpus_per_node:
        return []
    communication = NCCL_BUFFERS if spec.compute.world_size > 1 else 0
    return [
        Part("workspace", CUBLAS_WORKSPACE, "cuBLAS"),
        Part("context", CUDA_CONTEXT + communication, "CUDA" + (", NCCL" if communication else "")),
        Part("fragmentation", int(FRAGMENTATION * allocated), f"{FRAGMENTATION:.0%} of the parts above"),
    ]


def _missing(spec: JobSpec, shape: ModelShape) -> tuple[str, ...]:
    judges = ("reward models",) if spec.judges else ()
    return (() if shape.weights else ("weights",)) + (() if shape.decoder else ("activations",)) + judges
