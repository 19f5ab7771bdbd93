"""Whether vLLM can serve a model as a job asks for it: what divides, what fits a GPU, and what would help."""

from dataclasses import replace
from typing import Any

import pytest

from anneal_api.fit import GIB, Asked, Gpu, choose
from anneal_api.job import JobSpec
from anneal_api.memory import estimate
from anneal_api.modelshape import Decoder, ModelShape
from anneal_api.serving import Serving, parallel_problem, remedies, sentence, serving
from api import llama

REWARD = {"name": "exact", "match": {}}


def online(method: str = "grpo", **changes: Any) -> JobSpec:
    """A resolved job over an adapter that draws answers."""
    return llama.job(method, **{"rewards": [REWARD], "adapter": {"r": 8}, **changes})


def wide(**decoder: Any) -> ModelShape:
    """A model of 8 billion parameters in the numbers that serving reads: as Qwen3-8B."""
    layers = Decoder(36, 4096, heads=32, query=4096, key=1024, inner=12288, norms=8448)
    weight = llama.Weight("all", (8_190_735_360,))
    small = llama.shape()
    return replace(
        small, weights=(weight,), linears=(), vocabulary=151_936, hidden=4096, decoder=replace(layers, **decoder)
    )


def server(gib: float, shape: ModelShape | None = None, **changes: Any) -> Serving:
    """A server on GPUs of so much memory."""
    found = serving(online(**changes), shape or wide(), int(gib * GIB), "pool h100")
    assert found is not None
    return found


PARALLEL = [
    ({}, 1, None),
    ({}, 8, None),
    ({}, 16, None),
    ({}, 3, "3 does not divide the model's 32 attention heads; this model can be shared by 1, 2, 4, 8, 16, 32"),
    ({"heads": 28, "query": 3584, "key": 512, "inner": 18944}, 7, "7 and the model's 4 key-value heads do not divide"),
    ({"heads": 24, "query": 3072, "key": 3072, "inner": 8192}, 6, "6 does not divide the width inside the model's MLPs, 8192"),
    ({"heads": 24, "query": 3072, "key": 3072, "inner": 9216}, 3, "3 does not divide the model's vocabulary of 151936 rows"),
    ({"heads": 24, "query": 3072, "key": 3072, "inner": 100, "experts_per_token": 2}, 8, None),
]  # fmt: skip


@pytest.mark.parametrize(("decoder", "size", "expected"), PARALLEL)
def test_tensor_parallel_divides_the_model_or_is_refused(
    decoder: dict[str, int], size: int, expected: str | None
) -> None:
    """Heads, key-value heads (a few may be copied), MLPs and rows of the vocabulary, as vLLM divides them."""
    problem = parallel_problem(online(rollout={"tensorParallel": size}), wide(**decoder))
    if expected is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(f"spec.rollout.tensorParallel: {expected}")


def test_what_a_server_needs_is_weights_one_sequence_and_its_own_work() -> None:
    """Of Qwen3-8B: 15.3 GiB of weights in bf16, and 144 KiB of keys and values a token."""
    parts = {part.name: part.size for part in server(80).parts}
    assert parts["weights"] == 2 * 8_190_735_360
    assert parts["cache"] == 1024 * 36 * 2 * 1024 * 2
    halves = {part.name: part.size for part in server(80, rollout={"tensorParallel": 2}).parts}
    assert halves["weights"] == parts["weights"] // 2
    assert halves["cache"] == parts["cache"] // 2
    # Of eight key-value heads each of sixteen GPUs has one.
    assert server(80, rollout={"tensorParallel": 16}).cache == parts["cache"] // 8


def test_layers_that_see_a_window_keep_no_more_than_that() -> None:
    """Of Gemma 3 five layers of six: counting them whole would refuse what starts."""
    whole = server(80, training={"sequenceLength": 8192}).cache
    assert (
        server(80, wide(windowed=30, window=1024), training={"sequenceLength": 8192}).cache == whole * (6 + 30 / 8) / 36
    )


def test_an_adapter_has_its_place_as_large_as_the_server_makes_it() -> None:
    """Of rank 8, 9 needs 16; weights that travel whole need none."""
    shape = llama.shape()
    adapter = {
        rank: next(part.size for part in server(8, shape, adapter={"r": rank}).parts if part.name == "adapter")
        for rank in (8, 9, 16)
    }
    assert adapter[9] == adapter[16] == 2 * adapter[8]
    by_nccl = server(8, shape, rollout={"weightSync": "nccl"})
    assert "adapter" not in [part.name for part in by_nccl.parts]


def test_what_does_not_fit_says_what_would() -> None:
    """Each remedy is true: with it the server fits."""
    tight = server(16)
    assert tight.fits is False
    words = sentence(tight)
    assert words.startswith("a vLLM server needs 16.")
    assert "weights 15.3" in words
    assert "of the 14.4 GiB that rollout.memoryUtilization 0.9 gives it (pool h100)" in words
    assert "rollout.tensorParallel: 2 would need 8." in words
    assert words.endswith("or name GPUs with more memory in rollout.pool or gpuType")
    assert server(16, rollout={"tensorParallel": 2}).fits is True


def test_longer_sequences_than_there_is_room_for_are_shortened() -> None:
    """To the longest that fits, as maxModelLen where that was asked for, else with training.sequenceLength."""
    long = server(24, training={"sequenceLength": 65536})
    (words,) = [each for each in remedies(long) if "sequenceLength" in each]
    length = int(words.split()[1])
    assert server(24, training={"sequenceLength": length}).fits is True
    assert server(24, training={"sequenceLength": length + 64}).fits is False
    asked = server(24, rollout={"maxModelLen": 65536})
    assert f"rollout.maxModelLen: {length} is the most" in list(remedies(asked))


def test_no_remedy_is_promised_where_the_weights_alone_are_too_much() -> None:
    """Sequences of any length are too long then, and more memory of the same GPU too little."""
    assert [each.split(":")[0] for each in remedies(server(8))] == ["rollout.tensorParallel"]


def test_what_is_held_in_another_way_is_not_refused() -> None:
    """It may quantize: the numbers are told, and nothing follows from them."""
    assert server(8, rollout={"extraArgs": ["--quantization=fp8"]}).fits is None
    assert server(8, rollout={"extraArgs": ["--enforce-eager"]}).fits is False


def test_room_is_told_where_it_fits() -> None:
    """Sequences of full length at once, at most."""
    found = server(80)
    assert found.needs + (found.room - 1) * found.cache <= found.budget < found.needs + found.room * found.cache
    assert sentence(found).startswith(f"a vLLM server has room for {found.room} sequences of 1024 tokens at most")


@pytest.mark.parametrize(
    "changes",
    [{"rollout": {"mode": "generate"}}, {"compute": {"gpusPerNode": 0}}, {"method": "dpo", "rewards": []}],
    ids=["generate", "cpu", "dpo"],
)
def test_without_a_server_on_gpus_there_is_nothing_to_judge(changes: dict[str, Any]) -> None:
    """The trainer draws itself, a server has the memory of its node, or nothing is drawn."""
    assert serving(online(**changes), wide(), 80 * GIB) is None


def test_the_trainer_holds_a_cache_only_where_it_draws_itself() -> None:
    """With vLLM the peak is that of training."""
    generate = online(rollout={"mode": "generate"}, sampling={"maxTokens": 900}, training={"globalBatchSize": 512})
    served = online(sampling={"maxTokens": 900}, training={"globalBatchSize": 512})
    assert estimate(generate, llama.shape()).moment == "the drawing of answers"
    assert estimate(served, llama.shape()).moment != "the drawing of answers"
    assert estimate(served, llama.shape()).peak < estimate(generate, llama.shape()).peak


def test_with_colocate_a_part_of_the_gpu_is_vllms() -> None:
    """What is left must do for training; servers on GPUs of their own are among the remedies."""
    spec, gpu = online(rollout={"mode": "colocate", "memoryUtilization": 0.5}), Gpu(int(1.5 * GIB), "pool h100")
    choice = choose(Asked(spec, auto=False, shapes=(llama.shape(),)), gpu)
    assert choice.estimate is not None
    assert [(part.name, part.size) for part in choice.estimate.parts][-1] == ("vLLM", gpu.size // 2)  # type: ignore[operator]
    assert choice.fits is False
    alone = choose(Asked(online(), auto=False, shapes=(llama.shape(),)), gpu)
    assert alone.estimate is not None
    assert alone.fits is True
    assert choice.estimate.peak - alone.estimate.peak == 3 * GIB // 4
