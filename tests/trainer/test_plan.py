"""The order of the rows and the numbers of a run: pure, so tested by reading."""

from collections import Counter
from typing import Any

import pytest

from anneal_api import resolve
from anneal_api.jobfile import JobFile
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError
from anneal_trainer.order import RunOrder, total_steps
from anneal_trainer.plan import Plan, make_plan
from trainer.training import job


def plan(*, sequences: int = 100, world: int = 1, micro_batch: int | None = None, **changes: Any) -> Plan:
    """The plan of a job with these changes."""
    made = job(**changes)
    resolved = made.model_copy(update={"spec": resolve(made.spec)})
    context = Context(JobFile(job=resolved, storage_claim="runs"), {}, micro_batch_size=micro_batch)
    return make_plan(context.spec, sequences=sequences, world=world)


def test_an_epoch_holds_every_row_once() -> None:
    """Within an epoch nothing repeats, and the next one has another order."""
    order = list(RunOrder(sequences=10, steps=5, batch=4, seed=1))
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_the_last_step_is_full() -> None:
    """Rows that do not fill a batch are completed from the next epoch."""
    order = list(RunOrder(sequences=10, steps=3, batch=4, seed=1))
    assert len(order) == len(RunOrder(sequences=10, steps=3, batch=4, seed=1)) == 12
    assert Counter(Counter(order).values()) == {1: 8, 2: 2}


def test_the_order_depends_on_the_seed_alone() -> None:
    """Neither steps nor batch size change which row is the n-th."""
    few, many = (list(RunOrder(sequences=50, steps=steps, batch=batch, seed=3)) for steps, batch in ((5, 4), (40, 6)))
    assert many[:20] == few
    assert list(RunOrder(sequences=50, steps=5, batch=4, seed=4)) != few


def test_the_order_is_this_one() -> None:
    """A resume under another version of numpy must find the same order."""
    assert list(RunOrder(sequences=8, steps=2, batch=4, seed=42)) == [4, 3, 7, 6, 0, 1, 5, 2]


@pytest.mark.parametrize(
    ("training", "sequences", "steps"),
    [
        ({"epochs": 1.0, "maxSteps": None}, 100, 25),
        ({"epochs": 2.0, "maxSteps": None}, 101, 51),
        ({"epochs": 0.1, "maxSteps": None}, 30, 1),
        ({"epochs": 0.01, "maxSteps": None}, 30, 1),
        ({"maxSteps": 7}, 3, 7),
    ],
)
def test_steps_cover_the_epochs(training: dict[str, Any], sequences: int, steps: int) -> None:
    """ceil(epochs x rows / globalBatchSize), or maxSteps as it is."""
    training = {"globalBatchSize": 4, **{key: value for key, value in training.items() if value is not None}}
    spec = job(training=None).spec
    made = spec.model_copy(update={"training": type(spec.training).model_validate(training)})
    assert total_steps(resolve(made).training, sequences) == steps


@pytest.mark.parametrize(
    ("world", "given", "lowered", "micro", "accumulation"),
    [
        (1, None, None, 8, 2),
        (1, 4, None, 4, 4),
        (2, 8, None, 8, 1),
        (4, 8, None, 4, 1),
        (1, 8, 4, 4, 4),
        (1, 8, 3, 2, 8),
        (1, 2, 8, 8, 2),
    ],
    ids=[
        "default",
        "given",
        "two processes",
        "share bounds it",
        "lowered",
        "lowered to a divisor",
        "raised to fit the memory",
    ],
)
def test_the_global_batch_is_kept(
    world: int, given: int | None, lowered: int | None, micro: int, accumulation: int
) -> None:
    """Processes x micro batch x accumulation is globalBatchSize, whatever the machine or a shortage of memory."""
    training = {"globalBatchSize": 16, **({"microBatchSize": given} if given else {})}
    made = plan(world=world, micro_batch=lowered, training=training)
    assert (made.micro_batch, made.accumulation) == (micro, accumulation)
    assert world * micro * accumulation == 16


def test_a_world_that_does_not_divide_the_batch_is_refused() -> None:
    """Each process must have the same share."""
    with pytest.raises(ConfigError, match="globalBatchSize 4 is not a multiple of the 3 processes"):
        plan(world=3)


@pytest.mark.parametrize(("steps", "every"), [(6, 1), (100, 10), (4999, 499), (50_000, 500)])
def test_a_run_has_ten_checkpoints_or_one_every_500_steps(steps: int, every: int) -> None:
    """The default of checkpoint.everySteps."""
    assert plan(training={"maxSteps": steps}).save_every == every


def test_warmup_is_a_share_or_a_number_of_steps() -> None:
    """WarmupRatio counts up to a whole step; warmupSteps is taken as it is."""
    assert plan(training={"maxSteps": 100, "warmupSteps": 7}).warmup_steps == 7
    without = {key: value for key, value in job().spec.training.dump().items() if key != "warmupSteps"}
    spec = job().spec
    training = type(spec.training).model_validate({**without, "maxSteps": 110, "warmupRatio": 0.05})
    made = make_plan(resolve(spec.model_copy(update={"training": training})), sequences=10, world=1)
    assert made.warmup_steps == 6
