"""Why an attempt ended, and what comes next: the retry policy, as pure functions over what is recorded.

Evidence is kept in the attempt as soon as it is seen, since the pod that shows it may be gone at the next look; more
specific evidence replaces weaker. Whether an end costs a retry follows from its outcome alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from anneal_api import exitcodes
from anneal_api.conditions import Outcome, Reason
from anneal_api.status import Attempt
from anneal_operator.kinds import parse_time
from anneal_operator.pods import PodView

FIRST_BACKOFF = 5.0
LONGEST_BACKOFF = 300.0
STALE_LIMIT = 3
# As many as the schema of status lets in; so are the limits of texts.
MOST_ATTEMPTS = 128
REASON_LIMIT, MESSAGE_LIMIT = 64, 4096
# A container that a signal ended exits with this and the signal's number.
SIGNALLED = 128

COUNTED = frozenset({Outcome.INFRASTRUCTURE, Outcome.OUT_OF_MEMORY})
# From weak to strong: two pods of one attempt may tell different stories, and the cause is the stronger one.
_STRENGTH = {
    outcome: rank
    for rank, outcome in enumerate(
        (
            None, Outcome.INFRASTRUCTURE, Outcome.EVICTED, Outcome.SUSPENDED, Outcome.DEADLINE_EXCEEDED,
            Outcome.NODE_LOST, Outcome.PREEMPTED, Outcome.PREPARED_DATA_STALE, Outcome.OUT_OF_MEMORY,
            Outcome.USER_ERROR, Outcome.SUCCEEDED,
        )
    )
}  # fmt: skip
NODE_LOST = frozenset({"DeletionByPodGC", "DeletionByTaintManager"})
_NODE_GOING = frozenset({"NodeShutdown", "Shutdown", "Terminated", "NodeLost"})


@dataclass(frozen=True)
class Evidence:
    """What one pod, or the operator itself, says about an end."""

    outcome: Outcome
    reason: str
    message: str
    exit_code: int | None = None


def evidence_of(pod: PodView) -> Evidence | None:
    """What this pod says about why its attempt ended; None while it says nothing."""
    if pod.disruption and not pod.succeeded:
        outcome = _disruption(pod)
        where = f" on node {pod.node}" if pod.node else ""
        words = f": {pod.disruption_message}" if pod.disruption_message else ""
        code = pod.ended.exit_code if pod.ended else None
        return Evidence(outcome, pod.disruption, f"pod {pod.name}{where} was disrupted{words}", code)
    if not pod.failed:
        return None
    if pod.ended is None:
        why = pod.reason or "Failed"
        return Evidence(Outcome.INFRASTRUCTURE, why, f"pod {pod.name} failed before its container ran ({why})")
    return _from_container(pod)


def _disruption(pod: PodView) -> Outcome:
    lost = pod.disruption in NODE_LOST or pod.reason in _NODE_GOING
    return Outcome.NODE_LOST if lost else Outcome.PREEMPTED


def _from_container(pod: PodView) -> Evidence:
    ended = pod.ended
    assert ended is not None
    code, words = ended.exit_code, ended.words
    said = words.message if words and words.message else ""
    if exitcodes.is_user_error(code):
        return Evidence(Outcome.USER_ERROR, "UserError", said or _unsaid(pod), code)
    if ended.reason == "OOMKilled":
        return Evidence(Outcome.OUT_OF_MEMORY, "OOMKilled", f"pod {pod.name} used more memory than its limit", code)
    if code == exitcodes.OUT_OF_MEMORY or (words and words.outcome is Outcome.OUT_OF_MEMORY):
        return Evidence(Outcome.OUT_OF_MEMORY, "OutOfMemory", said or f"pod {pod.name} ran out of memory", code)
    if code == exitcodes.TEMPORARY and words and words.outcome is Outcome.PREPARED_DATA_STALE:
        return Evidence(Outcome.PREPARED_DATA_STALE, "PreparedDataStale", said or "the prepared data is stale", code)
    return Evidence(Outcome.INFRASTRUCTURE, ended.reason or "Error", said or _unsaid(pod), code)


def _unsaid(pod: PodView) -> str:
    ended = pod.ended
    assert ended is not None
    tail = ended.text.strip()[-300:] if ended.text and ended.words is None else ""
    signal = f" (signal {ended.exit_code - SIGNALLED})" if SIGNALLED < ended.exit_code < SIGNALLED + 32 else ""
    return f"pod {pod.name} exited with code {ended.exit_code}{signal}" + (f": {tail}" if tail else " without a word")


def strongest(pods: Sequence[PodView], *more: Evidence | None) -> Evidence | None:
    """The most specific evidence; of equally specific, that of the pod which ended first."""
    by_end = sorted(pods, key=lambda pod: (pod.ended is None or pod.ended.time is None, _end_time(pod), pod.index))
    found = [evidence for evidence in (*map(evidence_of, by_end), *more) if evidence]
    return max(found, key=lambda evidence: _STRENGTH[evidence.outcome]) if found else None


def _end_time(pod: PodView) -> float:
    return pod.ended.time.timestamp() if pod.ended and pod.ended.time else 0.0


def note(attempt: Attempt, evidence: Evidence | None) -> Attempt:
    """The attempt with `evidence` recorded, unless it already knows better."""
    if evidence is None or _STRENGTH[evidence.outcome] <= _STRENGTH[attempt.outcome]:
        return attempt
    return attempt.model_copy(
        update={
            "outcome": evidence.outcome,
            "counted": evidence.outcome in COUNTED,
            # Words of others (a queue's, the kubelet's) have no bound, and the schema of status has one.
            "reason": evidence.reason[:REASON_LIMIT],
            "message": evidence.message[:MESSAGE_LIMIT],
            "exit_code": evidence.exit_code if evidence.exit_code is not None else attempt.exit_code,
        }
    )


@dataclass(frozen=True)
class Again:
    """Another attempt, not before `after`."""

    after: datetime
    why: str = ""


@dataclass(frozen=True)
class Over:
    """No further attempt."""

    reason: Reason
    message: str


def running_seconds(attempts: Sequence[Attempt], now: datetime) -> float:
    """Seconds of training over all attempts; what the deadline and the GPU-hours count."""
    total = 0.0
    for attempt in attempts:
        begun = parse_time(attempt.running_time)
        if begun is not None:
            total += max(0.0, ((parse_time(attempt.end_time) or now) - begun).total_seconds())
    return total


@dataclass(frozen=True)
class Retries:
    """What a job's spec says about trying again. `may_checkpoint`: memoryFit may turn gradientCheckpointing on."""

    most: int
    micro_batch_size: int
    may_checkpoint: bool = False


def next_step(attempts: Sequence[Attempt], retries: Retries) -> Again | Over:
    """What follows the recorded attempts, the last of which did not succeed."""
    last = attempts[-1]
    if over := _hopeless(last, retries) or _used_up(attempts, retries.most):
        return over
    ended = parse_time(last.end_time)
    assert ended is not None
    return Again(ended + timedelta(seconds=backoff(attempts)), last.message or "")


@dataclass(frozen=True)
class Learnt:
    """What earlier attempts that ran out of memory leave to the next one: at most half, or checkpointing."""

    micro_batch_size: int | None = None
    checkpointing: bool = False


def learnt(attempts: Sequence[Attempt], retries: Retries) -> Learnt:
    """From all attempts that have ended so, since a shortage does not pass."""
    short = [each for each in attempts if each.end_time and each.outcome is Outcome.OUT_OF_MEMORY]
    if not short:
        return Learnt()
    least = min(each.micro_batch_size or retries.micro_batch_size for each in short)
    return Learnt(max(1, least // 2), checkpointing=least == 1 and retries.may_checkpoint)


def _hopeless(last: Attempt, retries: Retries) -> Over | None:
    """An end after which trying again would change nothing."""
    match last.outcome:
        case Outcome.USER_ERROR:
            return Over(Reason.USER_ERROR, last.message or "")
        case Outcome.DEADLINE_EXCEEDED:
            return Over(Reason.DEADLINE_EXCEEDED, last.message or "")
        case Outcome.OUT_OF_MEMORY if (last.micro_batch_size or retries.micro_batch_size) <= 1:
            may = retries.may_checkpoint and not last.gradient_checkpointing
            return None if may else Over(Reason.OUT_OF_MEMORY, _no_smaller(last))
    return None


def _used_up(attempts: Sequence[Attempt], max_retries: int) -> Over | None:
    """Retries that the job has had."""
    last = attempts[-1]
    failures = sum(attempt.counted for attempt in attempts)
    if last.counted and failures > max_retries:
        words = f"{last.message} (failure {failures}; runPolicy.maxRetries is {max_retries})"
        return Over(Reason.RETRIES_EXHAUSTED, words)
    if _trailing(attempts, Outcome.PREPARED_DATA_STALE) > STALE_LIMIT:
        words = f"the sources changed during {STALE_LIMIT + 1} attempts in a row: apply the job again when they rest"
        return Over(Reason.PREPARED_DATA_STALE, f"{words} ({last.message})")
    if len(attempts) >= MOST_ATTEMPTS:
        words = f"{MOST_ATTEMPTS} attempts have begun, the most that one job may have: apply it under another name"
        return Over(Reason.RETRIES_EXHAUSTED, f"{words}, with checkpoint.resumeFrom ({last.message})")
    return None


def _no_smaller(last: Attempt) -> str:
    if last.reason == "OOMKilled":
        more = "raise spec.compute.memory, or lower training.sequenceLength"
    else:
        more = (
            "lower training.sequenceLength, use model.quantization or an adapter, keep gradientCheckpointing on, "
            "or use GPUs with more memory"
        )
    return f"out of memory with a micro batch of 1, the smallest there is: {more} ({last.message})"


def _trailing(attempts: Sequence[Attempt], *outcomes: Outcome) -> int:
    count = 0
    for attempt in reversed(attempts):
        if attempt.outcome not in outcomes:
            break
        count += 1
    return count


def backoff(attempts: Sequence[Attempt]) -> float:
    """Seconds before the next attempt: more after each failure in a row, none after an end that is nobody's fault.

    A disruption costs nothing the first time; disruptions in a row without any progress wait as failures do, or a pod
    that is evicted for what it does itself would be started for ever.
    """
    last = attempts[-1]
    if last.outcome is Outcome.INFRASTRUCTURE:
        failures = _trailing(attempts, Outcome.INFRASTRUCTURE)
    elif last.outcome in {Outcome.PREEMPTED, Outcome.NODE_LOST}:
        failures = _without_progress(attempts)
    else:
        return 0.0
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (failures - 1)) if failures else 0.0


def _without_progress(attempts: Sequence[Attempt]) -> int:
    """How many disruptions in a row ended at the step at which the one before had ended."""
    count = 0
    for later, earlier in zip(reversed(attempts), reversed(attempts[:-1]), strict=False):
        disrupted = earlier.outcome in {Outcome.PREEMPTED, Outcome.NODE_LOST}
        if not disrupted or (later.last_step or 0) > (earlier.last_step or 0):
            break
        count += 1
    return count


def deadline_message(seconds: int | None) -> str:
    """What the limit was, and where it is written."""
    return (
        f"trained for runPolicy.activeDeadlineSeconds ({seconds} s) without reaching its end: "
        "apply the job under another name with a longer one and checkpoint.resumeFrom, or delete it and train less"
    )
