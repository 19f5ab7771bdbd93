"""Train: one attempt after the other until one succeeds or none may follow. Owns `Running`.

An attempt is recorded in status before anything of it is made: from then on the spec cannot change, and a crash between
the two is told from an object that somebody deleted by whether its pods ever ran. The next attempt begins only when no
pod of the one before can still write to its checkpoints.
"""

from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.meta import ROLE_ROLLOUT, ROLE_TRAINER
from anneal_api.status import Attempt
from anneal_operator import attempts as policy
from anneal_operator import engine
from anneal_operator.draft import Draft
from anneal_operator.kinds import format_time, is_deleting, name_of
from anneal_operator.steps.common import lingering, names, off_for_good, out_of_time, upcoming
from anneal_operator.steps.fit import fitted
from anneal_operator.steps.follow import follow
from anneal_operator.world import Doomed

RUNNING = ConditionType.RUNNING


def train(draft: Draft) -> bool:
    """True once the job has ended, well or not."""
    if draft.attempts and draft.attempts[-1].end_time is None:
        if not follow(draft):
            return False
        # What was decided about the quota before this end is decided again.
        draft.wake_at(draft.world.now)
    if draft.attempts and draft.attempts[-1].outcome is Outcome.SUCCEEDED:
        return _succeeded(draft)
    return _between(draft)


def _succeeded(draft: Draft) -> bool:
    message = draft.attempts[-1].message or "training is complete"
    draft.set(ConditionType.SUCCEEDED, "True", Reason.COMPLETED, message)
    draft.set(RUNNING, "False", Reason.ENDED, message)
    draft.tell("Succeeded", message)
    return True


def _failed(draft: Draft, over: policy.Over) -> bool:
    draft.set(ConditionType.FAILED, "True", over.reason, over.message)
    draft.set(RUNNING, "False", Reason.ENDED, over.message)
    draft.tell("Failed", over.message, warning=True)
    return True


def _between(draft: Draft) -> bool:
    """No attempt is under way: whether, when and how the next one begins."""
    again = upcoming(draft)
    if isinstance(again, policy.Over):
        return _failed(draft, again)
    if draft.plan.spec.run_policy.suspend:
        _suspended(draft)
    elif out_of_time(draft):
        seconds = draft.plan.spec.run_policy.active_deadline_seconds
        return _failed(draft, policy.Over(Reason.DEADLINE_EXCEEDED, policy.deadline_message(seconds)))
    elif draft.attempts and draft.attempts[-1].outcome is Outcome.PREPARED_DATA_STALE and _needs_data(draft):
        draft.set(RUNNING, "False", Reason.RETRYING, "the data is prepared again first")
        draft.wake_at(draft.world.now)
    else:
        _begin(draft, again)
    return False


def _needs_data(draft: Draft) -> bool:
    """The attempt ended in this very pass, after prepare had its turn."""
    dataset, ended = draft.value("dataset"), draft.attempts[-1].end_time
    return dataset is None or dataset.prepared_time is None or dataset.prepared_time < (ended or "")


def _suspended(draft: Draft) -> None:
    for obj in draft.world.children.pytorch_jobs:
        if not is_deleting(obj):
            draft.delete.append(Doomed(engine.KIND, obj))
    left = lingering(draft, ROLE_TRAINER, ROLE_ROLLOUT)
    if left:
        draft.set(RUNNING, "False", Reason.SUSPENDING, f"waiting for {names(left)} to end{off_for_good(left)}")
        return
    step = draft.attempts[-1].last_step if draft.attempts else None
    after = f" at step {step}" if step else " before training began"
    message = f"suspended{after}; set runPolicy.suspend to false to go on"
    if draft.reason(RUNNING) != Reason.SUSPENDED:
        draft.tell("Suspended", message)
    draft.set(RUNNING, "False", Reason.SUSPENDED, message)


def _begin(draft: Draft, again: policy.Again | None) -> None:
    """Record the next attempt, once nothing of the last one is in its way."""
    number = draft.attempts[-1].number + 1 if draft.attempts else 1
    reason = Reason.RETRYING if again else Reason.STARTING
    because = f"attempt {number - 1} ended: {again.why}; " if again else ""
    if left := lingering(draft, ROLE_TRAINER):
        first = f"{names(left)} has ended{off_for_good(left)}"
        draft.set(RUNNING, "False", reason, f"{because}attempt {number} begins when {first}")
        return
    if again and draft.world.now < again.after:
        at = format_time(again.after)
        draft.set(RUNNING, "False", reason, f"{because}attempt {number} begins at {at}")
        draft.wake_at(again.after)
        return
    if not draft.may_start:
        draft.set(RUNNING, "False", Reason.QUEUED, f"{because}attempt {number} begins when the queue admits the job")
        return
    if not draft.served:
        servers = draft.message(ConditionType.ROLLOUT_READY)
        draft.set(RUNNING, "False", reason, f"{because}attempt {number} begins when the servers are ready: {servers}")
        return
    for obj in draft.world.children.pytorch_jobs:
        if name_of(obj) != draft.plan.attempt_name(number) and not is_deleting(obj):
            draft.delete.append(Doomed(engine.KIND, obj))
    if draft.delete or any(is_deleting(obj) for obj in draft.world.children.pytorch_jobs):
        draft.set(RUNNING, "False", reason, f"{because}attempt {number} begins")
        if draft.delete:  # which shows in the store at once
            draft.wake_at(draft.world.now)
        return
    draft.attempts.append(fitted(draft, Attempt(number=number, start_time=draft.now)))
    draft.set(RUNNING, "False", reason, f"{because}attempt {number} begins")
    draft.own(pytorch_job=draft.plan.attempt_name(number))
    draft.tell("AttemptStarted", f"attempt {number} of training begins")
    # The object is made by the next pass, when the record is safe.
    draft.wake_at(draft.world.now)
