"""`anneal run` on a GPU of this machine: the micro batch that fits it, or why nothing does. The GPU is a number here."""

from pathlib import Path
from typing import Any

import pytest

from anneal_api.fit import GIB, Gpu
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError
from anneal_trainer.local_fit import asks_for_auto, fitted, gpu_here
from trainer.training import context, job

BATCH = {"globalBatchSize": 32, "gradientCheckpointing": False}


def on(
    storage: Path, gpu: Gpu | None, *, micro: int | str = 32, fit: str = "fail", processes: int = 1, **changes: Any
) -> Context:
    """The context of a job's training."""
    made = job(
        training={**BATCH, "microBatchSize": micro if micro != "auto" else 8, **changes},
        compute={"gpusPerNode": 1, "memoryFit": fit},
    )
    return fitted(context(storage, made), gpu, auto=micro == "auto", processes=processes)


def test_on_cpus_nothing_is_chosen(storage: Path) -> None:
    """Neither is anything estimated."""
    made = context(storage, job(compute={"gpusPerNode": 0}))
    assert gpu_here(made.spec, 1) is None
    assert fitted(made, None, auto=True, processes=1) is made


def test_auto_takes_the_largest_that_fits(storage: Path) -> None:
    """Of the share of each process; the training sees that and the same global batch."""
    for processes, size in ((1, 32), (2, 16), (4, 8)):
        chosen = on(storage, Gpu(80 * GIB, "a GPU"), micro="auto", processes=processes).spec.training
        assert (chosen.micro_batch, chosen.global_batch, chosen.gradient_checkpointing) == (size, 32, False)


def test_autotune_lowers_what_was_given(storage: Path) -> None:
    """Down to what the GPU has."""
    chosen = on(storage, Gpu(int(0.75 * GIB)), fit="autotune", sequenceLength=2048).spec.training
    assert chosen.micro_batch < 32


def test_what_cannot_fit_is_refused_unless_a_warning_is_enough(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the numbers of the GPU that is here."""
    with pytest.raises(ConfigError, match=r"of a GPU that has 0\.2 GiB \(a small one\): .*memoryFit: warn"):
        on(storage, Gpu(GIB // 4, "a small one"))
    assert on(storage, Gpu(GIB // 4, "a small one"), fit="warn").spec.training.micro_batch == 32
    assert "note: the job needs" in capsys.readouterr().err


def test_auto_is_asked_of_the_manifest_as_it_was_written() -> None:
    """A resolved one has a number."""
    assert asks_for_auto(job(training={"microBatchSize": "auto"}))
    assert not asks_for_auto(job(training={"microBatchSize": 4}))
