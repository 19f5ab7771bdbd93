"""A run whose rewards never differ is told: after how many draws, why, and until when."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anneal_api import ProgressReport
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import lastwords
from anneal_trainer.methods.asked import spread
from anneal_trainer.methods.barren import Barren
from anneal_trainer.reporter import Reporter, silent
from trainer.aligning import alignment_context
from trainer.prompting import EXACT, SHORT, answered, online_job

EQUAL = {
    "reward": 0.0,
    "frac_reward_zero_std": 1.0,
    "rewards/exact": 0.0,
    "rewards/exact/std": 0.0,
    "completions/clipped_ratio": 0.5,
}
TEACHES = EQUAL | {"frac_reward_zero_std": 0.5}


def warned(storage: Path, steps: list[dict[str, float]], **changes: Any) -> list[str | None]:
    """What the report warns of after each step."""
    spec = alignment_context(storage, online_job(**{"rewards": [EXACT], **changes})).spec
    assert isinstance(spec, RLHFSpec)
    reporter = Reporter(ProgressReport(), silent)
    barren, found = Barren(spec, reporter), []
    for step, logs in enumerate(steps, start=1):
        barren.on_log(None, SimpleNamespace(global_step=step), None, logs=logs)
        found.append(reporter.report.warning)
    return found


def test_a_reward_that_never_fires_is_told_while_training_and_at_the_end(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real run: once in the log, in the report, and in the last words; it is not ended."""
    reporter = Reporter(ProgressReport(), silent)
    result = answered(storage, online_job(rewards=[EXACT], training={"maxSteps": 12}), reporter=reporter)
    assert reporter.report.warning is not None
    assert reporter.report.warning.startswith(
        "nothing is learnt from rewards since step 1: all answers to a prompt are worth the same (exact 0); look at"
    )
    assert capsys.readouterr().err.count(f"warning: {reporter.report.warning}\n") == 1
    assert lastwords.of_result(result).message == f"trained 12 steps; {reporter.report.warning}"


NOTHING = "def reward(completions, **_): return [None] * len(completions)"
FAILS = "def reward(completions, **_): return [1 / 0 for _ in completions]"


@pytest.mark.parametrize(
    ("source", "policy", "why"),
    [
        (NOTHING, "skip", "no answer has a reward (mine judged none); mend"),
        (FAILS, "skip", "no answer has a reward (mine judged none, failed for 8 answers); mend"),
        (FAILS, "zero", "all answers to a prompt are worth the same (mine 0, failed for 8 answers); look"),
    ],
    ids=["nothing", "fails", "zero"],
)
def test_a_short_run_that_no_reward_taught_says_so_at_its_end(
    storage: Path, monkeypatch: pytest.MonkeyPatch, *, source: str, policy: str, why: str
) -> None:
    """Ten draws would tell it while it trains: fewer have it in the last words."""
    monkeypatch.chdir(storage)
    (storage / "rewards.py").write_text(source)
    mine = {"name": "mine", "function": {"file": "rewards.py"}, "onError": policy}
    result = answered(storage, online_job(rewards=[mine], training={"maxSteps": 2}))
    words = lastwords.of_result(result)
    assert words.message.startswith(f"trained 2 steps; nothing was learnt from rewards: {why}")
    assert words.message.endswith(lastwords.warning_of(words))


@pytest.mark.parametrize(
    ("begun", "ended", "steps"),
    [(0, 2, [TEACHES, EQUAL]), (4, 6, [EQUAL, EQUAL]), (0, 1, [EQUAL])],
    ids=["one step taught", "resumed", "stopped"],
)
def test_a_short_run_that_may_have_learnt_is_not_warned_of(
    storage: Path, *, begun: int, ended: int, steps: list[dict[str, float]]
) -> None:
    """One step that taught is enough; of a run that goes on, or shall go on, not all steps are known."""
    spec = alignment_context(storage, online_job(rewards=[EXACT])).spec
    assert isinstance(spec, RLHFSpec)
    reporter = Reporter(ProgressReport(), silent)
    barren = Barren(spec, reporter)
    barren.on_train_begin(None, SimpleNamespace(global_step=begun), None)
    for step, logs in enumerate(steps, start=begun + 1):
        barren.on_log(None, SimpleNamespace(global_step=step), None, logs=logs)
    barren.on_train_end(None, SimpleNamespace(global_step=ended, max_steps=begun + 2), None)
    assert reporter.report.warning is None


def test_a_run_that_learns_is_not_warned_of(storage: Path) -> None:
    """Nor do its last words say anything."""
    result = answered(storage, online_job(training={"maxSteps": 12}))
    assert lastwords.of_result(result).message == "trained 12 steps"


def test_it_takes_ten_draws_in_a_row_and_ends_with_the_first_that_teaches(storage: Path) -> None:
    """The step that it began with is told; evaluations in between say nothing."""
    found = warned(storage, [EQUAL] * 9 + [TEACHES] + [EQUAL] * 9 + [{"eval_reward": 0.0}] + [EQUAL, TEACHES])
    assert found[:20] == [None] * 20
    assert found[20] is not None
    assert "since step 11: " in found[20]
    assert found[21] is None


def test_the_steps_of_one_draw_count_once(storage: Path) -> None:
    """Over `iterations` they all learn from the same answers."""
    found = warned(storage, [EQUAL] * 20, grpo={"iterations": 2})
    assert [warning is not None for warning in found] == [False] * 19 + [True]


def test_answers_that_are_all_masked_are_told_with_the_fields(storage: Path) -> None:
    """Their rewards may differ: none of them is trained on."""
    found = warned(storage, [TEACHES | {"completions/clipped_ratio": 1.0}] * 10, grpo={"maskTruncated": True})
    assert found[-1] is not None
    assert "every answer is cut off at sampling.maxTokens 6, and grpo.maskTruncated trains none" in found[-1]
    assert warned(storage, [TEACHES | {"completions/clipped_ratio": 1.0}] * 10)[-1] is None


def test_every_reward_is_named_with_its_worth(storage: Path) -> None:
    """A mean over prompts, one that judged nothing, and how many more there are."""
    logs = EQUAL | {"rewards/exact": 0.25, "rewards/exact/std": 0.4, "rewards/c": 1.0}
    named = [EXACT, {**SHORT, "name": "b"}, {**SHORT, "name": "c"}, {**SHORT, "name": "d"}]
    found = warned(storage, [logs] * 10, rewards=named)[-1]
    assert found is not None
    assert "(exact 0.25 on average, b judged none, c 1, 1 more reward)" in found


def test_equal_rewards_have_no_spread() -> None:
    """Exactly: a mean of three times 0.1 is not 0.1, and the group would seem to teach something."""
    assert [spread([value] * 3) for value in (0.1, 0.7, 0.95)] == [0.0, 0.0, 0.0]
