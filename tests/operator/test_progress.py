"""From a report to `status.progress`: what a method measures and says goes through, and nothing known is forgotten."""

import pytest

from anneal_api import ProgressReport, TerminationMessage
from anneal_api.conditions import Outcome
from anneal_api.status import JudgedAnswer, SampleAnswer
from anneal_operator.progress import at_end, from_report

DRAWN = [JudgedAnswer(prompt="Say red", answer="red", reward=1.0, step=20)]
SAID = [SampleAnswer(prompt="Say red", answer="RED", step=20)]


def test_metrics_and_samples_are_passed_through() -> None:
    """Those of the last report, beside what an earlier one said of other names."""
    first = from_report(
        ProgressReport(phase="evaluating", step=20, metrics={"eval_rewards/accuracies": 0.75}, samples=SAID),
        fallback=None,
    )
    second = from_report(
        ProgressReport(phase="training", step=21, metrics={"rewards/margins": 0.5}),
        fallback=first,
    )
    assert second.metrics == {"eval_rewards/accuracies": 0.75, "rewards/margins": 0.5}
    assert second.samples == SAID
    assert second.dump()["metrics"]["rewards/margins"] == 0.5


def test_an_attempt_that_loads_again_keeps_them() -> None:
    """Until it has something newer to say."""
    known = from_report(ProgressReport(phase="training", step=5, metrics={"kl": 0.1}, samples=SAID), fallback=None)
    loading = from_report(ProgressReport(phase="loading"), fallback=known)
    assert (loading.metrics, loading.samples) == ({"kl": 0.1}, SAID)


def test_last_words_have_the_final_metrics() -> None:
    """A job that ended between two polls still shows them."""
    known = from_report(ProgressReport(phase="training", step=5, metrics={"kl": 0.1}), fallback=None)
    words = TerminationMessage(outcome=Outcome.SUCCEEDED, step=6, metrics={"kl": 0.2, "eval_kl": 0.3})
    assert at_end(words, fallback=known).metrics == {"kl": 0.2, "eval_kl": 0.3}


def test_rewards_are_told_in_a_column_and_answers_as_they_are_drawn() -> None:
    """Three decimals, as the loss; both stay while an attempt loads again, and to the end."""
    known = from_report(
        ProgressReport(phase="training", step=20, metrics={"reward": 0.12345}, completions=DRAWN), fallback=None
    )
    assert (known.reward_text, known.completions) == ("0.123", DRAWN)
    later = from_report(ProgressReport(phase="evaluating", step=20, metrics={"eval_reward": 0.5}), fallback=known)
    assert (later.reward_text, later.completions) == ("0.123", DRAWN)
    ended = at_end(TerminationMessage(outcome=Outcome.SUCCEEDED, metrics={"reward": 1.0}), fallback=later)
    assert (ended.reward_text, ended.completions) == ("1.000", DRAWN)
    assert from_report(ProgressReport(phase="training", step=1), fallback=None).reward_text is None


@pytest.mark.parametrize(
    ("value", "text"), [(-99999999999.0, "-99999999999.000"), (1e12, "1.000e+12"), (-1e300, "-1.000e+300")]
)
def test_a_number_of_any_size_fits_its_column(value: float, text: str) -> None:
    """The schema bounds the text; a job whose status cannot be written would never end, and its servers stay."""
    found = from_report(ProgressReport(phase="training", loss=value, metrics={"reward": value}), fallback=None)
    assert (found.loss_text, found.reward_text) == (text, text)
    ended = at_end(TerminationMessage(outcome=Outcome.SUCCEEDED, metrics={"reward": value}), fallback=None)
    assert ended.reward_text == text


def test_a_warning_stays_until_the_trainer_takes_it_back() -> None:
    """To the end of an attempt that ends with it; the next attempt begins without."""
    warned = from_report(ProgressReport(phase="training", step=20, warning="nothing is learnt"), fallback=None)
    assert warned.warning == "nothing is learnt"
    assert at_end(TerminationMessage(outcome=Outcome.SUCCEEDED), fallback=warned).warning == "nothing is learnt"
    assert from_report(ProgressReport(phase="training", step=21), fallback=warned).warning is None
    assert from_report(ProgressReport(phase="loading"), fallback=warned).warning is None
