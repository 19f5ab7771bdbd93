"""Memory before the queue, on a simulated cluster: what is refused, what is warned of, and what an attempt takes."""

from typing import Any

import pytest

from anneal_api import Outcome
from anneal_api.conditions import ConditionType
from anneal_api.meta import ENV_GRADIENT_CHECKPOINTING, ENV_MICRO_BATCH_SIZE
from anneal_api.modelrecord import ModelRecord, record_of
from anneal_api.progress import ProgressReport, TerminationMessage
from anneal_api.status import Attempt, MemoryPart, MemoryReport
from anneal_operator import draft as drafts
from anneal_operator.kinds import JOB, LOCAL_QUEUE, PYTORCH_JOB, Obj
from anneal_operator.placement import Placement
from anneal_operator.plan import plan_of
from anneal_operator.pools import NodeGroup
from anneal_operator.progress import memory
from anneal_operator.settings import Pool
from anneal_operator.steps.fit import _judged, fit, fitted
from anneal_operator.world import World
from api.llama import shape
from simulated.builders import START, make_job, make_settings
from simulated.machinery import DATASET, TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.stories import OUT_OF_MEMORY

# On one GPU a micro batch of 6 needs 1.5 GiB, of 2 1.0, of 1 0.8; with checkpointing 0.95, 0.8 and 0.7.
TRAINING = {"globalBatchSize": 24, "microBatchSize": 6, "sequenceLength": 1024, "gradientCheckpointing": False}


def told(**changes: Any) -> Run:
    """A preparation that tells the shape of the model, of another kind with `changes`."""
    record = record_of(shape())
    assert record is not None
    models = [record.model_copy(update=changes)]
    return Run(5, 0, TerminationMessage(outcome=Outcome.SUCCEEDED, message="9 rows", dataset=DATASET, models=models))


def simulated(gib: float | None = 1.0, *, preparing: Run | None = None) -> Simulation:
    """A cluster whose pool has GPUs of so much memory."""
    h100 = Pool.model_validate({"gpusPerNode": 8, "memoryGiB": gib})
    simulation = Simulation(settings=make_settings(pools={**make_settings().pools, "h100": h100}))
    simulation.machinery.preparing = [preparing or told()]
    return simulation


def job(name: str = "bot", *, fit: str = "fail", training: dict[str, Any] | None = None, **changes: Any) -> Obj:
    """A job on one GPU of the pool."""
    compute = {"gpusPerNode": 1, "pool": "h100", "memoryFit": fit, **changes.pop("compute", {})}
    return make_job(name, compute=compute, training=TRAINING | (training or {}), adapter={"r": 8}, **changes)


def events(simulation: Simulation, reason: str) -> list[str]:
    """The notes of all Events with this reason."""
    waiting = simulation.controller.recorder._waiting
    found = [waiting.get_nowait() for _ in range(waiting.qsize())]
    return [each["note"] for each in found if each["reason"] == reason]


def environment(simulation: Simulation, number: int = 0) -> dict[str, str]:
    """The plain environment of an attempt's trainer."""
    (role,) = simulation.api.of(PYTORCH_JOB)[number]["spec"]["pytorchReplicaSpecs"].values()
    return {each["name"]: each.get("value", "") for each in role["template"]["spec"]["containers"][0]["env"]}


async def test_what_cannot_fit_fails_before_it_queues() -> None:
    """With the numbers and what would help; a corrected manifest goes on with the data that is there."""
    simulation = simulated()
    simulation.add(job())
    status = await simulation.until("Failed")
    assert conditions(status)["Failed"] == ("True", "MemoryDoesNotFit")
    assert conditions(status)["DataReady"] == ("True", "Prepared")
    assert conditions(status)["Admitted"] == ("False", "NotStarted")
    assert status["message"].startswith(
        "the job needs 1.5 GiB with microBatchSize: 6 and gradientCheckpointing: false, of a GPU that has 1.0 GiB "
        "(pool h100): training.microBatchSize: 2 would need 1.0 GiB; "
    )
    found = status["memory"]
    assert (found["estimatedGiB"], found["gpuGiB"], found["fits"], found["microBatchSize"]) == (1.52, 1.0, False, 6)
    assert {part["name"] for part in found["parts"]} >= {"weights", "adapter", "activations", "context"}
    assert sum(part["GiB"] for part in found["parts"]) == pytest.approx(1.52, abs=0.01)
    assert not simulation.api.of(PYTORCH_JOB)
    assert len(events(simulation, "MemoryDoesNotFit")) == 1
    simulation.edit(training=TRAINING | {"microBatchSize": 2})
    status = await simulation.until("Succeeded")
    assert status["memory"]["fits"] is True
    assert len(simulation.api.created) == len(set(simulation.api.created))
    assert len(simulation.api.of(JOB)) == 1, "the data was prepared once"


async def test_a_warning_is_one_event_and_the_job_goes_on() -> None:
    """The status keeps saying it."""
    simulation = simulated()
    simulation.add(job(fit="warn"))
    status = await simulation.until("Succeeded")
    assert status["memory"]["fits"] is False
    assert "would need" in status["memory"]["message"]
    assert len(events(simulation, "MemoryDoesNotFit")) == 1


TUNED: dict[str, tuple[dict[str, Any], float | None, tuple[int, bool | None], bool | None]] = {
    # the job, the GPU's memory; micro batch and checkpointing of the attempt; status.memory.tuned
    "given": ({}, 80, (6, None), None),
    "autotune-need-not": ({"fit": "autotune"}, 80, (6, None), None),
    "autotune": ({"fit": "autotune"}, 1, (2, None), True),
    "autotune-checkpoints": ({"fit": "autotune"}, 0.78, (2, True), True),
    "auto": ({"training": {"microBatchSize": "auto"}}, 80, (24, None), True),
    "auto-small": ({"training": {"microBatchSize": "auto"}}, 1.4, (4, None), True),
    "auto-of-a-share": ({"training": {"microBatchSize": "auto"}, "compute": {"gpusPerNode": 4}}, 80, (6, None), True),
    "auto-unknown": ({"training": {"microBatchSize": "auto"}}, None, (8, None), None),
}


@pytest.mark.parametrize(("changes", "gib", "expected", "tuned"), TUNED.values(), ids=TUNED)
async def test_an_attempt_takes_what_fits(
    changes: dict[str, Any], gib: float | None, expected: tuple[int, bool | None], *, tuned: bool | None
) -> None:
    """The record, the pod and the status say the same."""
    simulation = simulated(gib)
    simulation.add(job(**changes))
    status = await simulation.until("Running")
    (attempt,) = status["attempts"]
    micro, checkpointing = expected
    assert (attempt["microBatchSize"], attempt.get("gradientCheckpointing")) == expected
    env, given = environment(simulation), changes.get("training", {}).get("microBatchSize", 6)
    resolved = 8 if given == "auto" and "compute" not in changes else 6
    assert env.get(ENV_MICRO_BATCH_SIZE) == (str(micro) if micro != resolved else None)
    assert env.get(ENV_GRADIENT_CHECKPOINTING) == ("true" if checkpointing else None)
    assert status["memory"]["microBatchSize"] == micro
    assert status["memory"].get("tuned") == tuned
    assert status["memory"]["gradientCheckpointing"] == bool(checkpointing)


FOUND = (
    NodeGroup("NVIDIA-H100-80GB", "nvidia.com/gpu.product", "nvidia.com/gpu", 8, 80.0),
    NodeGroup("Tesla-T4", "nvidia.com/gpu.product", "nvidia.com/gpu", 4, 1.0),
)


def drafted(made: Obj, **placed: Any) -> drafts.Draft:
    """A pass at the moment at which an attempt begins, on a cluster with two kinds of GPUs."""
    pools = {"small": Pool.model_validate({"nodeSelector": {"pool": "small"}, "memoryGiB": 1.4})}
    draft = drafts.begin(World(made, make_settings(pools=pools), START, node_groups=FOUND))
    draft.plan = plan_of(made, draft.world.settings, FOUND)
    draft.fields["models"] = [record_of(shape())]
    draft.placement = Placement(**placed)
    return draft


@pytest.mark.parametrize(
    ("labels", "gib", "micro"),
    [
        pytest.param({}, 80.0, 24, id="not-placed"),
        pytest.param({"nvidia.com/gpu.product": "Tesla-T4"}, 1.0, 2, id="found"),
        pytest.param({"pool": "small", "zone": "a"}, 1.4, 4, id="declared"),
        pytest.param({"instance": "x"}, 80.0, 24, id="unknown"),
    ],
)
def test_an_attempt_fits_the_flavor_that_it_was_admitted_in(labels: dict[str, str], gib: float, micro: int) -> None:
    """A job that names no GPUs could get any; the queue decides which, by labels of nodes."""
    draft = drafted(job(compute={"pool": None}, training={"microBatchSize": "auto"}), node_selector=labels)
    assert fitted(draft, Attempt(number=1, start_time=draft.now)).micro_batch_size == micro
    assert draft.value("memory").gpu_gib == gib


@pytest.mark.parametrize(
    ("compute", "goes_on"),
    [
        pytest.param({"pool": None}, True, id="any-gpu"),
        pytest.param({"pool": None, "gpuType": "t4"}, False, id="by-type"),
        pytest.param({"pool": "tesla-t4"}, False, id="by-name"),
        pytest.param({"pool": "small"}, False, id="declared"),
    ],
)
def test_a_job_fails_only_where_the_memory_is_certain(compute: dict[str, Any], *, goes_on: bool) -> None:
    """Larger GPUs may be scaled to zero, unless the job says which ones it gets."""
    made = job(compute=compute, training={"sequenceLength": 1024 if compute != {"pool": None} else 1 << 20})
    draft = drafted(made)
    assert fit(draft) is goes_on
    assert draft.value("memory").fits is False
    assert draft.is_true(ConditionType.FAILED) is not goes_on
    assert [note.reason for note in draft.events] == ["MemoryDoesNotFit"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [pytest.param(4, (6, None), id="all"), pytest.param(2, (12, 2), id="half"), pytest.param(1, (24, 1), id="one")],
)
def test_fewer_nodes_have_larger_shares(nodes: int, expected: tuple[int, int | None]) -> None:
    """The micro batch is chosen anew for the nodes that the queue has quota for; the global batch stays."""
    compute = {"nodes": 4, "minNodes": 1, "pool": None}
    made = job(compute=compute, training={"microBatchSize": "auto"}, queue="team-queue")
    draft = drafted(made, nodes=nodes)
    attempt = fitted(draft, Attempt(number=1, start_time=draft.now))
    assert (attempt.micro_batch_size, attempt.nodes) == expected


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_a_crash_changes_nothing_about_it(seed: int | None) -> None:
    """The operator dies after any effect: the same sizes, and a job that does not fit never gets a pod."""
    for effect in range(1, 40, 3):
        simulation = simulated(1.0)
        simulation.seed, simulation.api.crash_after = seed, effect
        simulation.machinery.training = [[OUT_OF_MEMORY], [TRAINED]]
        simulation.add(job(fit="autotune"))
        simulation.add(job("large", created=1, output={"path": "large"}))
        await simulation.run(60)
        simulation.seed = None
        await simulation.run(60)
        tuned, large = simulation.status(), simulation.status("large")
        assert [each["microBatchSize"] for each in tuned["attempts"]] == [2, 1]
        assert (tuned["phase"], large["phase"], large["attempts"]) == ("Succeeded", "Failed", [])
        assert len(simulation.api.of(PYTORCH_JOB)) == 1


async def test_after_a_shortage_half_is_the_most() -> None:
    """Whatever the estimate says; later attempts keep to it too."""
    simulation = simulated(80)
    simulation.machinery.training = [[OUT_OF_MEMORY], [Run(8, 137)], [TRAINED]]
    simulation.add(job(training={"microBatchSize": "auto"}))
    status = await simulation.until("Succeeded")
    assert [attempt["microBatchSize"] for attempt in status["attempts"]] == [24, 12, 12]


async def test_with_autotune_the_last_thing_to_try_is_checkpointing() -> None:
    """A shortage with a micro batch of 1 is not the end where checkpointing was off; with it, it is."""
    simulation = simulated(80)
    simulation.machinery.training = [[OUT_OF_MEMORY]]
    simulation.add(job(fit="autotune", training={"microBatchSize": 2}))
    status = await simulation.until("Failed")
    found = [(each["microBatchSize"], each.get("gradientCheckpointing")) for each in status["attempts"]]
    assert found == [(2, None), (1, None), (1, True)]
    assert conditions(status)["Failed"] == ("True", "OutOfMemory")


@pytest.mark.parametrize(
    ("preparing", "missing"),
    [
        pytest.param(told(decoder=None), ["activations"], id="layers"),
        pytest.param(
            Run(5, 0, TerminationMessage(outcome=Outcome.SUCCEEDED, dataset=DATASET)),
            ["weights", "activations"],
            id="nothing",
        ),
        pytest.param(told(weights=["999999 1"]), ["weights", "activations"], id="nonsense"),
    ],
)
async def test_a_model_that_is_not_known_is_a_warning(preparing: Run, missing: list[str]) -> None:
    """Once; then the job goes on as its manifest says."""
    simulation = simulated(80, preparing=preparing)
    simulation.add(job())
    status = await simulation.until("Succeeded")
    assert status["memory"]["missing"] == missing
    assert "fits" not in status["memory"]
    assert len(events(simulation, "MemoryUnknown")) == 1
    assert [attempt["microBatchSize"] for attempt in status["attempts"]] == [6]


async def test_who_shares_the_data_shares_the_shape() -> None:
    """Though the adapter is another one: no pod of its own is made, and the estimate is that of its own spec."""
    simulation = simulated(80)
    simulation.add(job("first"))
    await simulation.until("Succeeded", "first")
    second = job("second", created=1, output={"path": "second"})
    simulation.add({**second, "spec": {**second["spec"], "adapter": {"r": 64}}})
    status = await simulation.until("Succeeded", "second")
    assert conditions(status)["DataReady"] == ("True", "PreparedByAnother")
    assert len(simulation.api.of(JOB)) == 1
    first = simulation.status("first")
    assert status["models"] == first["models"]
    assert status["memory"]["estimatedGiB"] > first["memory"]["estimatedGiB"]


async def test_on_cpus_it_is_reported_and_nothing_more() -> None:
    """There is no GPU to fit."""
    simulation = simulated()
    simulation.add(job(compute={"gpusPerNode": 0, "pool": "cpu"}, training={"microBatchSize": "auto"}))
    status = await simulation.until("Succeeded")
    assert status["memory"]["estimatedGiB"] > 0
    assert "fits" not in status["memory"]
    assert status["memory"]["message"].endswith(", for its tensors on CPUs")
    assert not events(simulation, "MemoryUnknown")
    assert [attempt["microBatchSize"] for attempt in status["attempts"]] == [8]


def test_a_measured_peak_stands_beside_the_estimate() -> None:
    """Much more than estimated is told, by what torch itself counts; less is not."""
    parts = [MemoryPart(name="weights", gib=10.0), MemoryPart(name="context", gib=5.0)]
    known = MemoryReport(estimated_gib=15, gpu_gib=80, parts=parts, message="fits")
    less, more = (memory(int(gib * 2**30), known=known) for gib in (10.9, 11.2))
    assert less is not None
    assert (less.peak_gib, less.estimated_gib, less.message) == (10.9, 15, "fits")
    assert more is not None
    assert more.message == "measured 11.2 GiB of tensors, where 10.0 GiB were estimated"
    assert memory(None, known=known) is known
    assert memory(ProgressReport().peak_memory_bytes, known=None) is None


def test_a_record_of_too_many_tensors_is_not_expanded() -> None:
    """It may come from any image that calls itself the trainer's."""
    with pytest.raises(ValueError, match="more than a model has"):
        _ = ModelRecord(architecture="x", parameters=1, linears=["a.0-999999999.q 1x1 stream"]).shape
    with pytest.raises(ValueError, match="more than a model has"):
        _ = ModelRecord(architecture="x", parameters=1, linears=["a.0-9999.b.0-9999.q 1x1 stream"]).shape


async def test_a_job_that_waits_is_not_estimated_again() -> None:
    """Remedies for a large model take half a second, and hundreds of jobs wait: the same question is asked once."""
    simulation = simulated()
    simulation.api.unknown_kinds.add(LOCAL_QUEUE)
    simulation.add(job(fit="warn", queue="team-a", training={"learningRate": 0.0123}))
    await simulation.until("Queued")
    before = _judged.cache_info()
    await simulation.run(120)
    after = _judged.cache_info()
    assert after.hits > before.hits
    assert after.misses == before.misses


async def test_a_job_that_does_not_fit_is_tidied_up_when_its_time_has_come() -> None:
    """Nothing else happens to it any more that would lead to another pass."""
    simulation = simulated()
    simulation.add(job(runPolicy={"ttlSecondsAfterFinished": 60}))
    await simulation.until("Failed")
    assert simulation.api.of(JOB)
    await simulation.run(90)
    assert not simulation.api.of(JOB)


def test_where_an_attempt_ran_is_the_flavor_of_its_gpus() -> None:
    """CPU and memory may be of a group of resources with flavors of its own."""
    plan_job = job()
    draft = drafts.begin(World(plan_job, make_settings(), START))
    draft.plan = plan_of(plan_job, make_settings())
    draft.placement = Placement(nodes=1, flavors={"cpu": "any", "memory": "any", "nvidia.com/gpu": "h100-spot"})
    assert fitted(draft, Attempt(number=1, start_time=START.isoformat())).pool == "h100-spot"
