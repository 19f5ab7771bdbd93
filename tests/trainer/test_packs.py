"""Packs: they hold every row once, train as the rows alone would, and are refused where rows would mix."""

import json
import time
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anneal_trainer import apart
from anneal_trainer.data import store
from anneal_trainer.data.packing import pack
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.errors import ConfigError
from anneal_trainer.methods.packs import PackCollator, positions
from trainer.test_prepare import over, prepared, refused
from trainer.training import alpaca_rows, job, losses, trained

PACKED = {"packing": True, "sequenceLength": 256}


@pytest.fixture
def model(tiny_model: Path) -> Iterator[Any]:
    """The tiny model in double precision, so that what is equal is equal to many digits; without dropout."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa", dtype=torch.float64).eval()


@given(st.lists(st.integers(1, 64), max_size=300), st.integers(64, 200))
@settings(deadline=None, max_examples=100)
def test_packing_is_a_permutation_that_fits(lengths: list[int], capacity: int) -> None:
    """Every row is in exactly one pack, no pack is too full, and no two neighbours would have fitted into one."""
    order, starts = pack(lengths, capacity)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    sizes = [sum(lengths[row] for row in order[a:b]) for a, b in pairwise(starts)]
    assert all(0 < size <= capacity for size in sizes)
    assert sum(size <= capacity / 2 for size in sizes) <= 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_packs_are_those_of_best_fit_decreasing(lengths: list[int]) -> None:
    """Placing whole groups gives as many packs as placing the longest first, each into the fullest that has room."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, left in enumerate(room) if left >= length]
        if fitting:
            room[min(fitting, key=lambda i: room[i])] -= length
        else:
            room.append(40 - length)
    assert len(pack(lengths, 40)[1]) - 1 == len(room)


@pytest.mark.parametrize("lengths", [[0, 3], [9]], ids=["empty row", "too long"])
def test_rows_that_fit_no_pack_are_an_error(lengths: list[int]) -> None:
    """They are cut or dropped before."""
    with pytest.raises(ValueError, match="rows must have 1 to 8 tokens"):
        pack(lengths, 8)


def test_a_million_rows_are_packed_quickly_and_tightly() -> None:
    """Heavy-tailed lengths at 4,096: within 0.5% of what is possible."""
    import numpy as np

    lengths = np.clip(np.exp(np.random.RandomState(0).normal(5.5, 1.2, 1_000_000)).astype(int), 1, 4096)
    begun = time.process_time()
    _, starts = pack(lengths, 4096)
    assert time.process_time() - begun < 3
    assert len(starts) - 1 <= 1.005 * -(-lengths.sum() // 4096)


def test_packs_hold_the_rows_that_were_prepared(storage: Path) -> None:
    """Cut at seq_lengths, packs are the unpacked rows, but that no label follows the end of another row."""
    plain = prepared(storage, job("plain", training={"sequenceLength": 256}))
    packed = prepared(storage, job("packed", training=PACKED))
    rows = {tuple(row["input_ids"]): row["labels"] for row in plain.prepared.dataset(store.TRAIN)}
    found = [part for row in packed.prepared.dataset(store.TRAIN) for part in parts(row)]
    assert len(found) == 48
    assert {ids: [IGNORED, *rows[ids][1:]] for ids in rows} == dict(found)
    report = packed.report
    assert (report.packed, report.used, plain.report.packed) == (True, 48, False)
    assert report.sequences == len(packed.prepared.dataset(store.TRAIN)) < 24
    assert report.tokens == plain.report.tokens
    assert report.packing_efficiency == pytest.approx(report.tokens / (report.sequences * 256), abs=1e-3)


def parts(row: dict[str, list[int]]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """The rows of a pack: ids and labels."""
    start = 0
    for length in row["seq_lengths"]:
        yield tuple(row["input_ids"][start : start + length]), row["labels"][start : start + length]
        start += length


def gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """The summed loss over trained tokens, and its gradients."""
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        scores = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits
        total = total + torch.nn.functional.cross_entropy(
            scores[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
    total.backward()  # type: ignore[no-untyped-call]
    return total.item(), {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("flat", [False, True], ids=["padded", "flat"])
def test_packed_and_unpacked_give_the_same_loss_and_gradients(
    storage: Path, model: Any, attention: str, *, flat: bool
) -> None:
    """Row by row, in packs, in a batch of packs or in one flat sequence: the same, in either attention."""
    model.set_attn_implementation(attention)
    plain = prepared(storage, job("plain", training={"sequenceLength": 256}))
    packed = prepared(storage, job("packed", training=PACKED))
    alone = [
        {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
        for row in plain.prepared.dataset(store.TRAIN)
    ]
    packs = list(packed.prepared.dataset(store.TRAIN))
    collate = PackCollator(flat=flat, padding=0)
    together = [collate(packs[start : start + 3]) for start in range(0, len(packs), 3)]
    # Eager attention computes its softmax in single precision, whatever the model's.
    exact = {"sdpa": 1e-9, "eager": 1e-4}[attention]
    (loss, expected), (packed_loss, found) = gradients(model, alone), gradients(model, together)
    assert packed_loss == pytest.approx(loss, rel=exact)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[name], found[name], atol=exact, rtol=exact) for name in expected)


SEQUENCES = st.lists(st.lists(st.integers(5, 250), min_size=1, max_size=12), min_size=2, max_size=6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=SEQUENCES, flat=st.booleans())
def test_no_row_sees_another(model: Any, rows: list[list[int]], *, flat: bool) -> None:
    """Whatever shares a pack or a batch, each row's predictions are those it gets alone."""
    order, starts = pack([len(row) for row in rows], 24)
    packs = [[rows[number] for number in order[first:last]] for first, last in pairwise(starts)]
    joined = [[*chain.from_iterable(held)] for held in packs]
    made = [
        {"input_ids": ids, "labels": ids, "seq_lengths": [*map(len, held)]}
        for ids, held in zip(joined, packs, strict=True)
    ]
    batch = PackCollator(flat=flat, padding=0)(made)
    with torch.no_grad():
        scores = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        found = scores.flatten(0, 1)
        place = 0
        for number, held in enumerate(packs):
            place = place if flat else number * batch["input_ids"].shape[1]
            for row in held:
                alone = model(input_ids=torch.tensor([row]), use_cache=False).logits[0]
                assert torch.allclose(found[place : place + len(row)], alone, atol=1e-9)
                place += len(row)


WORDY = st.tuples(st.integers(0, 3), st.integers(0, 40)).map(
    lambda sizes: {"instruction": "red " * sizes[0], "output": "green blue " * sizes[1]}
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(WORDY, min_size=4, max_size=12),
    long_rows=st.sampled_from(["truncate", "drop"]),
    repeats=st.sampled_from(["keep", "dropExact"]),
    packing=st.booleans(),
)
def test_every_row_is_accounted_for(
    storage: Path, rows: list[Any], long_rows: str, repeats: str, *, packing: bool
) -> None:
    """Rows read are rows used, measured and dropped; tokens told are tokens written, packed or not."""
    rows = [*rows, {"instruction": "one", "output": "two"}, {"instruction": "sun", "output": "moon"}]
    made = over(
        storage,
        rows,
        preparation={"longRows": long_rows, "duplicates": repeats},
        training={"sequenceLength": 128, "packing": packing},
        evaluation={"holdout": {"count": 1}},
    )
    ready = prepared(storage, made)
    report, data = ready.report, ready.prepared.dataset(store.TRAIN)
    assert report.rows == len(rows) == report.used + report.eval_rows + sum(entry.rows for entry in report.dropped)
    assert report.tokens == sum(len(row["input_ids"]) for row in data)
    assert report.trained_tokens == sum(label != IGNORED for row in data for label in row["labels"])
    assert sum(len(row["seq_lengths"]) for row in data) == report.used if packing else len(data) == report.used
    assert all(len(row["input_ids"]) <= 128 for row in data)


def test_positions_begin_again_with_each_row() -> None:
    """Which is all that keeps rows apart."""
    assert positions([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]


def test_training_on_packs_gives_the_loss_of_their_rows(storage: Path) -> None:
    """All rows in one step, packed or not: the same first loss, and it falls."""
    rows = alpaca_rows(16)
    over(storage, rows)
    steps = {"maxSteps": 3, "sequenceLength": 512}
    trained(storage, job("plain", training={**steps, "globalBatchSize": 16}))
    count = prepared(storage, job("packed", training={**steps, "packing": True})).report.sequences
    trained(storage, job("packed", training={**steps, "packing": True, "globalBatchSize": count}))
    assert losses(storage, "packed") == pytest.approx(losses(storage, "plain"), abs=2e-5)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_of_packs_do_not_change_the_loss(storage: Path, micro: int) -> None:
    """One pack a pass or several: the same losses, on training and evaluation rows."""
    for name, size in (("whole", 4), ("parts", micro)):
        made = job(
            name, training={**PACKED, "microBatchSize": size, "maxSteps": 3}, evaluation={"holdout": {"count": 12}}
        )
        result = trained(storage, made)
        if name == "whole":
            expected = result.eval_loss
    assert losses(storage, "parts") == pytest.approx(losses(storage, "whole"), abs=1e-5)
    assert result.eval_loss == pytest.approx(expected, abs=1e-5)


def test_the_evaluation_loss_does_not_depend_on_packing(storage: Path) -> None:
    """The same holdout, packed or not, before training."""
    found = []
    for name, packing in (("plain", False), ("packed", True)):
        changes: dict[str, Any] = {"packing": packing, "sequenceLength": 256, "maxSteps": 1, "learningRate": 1e-9}
        found.append(trained(storage, job(name, training=changes, evaluation={"holdout": {"count": 12}})).eval_loss)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def config_with(storage: Path, **changes: Any) -> None:
    """Change the model's config file."""
    path = storage / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_that_carry_a_state_are_not_packed(storage: Path) -> None:
    """By default packing is off, and the report says why; asked for, it is refused."""
    config_with(storage, layer_types=["linear_attention", "full_attention"])
    report = prepared(storage, job(training={"packing": None, "sequenceLength": 256})).report
    assert not report.packed
    assert "training.packing is off: its layers of type linear_attention carry a state" in report.warnings[-1].message
    error = refused_again(storage, job("asked", training=PACKED))
    assert "training.packing is true, but this model cannot: its layers of type linear_attention" in str(error)


def refused_again(storage: Path, made: Any) -> Any:
    """The refusal of a job beside one that was prepared."""
    import shutil

    shutil.rmtree(storage / "prepared")
    return refused(storage, made)


def test_packing_is_on_by_default(storage: Path) -> None:
    """Where nothing speaks against it."""
    assert prepared(storage, job(training={"packing": None, "sequenceLength": 256})).report.packed


def test_a_model_that_mixes_rows_is_found_by_trying(model: Any) -> None:
    """Whatever its config says: a model that ignores positions is refused before it is trained."""
    apart.check(model)
    forward = model.forward
    model.forward = lambda position_ids=None, **options: forward(**options)  # noqa: ARG005 - ignoring them is the point
    with pytest.raises(ConfigError, match=r"training\.packing: this model .* mixes the rows of a pack"):
        apart.check(model)
