"""Every story comes to its end: told straight, cut off after every effect, and with a late and lossy watch."""

import os
from collections import Counter

import pytest

from simulated.process import Simulation, conditions
from simulated.queue_stories import QUEUE_STORIES
from simulated.rollout_stories import ROLLOUT_STORIES
from simulated.stories import STORIES, Story

ALL = (*STORIES, *QUEUE_STORIES, *ROLLOUT_STORIES)
BY_NAME = pytest.mark.parametrize("story", ALL, ids=[story.name for story in ALL])
# More orders of events; `make soak` sets it.
SOAK = int(os.environ.get("ANNEAL_SOAK_SEEDS", "0"))
SEEDS = SOAK or 2


def assert_end(simulation: Simulation, story: Story) -> None:
    """The story's end, and that nothing was made twice or wrote beside another."""
    status = simulation.status()
    assert status["phase"] == story.phase, status
    ready, failed = conditions(status)["Ready"], conditions(status)["Failed"]
    assert (failed if story.phase == "Failed" else ready) == ("True", story.reason)
    assert tuple(attempt["outcome"] for attempt in status["attempts"]) == story.outcomes, status["attempts"]
    assert [attempt["number"] for attempt in status["attempts"]] == list(range(1, len(story.outcomes) + 1))
    assert simulation.machinery.most_writers <= 1
    made = Counter((kind.plural, name) for kind, _namespace, name in simulation.api.created)
    again = {what: count for what, count in made.items() if count > 1}
    allowed = {"jobs"} if story.name.startswith(("stale", "suspended-early")) else set()
    if story.name.startswith("queued"):
        # A Workload that is given up is another one when the job queues again.
        allowed.add("workloads")
    if story.name.startswith("online"):
        # Servers go when nothing is trained, and come again with the next attempt.
        allowed |= {"deployments", "workloads"}
    if "given-back" in story.name:
        allowed.add("pytorchjobs")
    assert not {what for what in again if what[0] not in allowed}, again


@BY_NAME
async def test_told_straight(story: Story) -> None:
    """Each life comes to the end that it must."""
    simulation = Simulation()
    await story.tell(simulation)
    assert_end(simulation, story)


@BY_NAME
async def test_cut_off_after_every_effect(story: Story) -> None:
    """The operator dies after its first effect, then after its second, and so on: the end is the same each time."""
    effect, simulation = 0, None
    stride = 5 if story.long and not SOAK else 1
    while simulation is None or simulation.crashes:
        effect += stride
        simulation = Simulation()
        simulation.api.crash_after = effect
        await story.tell(simulation)
        assert_end(simulation, story)
    assert effect > 5


@BY_NAME
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_with_a_late_watch_and_a_crash(story: Story, seed: int) -> None:
    """Whatever part of the watch has arrived, and wherever the process dies on the way."""
    simulation = Simulation(seed=seed)
    simulation.api.crash_after = simulation.random.randint(1, 12)
    await story.tell(simulation)
    simulation.seed = None
    await simulation.run(60)
    assert_end(simulation, story)
