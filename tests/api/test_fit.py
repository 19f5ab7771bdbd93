"""The choice of a micro batch: what fits, what is turned on for it, and what a person is told would help."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anneal_api.fit import GIB, UNKNOWN, Asked, Choice, Gpu, Limits, choose, remedies, sentence
from anneal_api.job import JobSpec
from anneal_api.memory import estimate
from api.llama import job, shape

SHAPE = shape()
PLAIN = {"training": {"gradientCheckpointing": False, "globalBatchSize": 24, "microBatchSize": 6}}
TUNED = {**PLAIN, "compute": {"memoryFit": "autotune"}}


def peak(spec: JobSpec, micro: int, *, checkpointing: bool | None = None, nodes: int | None = None) -> int:
    """What a job needs with this micro batch."""
    on = spec.training.gradient_checkpointing if checkpointing is None else checkpointing
    training = spec.training.model_copy(update={"micro_batch_size": micro, "gradient_checkpointing": on})
    compute = spec.compute.model_copy(update={"nodes": nodes or spec.compute.nodes})
    return estimate(spec.model_copy(update={"training": training, "compute": compute}), SHAPE).peak


def chosen(spec: JobSpec, size: int | None, *, auto: bool = False, limits: Limits | None = None) -> Choice:
    """The choice on a GPU with so many bytes."""
    gpu = UNKNOWN if size is None else Gpu(size, "pool h100")
    return choose(Asked(spec, auto, (SHAPE,)), gpu, limits or Limits())


def found(choice: Choice) -> tuple[int, bool, bool | None, bool]:
    """Micro batch, checkpointing, whether it fits, and whether it was chosen here."""
    return choice.micro_batch, choice.checkpointing, choice.fits, choice.tuned


CASES: dict[str, tuple[dict[str, Any], int, bool | None, bool, tuple[int, bool, bool | None, bool]]] = {
    # changes, micro batch and checkpointing whose need the GPU has, auto, what is chosen
    "fits-as-given": (PLAIN, 6, None, False, (6, False, True, False)),
    "given-is-not-changed": (PLAIN, 3, None, False, (6, False, False, False)),
    "warn-neither": ({**PLAIN, "compute": {"memoryFit": "warn"}}, 3, None, False, (6, False, False, False)),
    "autotune-leaves-what-fits": (TUNED, 6, None, False, (6, False, True, False)),
    "autotune-lowers": (TUNED, 3, None, False, (3, False, True, True)),
    "autotune-then-checkpoints": (TUNED, 2, True, False, (2, True, True, True)),
    "auto-takes-the-largest": (PLAIN, 12, None, True, (12, False, True, True)),
    "auto-does-not-checkpoint": (PLAIN, 1, True, True, (1, False, False, True)),
    "auto-with-autotune-does": (TUNED, 2, True, True, (2, True, True, True)),
}


@pytest.mark.parametrize(("changes", "micro", "checkpointing", "auto", "expected"), CASES.values(), ids=CASES)
def test_what_is_chosen(
    changes: dict[str, Any], micro: int, *, checkpointing: bool | None, auto: bool, expected: tuple[object, ...]
) -> None:
    """On a GPU that has exactly what a micro batch needs."""
    spec = job(adapter={"r": 8}, **changes)
    assert found(chosen(spec, peak(spec, micro, checkpointing=checkpointing), auto=auto)) == expected


def test_nothing_that_may_be_tuned_is_enough() -> None:
    """What needs the least is reported: the smallest micro batch, with checkpointing."""
    assert found(chosen(job(**TUNED), GIB // 4)) == (1, True, False, True)


@pytest.mark.parametrize(
    "auto", [pytest.param(True, id="auto"), pytest.param(False, id="given")]
)  # fmt: skip
def test_without_a_known_memory_it_is_the_default(*, auto: bool) -> None:
    """Also where the model's layers are of an unknown kind, or nothing is known of the model."""
    spec = job(**TUNED)
    unknown = replace(SHAPE, decoder=None)
    for choice in (
        chosen(spec, None, auto=auto),
        choose(Asked(spec, auto, (unknown,)), Gpu(80 * GIB)),
        choose(Asked(spec, auto, ()), Gpu(80 * GIB)),
    ):
        assert found(choice) == (6, False, None, False)


def test_what_is_known_of_a_model_may_be_too_much_already() -> None:
    """The rest of it needs no less than nothing."""
    choice = choose(Asked(job(), False, (replace(SHAPE, decoder=None),)), Gpu(GIB // 4))
    assert choice.fits is False
    assert "without activations, which cannot be estimated, the job needs" in sentence(choice)


@pytest.mark.parametrize(
    ("limits", "auto", "expected"),
    [
        pytest.param(Limits(most=3), False, (3, False), id="halved"),
        pytest.param(Limits(most=5), False, (4, False), id="divides-the-share"),
        pytest.param(Limits(most=4), True, (4, False), id="auto"),
        pytest.param(Limits(nodes=3, most=64), False, (4, False), id="nodes"),
        pytest.param(Limits(most=1, checkpointing=True), False, (1, True), id="checkpointing"),
    ],
)
def test_an_attempt_keeps_to_what_was_learnt(limits: Limits, *, auto: bool, expected: tuple[int, bool]) -> None:
    """Though more would fit by the estimate."""
    choice = chosen(job(**PLAIN), 1000 * GIB, auto=auto, limits=limits)
    assert (choice.micro_batch, choice.checkpointing) == expected


jobs = st.builds(
    lambda batch, nodes, gpus, checkpointing, adapter, fit, micro: job(
        adapter=adapter,
        training={
            "globalBatchSize": batch * nodes * gpus,
            "microBatchSize": next(n for n in range(micro, 0, -1) if batch % n == 0),
            "gradientCheckpointing": checkpointing,
        },
        compute={"nodes": nodes, "gpusPerNode": gpus, "memoryFit": fit},
    ),
    st.integers(1, 200),
    st.integers(1, 4),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([None, {"r": 8}]),
    st.sampled_from(["fail", "warn", "autotune"]),
    st.integers(1, 64),
)  # fmt: skip


memories = st.integers(GIB // 2, 6 * GIB)


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(spec=jobs, auto=st.booleans(), sizes=st.tuples(memories, memories))
def test_more_memory_never_gives_less(spec: JobSpec, *, auto: bool, sizes: tuple[int, int]) -> None:
    """No smaller micro batch, and no checkpointing that less memory did without; the global batch stays."""
    less, more = (chosen(spec, size, auto=auto) for size in sorted(sizes))
    for choice in (less, more):
        assert choice.spec.training.global_batch == spec.training.global_batch
        assert (spec.training.global_batch // spec.compute.world_size) % choice.micro_batch == 0
        assert choice.micro_batch <= (64 if auto else spec.training.micro_batch)
        assert choice.checkpointing >= spec.training.gradient_checkpointing
        assert choice.estimate == estimate(choice.spec, SHAPE)
    assert (not less.checkpointing, less.micro_batch) <= (not more.checkpointing, more.micro_batch)
    assert not less.fits or more.fits


REMEDIES: dict[str, tuple[dict[str, Any], float, list[str]]] = {
    "smaller": ({**PLAIN, "adapter": {}}, 1.35, ["training.microBatchSize: 4", "training.gradientCheckpointing: true"]),
    "one-and-smaller": (
        {"adapter": {}, "training": {**PLAIN["training"], "globalBatchSize": 96, "microBatchSize": 96}},
        1.8,
        ["training.microBatchSize: 8", "training.gradientCheckpointing: true with training.microBatchSize: 32"],
    ),
    "full": (
        {"training": {"microBatchSize": 1}},
        1.1,
        ["a LoRA adapter (adapter: {type: lora}) would", "a LoRA adapter (adapter: {type: lora}) with model.quanti"],
    ),
    "full-8bit": ({"training": {"microBatchSize": 2}}, 1.3, ["training.optimizer: adamw_8bit"]),
    "together": (
        {"training": {"microBatchSize": 1, "gradientCheckpointing": False, "sequenceLength": 8192}},
        1.75,
        ["training.gradientCheckpointing: true with training.optimizer: adamw_8bit would"],
    ),
    "shorter": (
        {"adapter": {}, "training": {"sequenceLength": 131072, "microBatchSize": 1}, "model": {"quantization": "nf4"}},
        1.5,
        ["training.sequenceLength: "],
    ),
    "none": ({"adapter": {}, "model": {"quantization": "nf4"}}, 0.2, []),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "size", "expected"), REMEDIES.values(), ids=REMEDIES)
def test_only_what_would_help_is_proposed(changes: dict[str, Any], size: float, expected: list[str]) -> None:
    """Each with a need that the GPU has."""
    choice = chosen(job(**changes), int(size * GIB))
    assert choice.fits is False
    said = list(remedies(choice))
    for words in expected:
        assert any(each.startswith(words) for each in said), said
    assert bool(said) == bool(expected)
    needs = [float(number) for each in said for number in re.findall(r"would need ([0-9.]+) GiB", each)]
    assert len(needs) == len(said)
    assert all(need <= size + 0.05 for need in needs)


def test_the_sentence_has_the_numbers_and_the_place() -> None:
    """What is needed, with what, of which GPU; and what would fit."""
    choice = chosen(job(adapter={}, **PLAIN), int(1.35 * GIB))
    assert choice.estimate is not None
    assert re.match(
        r"the job needs \d\.\d GiB with microBatchSize: 6 and gradientCheckpointing: false, of a GPU that has 1\.[34] GiB "
        r"\(pool h100\): training\.microBatchSize: 4 would need 1\.\d GiB; ",
        sentence(choice),
    ), sentence(choice)
    assert sentence(choice).endswith("; or use GPUs with more memory")


def test_what_fits_and_what_is_not_known_is_said_too() -> None:
    """A status shows it before the job runs."""
    spec = job(adapter={})
    assert sentence(chosen(spec, 80 * GIB)).endswith("with microBatchSize: 2, of a GPU that has 80.0 GiB (pool h100)")
    assert sentence(chosen(spec, None)).endswith("; what a GPU has is not known")
    assert "the model's shape is not known" in sentence(choose(Asked(spec, False, ())))
