"""A job's whole way through the operator, on a simulated cluster: what people see, and what is made."""

from anneal_api import Outcome
from anneal_api.datasetreport import DataWarning
from anneal_api.progress import TerminationMessage
from anneal_operator.kinds import JOB, PYTORCH_JOB
from simulated.builders import make_job
from simulated.machinery import DATASET, Run
from simulated.process import Simulation, conditions


async def test_a_job_prepares_trains_and_succeeds() -> None:
    """The end state holds the result, all nine conditions, and one child of each kind."""
    simulation = Simulation()
    simulation.add(make_job())
    status = await simulation.until("Succeeded")
    assert conditions(status) == {
        "Accepted": ("True", "Valid"),
        "DataReady": ("True", "Prepared"),
        "Admitted": ("True", "NotQueued"),
        "Running": ("False", "Ended"),
        "Succeeded": ("True", "Completed"),
        "Failed": ("False", "InProgress"),
        "Ready": ("True", "Completed"),
        "Reconciling": ("False", "Completed"),
        "Stalled": ("False", "Completed"),
    }
    assert status["outputs"] == [{"kind": "adapter", "uri": "volume://runs/out", "digest": "sha256:0"}]
    assert len(simulation.api.of(JOB)) == len(simulation.api.of(PYTORCH_JOB)) == 1


async def test_what_is_odd_about_the_data_is_told() -> None:
    """Each warning is an Event of its own reason; the first stands in DataReady's message too."""
    odd = [DataWarning(reason="Truncated", message="3 rows are cut", rows=3), DataWarning(reason="Masked", message="x")]
    words = TerminationMessage(
        outcome=Outcome.SUCCEEDED, message="9 rows", dataset=DATASET.model_copy(update={"warnings": odd})
    )
    simulation = Simulation()
    simulation.machinery.preparing = [Run(5, 0, words)]
    simulation.add(make_job())
    status = await simulation.until("Succeeded")
    (ready,) = [each for each in status["conditions"] if each["type"] == "DataReady"]
    assert ready["message"] == "9 rows; 2 warnings in status.dataset.warnings, the first: 3 rows are cut"
    waiting = simulation.controller.recorder._waiting
    told = [waiting.get_nowait() for _ in range(waiting.qsize())]
    found = {(event["type"], event["reason"], event["note"]) for event in told}
    assert {("Warning", "Truncated", "3 rows are cut"), ("Warning", "Masked", "x")} <= found
