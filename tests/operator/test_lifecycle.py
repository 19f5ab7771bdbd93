"""A job's whole way through the operator, on a simulated cluster: what people see, and what is made."""

from anneal_operator.kinds import JOB, PYTORCH_JOB
from simulated.builders import make_job
from simulated.process import Simulation, conditions


async def test_a_job_prepares_trains_and_succeeds() -> None:
    """The end state holds the result, all eight conditions, and one child of each kind."""
    simulation = Simulation()
    simulation.add(make_job())
    status = await simulation.until("Succeeded")
    assert conditions(status) == {
        "Accepted": ("True", "Valid"),
        "DataReady": ("True", "Prepared"),
        "Running": ("False", "Ended"),
        "Succeeded": ("True", "Completed"),
        "Failed": ("False", "InProgress"),
        "Ready": ("True", "Completed"),
        "Reconciling": ("False", "Completed"),
        "Stalled": ("False", "Completed"),
    }
    assert status["outputs"] == [{"kind": "adapter", "uri": "volume://runs/out", "digest": "sha256:0"}]
    assert len(simulation.api.of(JOB)) == len(simulation.api.of(PYTORCH_JOB)) == 1
