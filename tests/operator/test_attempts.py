"""Why attempts end, and what follows: classification and the retry policy."""

from typing import Any

import pytest

from anneal_api.conditions import Outcome, Reason
from anneal_api.progress import TerminationMessage
from anneal_api.status import Attempt
from anneal_operator.attempts import (
    MOST_ATTEMPTS,
    STALE_LIMIT,
    Again,
    Evidence,
    Learnt,
    Over,
    Retries,
    backoff,
    evidence_of,
    learnt,
    next_step,
    note,
    running_seconds,
    strongest,
)
from anneal_operator.pods import view
from simulated.builders import at, make_pod, stamp


def test_words_of_others_are_cut_to_what_the_schema_lets_in() -> None:
    """A status that is refused would be written for ever in vain: a queue's message has eight times the room."""
    noted = note(Attempt(number=1, start_time=stamp(0)), Evidence(Outcome.EVICTED, "Deactivated" * 99, "long " * 9999))
    assert Attempt.model_validate(noted.dump()) == noted


def said(outcome: Outcome, message: str) -> str:
    """A trainer's last words."""
    return TerminationMessage(outcome=outcome, message=message).encode()


def disrupted(reason: str) -> list[dict[str, Any]]:
    """The condition that tells an eviction from a failure."""
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "by somebody"}]


ENDS = {
    "user": (make_pod(exit_code=65, message=said(Outcome.USER_ERROR, "row 7")), Outcome.USER_ERROR, "row 7"),
    "user-wordless": (make_pod(exit_code=78), Outcome.USER_ERROR, "code 78"),
    "oom": (make_pod(exit_code=79, message=said(Outcome.OUT_OF_MEMORY, "CUDA")), Outcome.OUT_OF_MEMORY, "CUDA"),
    "oom-killed": (make_pod(exit_code=137, reason="OOMKilled"), Outcome.OUT_OF_MEMORY, "memory than its limit"),
    "stale": (
        make_pod(exit_code=75, message=said(Outcome.PREPARED_DATA_STALE, "a.jsonl")),
        Outcome.PREPARED_DATA_STALE, "a.jsonl",
    ),
    "temporary": (make_pod(exit_code=75, message=said(Outcome.INFRASTRUCTURE, "no peer")), Outcome.INFRASTRUCTURE, "no peer"),
    "killed": (make_pod(exit_code=137), Outcome.INFRASTRUCTURE, "signal 9"),
    "crashed": (make_pod(exit_code=1, message="Segmentation fault"), Outcome.INFRASTRUCTURE, "Segmentation"),
    "evicted": (
        make_pod(exit_code=75, conditions=disrupted("EvictionByEvictionAPI")), Outcome.PREEMPTED, "by somebody",
    ),
    "preempted": (make_pod(conditions=disrupted("PreemptionByScheduler")), Outcome.PREEMPTED, "node-1"),
    "tainted": (make_pod(conditions=disrupted("DeletionByTaintManager"), deleting=True), Outcome.NODE_LOST, "node-1"),
    "collected": (make_pod(conditions=disrupted("DeletionByPodGC"), exit_code=1), Outcome.NODE_LOST, "node-1"),
    "rejected": (make_pod(phase="Failed"), Outcome.INFRASTRUCTURE, "before its container ran"),
}  # fmt: skip


@pytest.mark.parametrize(("pod", "outcome", "words"), ENDS.values(), ids=ENDS)
def test_each_end_is_told_from_the_others(pod: dict[str, Any], outcome: Outcome, words: str) -> None:
    """Exit code, termination message, OOMKilled and DisruptionTarget together say why."""
    evidence = evidence_of(view(pod))
    assert evidence is not None
    assert evidence.outcome is outcome
    assert words in evidence.message


def test_a_running_or_finished_pod_says_nothing() -> None:
    """Also one that did its work just as it was evicted."""
    assert evidence_of(view(make_pod(started=1))) is None
    assert evidence_of(view(make_pod(exit_code=0))) is None
    assert evidence_of(view(make_pod(exit_code=0, conditions=disrupted("EvictionByEvictionAPI")))) is None


def test_the_cause_wins_over_what_it_caused() -> None:
    """A peer that lost its connection first does not hide the rank that had a reason."""
    peer = view(make_pod("w-1", index=1, exit_code=1, ended=50))
    cause = view(make_pod("w-0", exit_code=65, ended=52, message=said(Outcome.USER_ERROR, "row 7")))
    found = strongest([peer, cause])
    assert found is not None
    assert found.outcome is Outcome.USER_ERROR


def test_of_two_equal_ends_the_first_one_counts() -> None:
    """The later one is its consequence."""
    late, early = (view(make_pod(name, exit_code=1, ended=end)) for name, end in (("late", 60), ("early", 50)))
    found = strongest([late, early])
    assert found is not None
    assert "early" in found.message


def test_weaker_evidence_never_replaces_stronger() -> None:
    """What was seen once stays, though the pod that showed it is gone."""
    attempt = Attempt(number=1, start_time=stamp(0))
    attempt = note(attempt, Evidence(Outcome.OUT_OF_MEMORY, "OOMKilled", "too much", 137))
    attempt = note(attempt, Evidence(Outcome.INFRASTRUCTURE, "Deleted", "gone"))
    assert (attempt.outcome, attempt.counted, attempt.exit_code) == (Outcome.OUT_OF_MEMORY, True, 137)


def ended(*outcomes: Outcome, micro: int = 4, reason: str = "", steps: int = 0) -> list[Attempt]:
    """Attempts of a minute each that ended so."""
    counted = {Outcome.INFRASTRUCTURE, Outcome.OUT_OF_MEMORY}
    return [
        Attempt(
            number=number, start_time=stamp(60 * number), running_time=stamp(60 * number + 10),
            end_time=stamp(60 * number + 50), outcome=outcome, counted=outcome in counted, message="why",
            reason=reason, micro_batch_size=micro, last_step=steps * number,
        )
        for number, outcome in enumerate(outcomes, start=1)
    ]  # fmt: skip


def decide(attempts: list[Attempt], *, retries: int = 3) -> Again | Over:
    """The policy's answer."""
    return next_step(attempts, Retries(most=retries, micro_batch_size=4))


INFRA, OOM, EVICTED, STALE = (
    Outcome.INFRASTRUCTURE, Outcome.OUT_OF_MEMORY, Outcome.PREEMPTED, Outcome.PREPARED_DATA_STALE,
)  # fmt: skip
OVER = {
    "user-error": (ended(Outcome.USER_ERROR), Reason.USER_ERROR),
    "deadline": (ended(Outcome.DEADLINE_EXCEEDED), Reason.DEADLINE_EXCEEDED),
    "retries": (ended(INFRA, OOM, INFRA, INFRA), Reason.RETRIES_EXHAUSTED),
    "smallest": (ended(OOM, micro=1), Reason.OUT_OF_MEMORY),
    "stale": (ended(*[STALE] * (STALE_LIMIT + 1)), Reason.PREPARED_DATA_STALE),
    "bounded": (ended(*[EVICTED] * MOST_ATTEMPTS), Reason.RETRIES_EXHAUSTED),
}


@pytest.mark.parametrize(("attempts", "reason"), OVER.values(), ids=OVER)
def test_when_no_attempt_follows(attempts: list[Attempt], reason: Reason) -> None:
    """Each has its own reason, and the last failure in its message."""
    verdict = decide(attempts)
    assert isinstance(verdict, Over)
    assert verdict.reason is reason
    assert "why" in verdict.message


def test_disruptions_and_suspensions_use_up_no_retry() -> None:
    """Any number of them, with no retries allowed."""
    assert isinstance(decide(ended(*[EVICTED] * 20, Outcome.NODE_LOST, Outcome.SUSPENDED), retries=0), Again)


@pytest.mark.parametrize(
    ("attempts", "most"),
    [
        pytest.param(ended(INFRA, EVICTED), None, id="no-shortage"),
        pytest.param(ended(OOM, micro=8), 4, id="halved"),
        pytest.param(ended(OOM, micro=5), 2, id="halved-down"),
        pytest.param([*ended(OOM, micro=4), *ended(EVICTED, micro=2)], 2, id="kept-by-later-ones"),
        pytest.param([*ended(OOM, micro=4), *ended(OOM, micro=2)], 1, id="twice"),
        pytest.param(ended(OOM, micro=1), 1, id="smallest"),
    ],
)
def test_a_shortage_halves_the_micro_batch_for_good(attempts: list[Attempt], most: int | None) -> None:
    """A node loss after an out-of-memory must not bring the shortage back."""
    assert learnt(attempts, Retries(most=3, micro_batch_size=4)).micro_batch_size == most


def test_where_it_may_a_shortage_with_a_micro_batch_of_one_turns_checkpointing_on() -> None:
    """With memoryFit autotune, and once: after that there is nothing left to try."""
    retries = Retries(most=3, micro_batch_size=4, may_checkpoint=True)
    first = ended(OOM, micro=1)
    assert isinstance(next_step(first, retries), Again)
    assert learnt(first, retries) == Learnt(1, checkpointing=True)
    second = [first[0].model_copy(update={"gradient_checkpointing": True})]
    over = next_step(second, retries)
    assert isinstance(over, Over)
    assert over.reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        (ended(INFRA), 5), (ended(INFRA, INFRA, INFRA), 20), (ended(*[INFRA] * 30), 300), (ended(INFRA, EVICTED), 0),
        (ended(OOM), 0), (ended(Outcome.SUSPENDED), 0), (ended(EVICTED, EVICTED, EVICTED), 10),
        (ended(EVICTED, EVICTED, EVICTED, steps=9), 0),
    ],
)  # fmt: skip
def test_backoff_grows_with_failures_in_a_row(attempts: list[Attempt], seconds: float) -> None:
    """And with disruptions in a row that made no progress, but not with ones that did."""
    assert backoff(attempts) == seconds


def test_only_running_time_counts() -> None:
    """Waiting for a node, back-off and suspension are not training."""
    running = Attempt(number=3, start_time=stamp(300), running_time=stamp(310))
    waiting = Attempt(number=4, start_time=stamp(400))
    assert running_seconds([*ended(INFRA, EVICTED), running, waiting], at(320)) == 40 + 40 + 10
