"""From a report to `status.progress`: what a method measures and says goes through, and nothing known is forgotten."""

from anneal_api import ProgressReport, TerminationMessage
from anneal_api.conditions import Outcome
from anneal_api.status import SampleAnswer
from anneal_operator.progress import at_end, from_report

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
