"""The part of a status that follows from the rest: absent conditions, kstatus' three, the phase and the one sentence.

`Ready` is True only on success, `Stalled` only where a person is needed, `Reconciling` while the operator works on it.
"""

from anneal_api.conditions import ConditionType, Phase, Reason
from anneal_operator.draft import Draft

ACCEPTED, DATA_READY = ConditionType.ACCEPTED, ConditionType.DATA_READY
ADMITTED, RUNNING = ConditionType.ADMITTED, ConditionType.RUNNING
ROLLOUT_READY = ConditionType.ROLLOUT_READY
SUCCEEDED, FAILED = ConditionType.SUCCEEDED, ConditionType.FAILED

_UNSET = {
    ACCEPTED: Reason.IN_PROGRESS,
    DATA_READY: Reason.NOT_STARTED,
    ADMITTED: Reason.NOT_STARTED,
    RUNNING: Reason.NOT_STARTED,
    SUCCEEDED: Reason.IN_PROGRESS,
    FAILED: Reason.IN_PROGRESS,
}


def fill(draft: Draft) -> None:
    """Complete a draft."""
    for kind, reason in _UNSET.items():
        if kind not in draft.conditions:
            draft.set(kind, "False", reason)
        else:
            _observed(draft, kind)
    # Only jobs with servers have it.
    if ROLLOUT_READY in draft.conditions:
        _observed(draft, ROLLOUT_READY)
    telling = _telling(draft)
    sentence = draft.message(telling)
    reason = Reason(draft.reason(telling))
    succeeded, stuck = draft.is_true(SUCCEEDED), draft.is_true(FAILED) or not draft.is_true(ACCEPTED)
    resting = draft.reason(RUNNING) == Reason.SUSPENDED
    draft.set(ConditionType.READY, "True" if succeeded else "False", reason, sentence)
    draft.set(ConditionType.STALLED, "True" if stuck else "False", reason, sentence if stuck else "")
    working = not (succeeded or stuck or resting)
    draft.set(ConditionType.RECONCILING, "True" if working else "False", reason, sentence if working else "")
    draft.fields["phase"] = _phase(draft)
    draft.fields["message"] = sentence


def _observed(draft: Draft, kind: ConditionType) -> None:
    """Conditions that this pass left alone hold for the present generation too."""
    old = draft.conditions[kind]
    draft.conditions[kind] = old.model_copy(update={"observed_generation": draft.generation})


def _telling(draft: Draft) -> ConditionType:
    """The condition that a person needs to read now."""
    for kind in (SUCCEEDED, FAILED):
        if draft.is_true(kind):
            return kind
    if not draft.is_true(ACCEPTED):
        return ACCEPTED
    if draft.reason(RUNNING) in {Reason.SUSPENDED, Reason.SUSPENDING}:
        return RUNNING
    if not draft.is_true(DATA_READY):
        return DATA_READY
    if draft.is_true(RUNNING) and _lacks_servers(draft):
        return ROLLOUT_READY
    return ADMITTED if _queues(draft) else RUNNING


def _lacks_servers(draft: Draft) -> bool:
    """Whether it trains and waits for answers."""
    found = draft.conditions.get(ROLLOUT_READY)
    return found is not None and found.status != "True" and found.reason != Reason.ROLLOUT_STOPPED


def _queues(draft: Draft) -> bool:
    """Whether the job waits for its quota and nothing of it is left to end."""
    return not draft.is_true(ADMITTED) and draft.reason(RUNNING) in {Reason.NOT_STARTED, Reason.QUEUED}


def _phase(draft: Draft) -> Phase:
    if draft.is_true(SUCCEEDED):
        return Phase.SUCCEEDED
    if draft.is_true(FAILED):
        return Phase.FAILED
    if not draft.is_true(ACCEPTED):
        return Phase.PENDING
    return _phase_of_work(draft)


def _phase_of_work(draft: Draft) -> Phase:
    """Of a job that is neither over nor in want of a person."""
    if draft.reason(RUNNING) == Reason.SUSPENDED:
        return Phase.SUSPENDED
    if not draft.is_true(DATA_READY):
        return Phase.PREPARING
    if _queues(draft):
        return Phase.QUEUED
    return Phase.RUNNING if draft.is_true(RUNNING) else Phase.STARTING
