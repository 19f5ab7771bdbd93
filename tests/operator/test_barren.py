"""A trainer's warning that nothing is learnt: where it is seen, and that it is told once."""

from anneal_api.progress import ProgressReport
from anneal_operator.kinds import RLHF_JOB
from anneal_operator.store import Key
from anneal_operator.world import Report
from simulated.builders import make_grpo_job
from simulated.machinery import Run
from simulated.process import Simulation


async def test_a_run_that_learns_nothing_says_so_where_people_look() -> None:
    """In the message of the job and in its progress, with one Event; and no longer once it learns."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(6000)]]
    simulation.add(make_grpo_job())
    uid = (await simulation.until("Running")) and simulation.job()["metadata"]["uid"]

    async def reported(step: int, warning: str | None) -> None:
        report = ProgressReport(phase="training", attempt=1, step=step, total_steps=99, warning=warning)
        simulation.controller.reports[uid] = Report("bot-1", simulation.now, report=report)
        simulation.due.add(Key(RLHF_JOB, "team", "bot"))
        await simulation.passes()

    for step in (10, 11):
        await reported(step, "nothing is learnt from rewards since step 1: why")
    status = simulation.status()
    assert status["progress"]["warning"] == "nothing is learnt from rewards since step 1: why"
    assert status["message"] == "attempt 1 runs; nothing is learnt from rewards since step 1: why"
    await reported(12, None)
    assert "warning" not in simulation.status()["progress"]
    assert simulation.status()["message"] == "attempt 1 runs"
    waiting = simulation.controller.recorder._waiting
    told = [waiting.get_nowait() for _ in range(waiting.qsize())]
    assert [each["type"] for each in told if each["reason"] == "NothingLearnt"] == ["Warning"]
