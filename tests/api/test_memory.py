"""The estimate of memory as a pure function: what a field of the spec changes, and what it does not."""

from typing import Any

import pytest

from anneal_api.activations import Head, Pass
from anneal_api.memory import CUDA_CONTEXT, Estimate, estimate
from api.llama import HIDDEN, INNER, LAYERS, VOCABULARY, job, shape


def of(method: str = "sft", **changes: Any) -> Estimate:
    """The estimate of a job with changes; `training` and `model` are merged."""
    return estimate(job(method, **changes), shape())


def sizes(made: Estimate) -> dict[str, int]:
    """The parts by name."""
    return {part.name: part.size for part in made.parts}


def test_full_fine_tuning_holds_sixteen_bytes_a_weight() -> None:
    """Weights, gradients and two moments in fp32, as arXiv 1910.02054 counts them, less its fp16 copies."""
    made = of()
    found = sizes(made)
    assert found["weights"] == found["gradients"] == 4 * made.parameters
    assert found["optimizer"] == 8 * made.parameters + 4 * len(shape().weights)


def test_an_adapter_is_all_that_is_trained() -> None:
    """Base weights are bf16 on a GPU; gradients and optimizer are the adapter's."""
    made = of(adapter={"r": 8})
    found = sizes(made)
    assert found["weights"] == 2 * made.parameters
    assert found["adapter"] == found["gradients"] == 4 * made.trained
    assert made.trained == LAYERS * 8 * (4 * 2 * HIDDEN + 3 * (HIDDEN + INNER))


@pytest.mark.parametrize(("form", "most"), [("nf4", 0.53), ("int8", 1.01)])
def test_quantized_layers_are_as_small_as_their_form(form: str, most: float) -> None:
    """Bytes a number with its constants; embeddings and head stay bf16."""
    found = sizes(of(adapter={}, model={"quantization": form}))
    outside = 2 * 2 * VOCABULARY * HIDDEN
    inside = sum(weight.size for weight in shape().weights if weight.quantizable)
    assert most - 0.03 < (found["weights"] - outside) / inside < most


@pytest.mark.parametrize(
    ("less", "more"),
    [
        pytest.param({}, {"training": {"gradientCheckpointing": False}}, id="checkpointing"),
        pytest.param({}, {"training": {"sequenceLength": 2048}}, id="length"),
        pytest.param({}, {"training": {"microBatchSize": 4}}, id="micro-batch"),
        pytest.param({}, {"model": {"attention": "eager"}}, id="eager"),
        pytest.param({"model": {"attention": "flash_attention_2"}}, {}, id="mask"),
        pytest.param({"training": {"optimizer": "adamw_8bit"}}, {}, id="8-bit"),
        pytest.param(
            {"training": {"optimizer": "paged_adamw_8bit"}}, {"training": {"optimizer": "adamw_8bit"}}, id="paged"
        ),
        pytest.param({"training": {"optimizer": "adafactor"}}, {}, id="adafactor"),
        pytest.param({"training": {"globalBatchSize": 2}}, {}, id="accumulation"),
        pytest.param({}, {"compute": {"gpusPerNode": 2}}, id="gpus"),
        pytest.param({"adapter": {"r": 8}}, {"adapter": {"r": 64}}, id="rank"),
        pytest.param(
            {"adapter": {"r": 8}, "training": {"gradientCheckpointing": False}},
            {"adapter": {"r": 8, "dropout": 0.1}, "training": {"gradientCheckpointing": False}},
            id="dropout",
        ),
    ],
)
def test_the_peak_follows_what_the_manifest_says(less: dict[str, Any], more: dict[str, Any]) -> None:
    """Each of them costs memory."""
    assert of(**less).peak < of(**more).peak


def test_the_global_batch_alone_costs_nothing() -> None:
    """More accumulated passes hold no more than two of them."""
    assert of().peak == of(training={"globalBatchSize": 64}).peak


def test_logits_are_never_whole() -> None:
    """Beyond a tile they grow with the hidden size, whatever the vocabulary."""
    head = Head(VOCABULARY, HIDDEN, trained=False, width=2)
    one, two = (
        head.backward(Pass(1, n, 2, frozen=True, casts=True, inputs=False, eager=False, masked=False, dropout=False))
        for n in (4096, 8192)
    )
    assert two - one == 4096 * HIDDEN * (4 + 2)


@pytest.mark.parametrize(
    ("method", "changes", "copies"),
    [
        ("dpo", {}, 1),
        ("dpo", {"adapter": {}}, 0),
        ("dpo", {"reference": {"precompute": True}}, 0),
        ("dpo", {"adapter": {}, "reference": {"source": "hf://org/other"}}, 1),
        ("orpo", {}, 0),
    ],
)
def test_the_reference_is_a_second_model_where_there_is_one(method: str, changes: dict[str, Any], copies: int) -> None:
    """As docs/alignment.md says, in the form in which the trained one is held."""
    found = sizes(of(method, **changes))
    assert found.get("reference model", 0) == copies * found["weights"]


def test_a_pair_is_two_sequences() -> None:
    """Chosen and rejected answers are in one pass; judged answers are one each."""
    pair, single = (sizes(of(method, adapter={}))["activations"] for method in ("dpo", "kto"))
    assert pair == 2 * single


def test_on_cpus_there_is_no_context() -> None:
    """Nor an allowance for an allocator that is not there; everything is fp32."""
    made = of(adapter={}, compute={"gpusPerNode": 0})
    assert made.peak == made.allocated
    assert sizes(made)["weights"] == 4 * made.parameters


def test_what_is_not_torchs_is_told_apart() -> None:
    """`allocated` is what torch's own counter would say."""
    made = of()
    assert made.peak - made.allocated == CUDA_CONTEXT + sizes(made)["fragmentation"]
