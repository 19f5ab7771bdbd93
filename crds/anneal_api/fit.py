"""Whether a job fits the memory of a GPU, with which micro batch, and what would help if not. Pure.

The global batch never changes: what adapts is the micro batch, a divisor of each GPU's share, and with
`memoryFit: autotune` gradient checkpointing. Not here: the estimate (`memory`), and what a GPU has.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from anneal_api.job import JobSpec
from anneal_api.memory import Estimate, Part, estimate
from anneal_api.model import AdapterSpec
from anneal_api.modelshape import ModelShape
from anneal_api.resolve import largest_divisor, resolve
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.rollout import RolloutSpec

GIB = 2**30
# The largest micro batch that `auto` takes.
LARGEST_AUTO = 64
# Sequences shorter than that are hardly worth proposing.
_SHORTEST = 256
_MOST_REMEDIES = 4
_LORA, _NF4 = "a LoRA adapter (adapter: {type: lora})", "model.quantization: nf4"

Change = Callable[[JobSpec], JobSpec]


@dataclass(frozen=True)
class Gpu:
    """The memory that each process may have, in bytes, and where that is known from; `size` None: not known."""

    size: int | None = None
    where: str = ""


UNKNOWN = Gpu()


@dataclass(frozen=True)
class Asked:
    """A resolved job, whether its manifest asks for `microBatchSize: auto`, and the shapes of its models."""

    spec: JobSpec
    auto: bool
    shapes: tuple[ModelShape, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What an attempt must keep to: its nodes, and what was learnt from earlier ones that ran out of memory."""

    # None: as many as the spec says.
    nodes: int | None = None
    # The largest micro batch.
    most: int | None = None
    checkpointing: bool = False


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Choice:
    """How the job is carried out on a GPU: `spec` has the micro batch and checkpointing that were chosen."""

    spec: JobSpec
    shapes: tuple[ModelShape, ...]
    gpu: Gpu
    tuned: bool = False

    @cached_property
    def estimate(self) -> Estimate | None:
        """The estimate; None where the shape of a model is not known. With colocate a part of the GPU is vLLM's."""
        if not self.shapes:
            return None
        made = estimate(self.spec, *self.shapes)
        share = _vllm_share(self.spec)
        if not share or self.gpu.size is None:
            return made
        taken = Part("vLLM", int(share * self.gpu.size), f"rollout.memoryUtilization {share:g}")
        return replace(made, parts=(*made.parts, taken))

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass per GPU."""
        return self.spec.training.micro_batch

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again."""
        return self.spec.training.gradient_checkpointing

    @property
    def fits(self) -> bool | None:
        """None where it is not known: what is known of a model may be too much, but never enough."""
        if self.estimate is None or self.gpu.size is None:
            return None
        if self.estimate.peak > self.gpu.size:
            return False
        return None if self.estimate.missing else True


def _vllm_share(spec: JobSpec) -> float:
    """Of the trainer's own GPUs."""
    rollout = spec.rollout if isinstance(spec, RLHFSpec) else None
    return (rollout.memory_utilization or 0) if rollout and rollout.mode == "colocate" else 0


def choose(asked: Asked, gpu: Gpu = UNKNOWN, limits: Limits = NO_LIMITS) -> Choice:
    """The micro batch, and checkpointing.

    As the manifest says, unless that is `auto` or has `memoryFit: autotune`: then the first that fits, or what needs
    the least.
    """
    spec = _limited(asked.spec, limits)
    given = spec.training.micro_batch
    most = limits.most or max(given, LARGEST_AUTO)
    usual = Choice(_micro(spec, min(given, most)), asked.shapes, gpu)
    wanted = asked.auto or spec.compute.memory_fit == "autotune"
    if not wanted or gpu.size is None or usual.estimate is None or usual.estimate.missing:
        return usual
    if not asked.auto and usual.fits:
        return usual
    largest = min(LARGEST_AUTO, most) if asked.auto else usual.micro_batch
    tried = [Choice(each, asked.shapes, gpu, tuned=True) for each in _candidates(spec, largest)]
    return next((each for each in tried if each.fits), tried[-1])


def _limited(spec: JobSpec, limits: Limits) -> JobSpec:
    if limits.nodes is not None:
        spec = _with(spec, "compute", nodes=limits.nodes)
    return _with(spec, "training", gradient_checkpointing=True) if limits.checkpointing else spec


def _candidates(spec: JobSpec, most: int) -> Iterator[JobSpec]:
    """What may be tried, the fastest first."""
    yield from _smaller(spec, most)
    if spec.compute.memory_fit == "autotune" and not spec.training.gradient_checkpointing:
        yield from _smaller(_with(spec, "training", gradient_checkpointing=True), most)


def _smaller(spec: JobSpec, most: int) -> Iterator[JobSpec]:
    """The spec with each micro batch that divides the share, from the largest one on."""
    share = _share(spec)
    return (_with(spec, "training", micro_batch_size=size) for size in range(most, 0, -1) if share % size == 0)


def _share(spec: JobSpec) -> int:
    return spec.training.global_batch // spec.compute.world_size


def _micro(spec: JobSpec, most: int) -> JobSpec:
    return _with(spec, "training", micro_batch_size=largest_divisor(_share(spec), most))


def _with(spec: JobSpec, block: str, **values: Any) -> JobSpec:
    return spec.model_copy(update={block: getattr(spec, block).model_copy(update=values)})


def sentence(choice: Choice) -> str:
    """Whether it fits, with the numbers; and if not, what would."""
    made, gpu = choice.estimate, choice.gpu
    if made is None:
        return "the memory is not estimated: the model's shape is not known"
    missing = f"without {' and '.join(made.missing)}, which cannot be estimated, " if made.missing else ""
    needs = f"{missing}the job needs {gib(made.peak)} GiB with {_setting(choice)}"
    if not choice.spec.compute.gpus_per_node:
        return f"{needs}, for its tensors on CPUs"
    if gpu.size is None:
        return f"{needs}; what a GPU has is not known"
    has = f"a GPU that has {gib(gpu.size)} GiB{f' ({gpu.where})' if gpu.where else ''}"
    if choice.fits is not False:
        return f"{needs}, of {has}"
    return f"{needs}, of {has}: {_help(choice)}"


def _help(choice: Choice) -> str:
    more = "GPUs with more memory"
    if choice.estimate and choice.estimate.missing:
        return f"use {more}, or a smaller model"
    found = list(remedies(choice))[:_MOST_REMEDIES]
    return "; ".join((*found, f"or use {more}")) if found else f"no setting of this job would make it fit: use {more}"


def _setting(choice: Choice) -> str:
    checkpointing = "" if choice.checkpointing else " and gradientCheckpointing: false"
    return f"microBatchSize: {choice.micro_batch}{checkpointing}"


def remedies(choice: Choice) -> Iterator[str]:
    """Changes of the manifest after which it would fit, each with what it would need then.

    Each alone where that is enough; else as many together as it takes, and shorter sequences.
    """
    changes = list(_changes(choice.spec))
    alone = ((words, _first_fitting(change(choice.spec), choice)) for words, change in changes)
    found = [(words, fitting) for words, fitting in alone if fitting]
    if not found:
        found = [*islice(_together(changes, choice), 1), *islice(_shorter(choice), 1)]
    # A change is not worth naming where the micro batch alone may stay as large without it.
    least = found[0][1].micro_batch if found and not found[0][0] else 0
    worth = (each for index, each in enumerate(found) if not index or each[1].micro_batch > least)
    return (_remedy(words, fitting, choice.micro_batch) for words, fitting in worth)


def _first_fitting(spec: JobSpec, choice: Choice) -> Choice | None:
    """With the same micro batch, or the largest smaller one that fits."""
    tried = (Choice(each, choice.shapes, choice.gpu) for each in _smaller(spec, choice.micro_batch))
    return next((each for each in tried if each.fits), None)


def _remedy(words: str, fitting: Choice, before: int) -> str:
    smaller = f"training.microBatchSize: {fitting.micro_batch}" if fitting.micro_batch < before else ""
    assert fitting.estimate is not None, "it fits"
    return f"{' with '.join(filter(None, (words, smaller)))} would need {gib(fitting.estimate.peak)} GiB"


def _changes(spec: JobSpec) -> Iterator[tuple[str, Change]]:
    """Settings that take less, those that change the least about the training first."""
    yield "", lambda spec: spec
    if not spec.training.gradient_checkpointing:
        yield "training.gradientCheckpointing: true", lambda spec: _with(spec, "training", gradient_checkpointing=True)
    if spec.training.optimizer == "adamw" and spec.adapter is None:
        yield "training.optimizer: adamw_8bit", lambda spec: _with(spec, "training", optimizer="adamw_8bit")
    if _vllm_share(spec):
        yield "rollout.mode: server, on GPUs of its own,", _apart
    if spec.adapter is None:
        yield _LORA, _adapted
        yield f"{_LORA} with {_NF4}", _quantized
    elif spec.model.quantization != "nf4":
        yield _NF4, _quantized


def _apart(spec: JobSpec) -> JobSpec:
    return resolve(spec.model_copy(update={"rollout": RolloutSpec()}))


def _adapted(spec: JobSpec) -> JobSpec:
    return resolve(spec.model_copy(update={"adapter": AdapterSpec()}))


def _quantized(spec: JobSpec) -> JobSpec:
    return _with(spec if spec.adapter else _adapted(spec), "model", quantization="nf4")


def _together(changes: list[tuple[str, Change]], choice: Choice) -> Iterator[tuple[str, Choice]]:
    """One change after the other."""
    spec, said = choice.spec, ""
    for words, change in changes:
        new = words.removeprefix(f"{_LORA} with ") if _LORA in said else words
        spec, said = change(spec), " with ".join(filter(None, (said, new)))
        if fitting := _first_fitting(spec, choice):
            yield said, fitting


def _shorter(choice: Choice) -> Iterator[tuple[str, Choice]]:
    """Half the length, half of that, and so on."""
    length = choice.spec.training.sequence_length // 2
    while length >= _SHORTEST:
        spec = _with(choice.spec, "training", sequence_length=length)
        if fitting := _first_fitting(spec, choice):
            yield f"training.sequenceLength: {length}", fitting
        length //= 2


def gib(size: int) -> str:
    """Bytes for people.

    >>> gib(80 * GIB), gib(98_900_000_000)
    ('80.0', '92.1')
    """
    return f"{size / GIB:.1f}"
