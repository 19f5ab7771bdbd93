"""Follow the attempt that is under way: make its object, see it run, and record how it ends.

Not here: what comes after an end (`train`, `attempts`), and giving back what only a part of its pods hold (`regroup`).
"""

from datetime import timedelta

from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.progress import ProgressReport, TerminationMessage
from anneal_api.status import Attempt, Progress
from anneal_api.words import counted
from anneal_operator import attempts as policy
from anneal_operator import engine, progress, waiting
from anneal_operator.draft import Draft
from anneal_operator.kinds import Obj, format_time, parse_time, uid_of
from anneal_operator.steps import regroup
from anneal_operator.steps.common import explain, gpu_hours, off_for_good, pods_may_be_late, surroundings
from anneal_operator.steps.fit import fitted
from anneal_operator.steps.scene import Scene, in_order, scene
from anneal_operator.world import Doomed

RUNNING = ConditionType.RUNNING
# How long the engine may take to stop the other pods of a failed attempt before its object is deleted.
SURVIVORS_MAY_STAY = timedelta(seconds=60)
SILENCE_IS_NORMAL = timedelta(seconds=120)


def follow(draft: Draft) -> bool:
    """Bring the current attempt up to date; True once it has ended."""
    attempt = draft.attempts[-1]
    now = scene(draft, attempt)
    attempt = _observed(draft, regroup.reconsidered(draft, attempt, now), now)
    stop = _wanted_stop(draft, attempt)
    attempt = policy.note(attempt, _evidence(draft, attempt, now, stop))
    draft.attempts[-1] = attempt
    draft.own(pytorch_job=draft.plan.attempt_name(attempt.number))
    if _is_over(attempt, now, stop):
        _end(draft, attempt, now)
        return True
    if stop or attempt.outcome:
        _ending(draft, attempt, now, stop)
    elif attempt.retry_time:
        regroup.regroup(draft, attempt, now)
    elif not now.engine.exists:
        _make(draft, attempt)
    elif not regroup.give_back_in_time(draft, attempt, now):
        _say(draft, attempt, now)
        regroup.warn(draft, attempt, now)
    return False


def _observed(draft: Draft, attempt: Attempt, now: Scene) -> Attempt:
    """What is learnt while it runs: when its pods ran, where, and what rank 0 reports."""
    update: Obj = {}
    started = [pod.started for pod in now.pods if pod.started]
    if attempt.running_time is None and not attempt.retry_time and len(started) >= now.nodes:
        update["running_time"] = format_time(max(started))
    zero = now.rank_zero
    if zero and zero.node:
        update["node"] = zero.node
    report = draft.world.report
    if report and report.report and report.report.attempt == attempt.number and report.report.role == "trainer":
        said = report.report
        _warn(draft, said)
        draft.fields["progress"] = progress.from_report(said, fallback=draft.value("progress"))
        draft.fields["device"] = said.device or draft.value("device")
        draft.fields["memory"] = progress.memory(said.peak_memory_bytes, known=draft.value("memory"))
        draft.fields["gpu_hours"] = gpu_hours(draft, [*draft.attempts[:-1], attempt.model_copy(update=update)])
        update |= {"last_step": said.step} if said.step else {}
        update |= {"resumed_from_step": said.resumed_from_step} if said.resumed_from_step is not None else {}
        update |= {"micro_batch_size": said.micro_batch_size} if said.micro_batch_size else {}
    return attempt.model_copy(update=update)


def _warn(draft: Draft, said: ProgressReport) -> None:
    """Once, when a warning comes."""
    known = draft.value("progress")
    if said.warning and not (known and known.warning):
        draft.tell("NothingLearnt", said.warning, warning=True)


def _wanted_stop(draft: Draft, attempt: Attempt) -> policy.Evidence | None:
    """Whether the operator itself ends this attempt."""
    run_policy = draft.plan.spec.run_policy
    if run_policy.suspend:
        return policy.Evidence(Outcome.SUSPENDED, "Suspended", "runPolicy.suspend is true")
    if draft.eviction:
        return draft.eviction
    limit = run_policy.active_deadline_seconds
    if limit is None or attempt.running_time is None:
        return None
    left = limit - policy.running_seconds([*draft.attempts[:-1], attempt], draft.world.now)
    if left > 0:
        draft.wake_at(draft.world.now + timedelta(seconds=left))
        return None
    return policy.Evidence(Outcome.DEADLINE_EXCEEDED, "DeadlineExceeded", policy.deadline_message(limit))


def _evidence(draft: Draft, attempt: Attempt, now: Scene, stop: policy.Evidence | None) -> policy.Evidence | None:
    if _succeeded(draft, now):
        return policy.Evidence(Outcome.SUCCEEDED, "Completed", _success_message(now), 0)
    lost = None
    if now.engine.failed and not pods_may_be_late(draft, now.pods, now.engine.concluded):
        words = now.engine.message or "the PyTorchJob failed"
        lost = policy.Evidence(Outcome.INFRASTRUCTURE, "EngineFailed", words)
    elif attempt.running_time is not None:
        lost = _lost(draft, attempt, now)
    # Once a stop is under way, pods that end with it say nothing new, unless they name an error of their own.
    return regroup.telling(attempt, policy.strongest(now.pods, lost, stop))


def _succeeded(draft: Draft, now: Scene) -> bool:
    """All pods did their work. The engine may be ahead of the pods' watch, so its word alone waits for them."""
    done = [pod for pod in now.pods if pod.succeeded]
    if len(done) >= now.nodes:
        return True
    return now.engine.succeeded and not pods_may_be_late(draft, now.pods, now.engine.concluded)


def _success_message(now: Scene) -> str:
    words = _words(now)
    return (words.message if words else "") or "training is complete"


def _lost(draft: Draft, attempt: Attempt, now: Scene) -> policy.Evidence | None:
    """An attempt that ran and lost its object or a pod, by nobody's account."""
    begun = parse_time(attempt.running_time)
    assert begun is not None
    if not now.engine.exists or now.engine.deleting:
        name = draft.plan.attempt_name(attempt.number)
        return policy.Evidence(Outcome.INFRASTRUCTURE, "Deleted", f"PyTorchJob {name} was deleted while it ran")
    for pod in now.pods:
        replaced = not pod.gone and pod.created is not None and pod.created > begun
        if replaced or (pod.gone and not pod.succeeded) or (pod.deleting and not pod.disruption):
            return policy.Evidence(Outcome.INFRASTRUCTURE, "PodDeleted", f"pod {pod.name} was deleted while it ran")
    present = [pod for pod in now.pods if not pod.gone]
    if len(present) < now.nodes:
        message = f"{now.nodes - len(present)} of {counted(now.nodes, 'pod')} vanished while they ran"
        return policy.Evidence(Outcome.INFRASTRUCTURE, "PodDeleted", message)
    return None


def _is_over(attempt: Attempt, now: Scene, stop: policy.Evidence | None) -> bool:
    """Whether nothing of it can run any more."""
    if now.alive:
        return False
    if attempt.outcome is Outcome.SUCCEEDED:
        return True
    if stop:
        # While the object exists, its controller could still make a pod.
        return not now.engine.exists
    return attempt.outcome is not None and not _can_make_pods(now)


def _can_make_pods(now: Scene) -> bool:
    """An object that has not been told to stop, and whose pods are gone, gets new ones from its controller."""
    return now.engine.exists and not now.engine.failed and not any(pod.failed and not pod.gone for pod in now.pods)


def _end(draft: Draft, attempt: Attempt, now: Scene) -> None:
    words = _words(now)
    ended = [pod.ended.time for pod in now.pods if pod.ended and pod.ended.time]
    end = format_time(max(ended)) if ended else draft.now
    update: Obj = {"end_time": max(end, attempt.start_time), "retry_time": None}
    if attempt.running_time is None and (started := [pod.started for pod in now.pods if pod.started]):
        update["running_time"] = format_time(min(started))
    if words:
        draft.fields["progress"] = progress.at_end(words, fallback=draft.value("progress"))
        draft.fields["device"] = words.device or draft.value("device")
        draft.fields["memory"] = progress.memory(words.peak_memory_bytes, known=draft.value("memory"))
        if attempt.outcome is Outcome.SUCCEEDED:
            draft.fields["outputs"] = words.outputs
        update |= _from_words(draft, words)
    else:
        draft.fields["progress"] = _stopped(draft.value("progress"))
    attempt = attempt.model_copy(update=update)
    draft.attempts[-1] = attempt
    draft.fields["gpu_hours"] = gpu_hours(draft, draft.attempts)
    if attempt.outcome not in {Outcome.SUCCEEDED, Outcome.SUSPENDED}:
        draft.tell(
            "AttemptEnded", f"attempt {attempt.number} ended ({attempt.outcome}): {attempt.message}", warning=True
        )


def _words(now: Scene) -> TerminationMessage | None:
    """The last words of rank 0, else of any pod."""
    spoken = [pod for pod in now.pods if pod.ended and pod.ended.words]
    first = min(spoken, key=in_order) if spoken else None
    return first.ended.words if first and first.ended else None


def _from_words(draft: Draft, words: TerminationMessage) -> Obj:
    update: Obj = {}
    if words.step is not None:
        update["last_step"] = words.step
    if words.resumed_from_step is not None:
        update["resumed_from_step"] = words.resumed_from_step
    if words.log:
        update["log"] = words.log if "://" in words.log else f"volume://{draft.plan.claim}/{words.log.lstrip('/')}"
    return update


def _stopped(old: Progress | None) -> Progress | None:
    return old.model_copy(update={"phase": None, "eta_seconds": None, "eta": None}) if old else None


def _ending(draft: Draft, attempt: Attempt, now: Scene, stop: policy.Evidence | None) -> None:
    """It is to end, or has failed: see to it that what is left of it goes."""
    doomed = stop is not None or _survivors_stay(draft, now) or _can_make_pods(now)
    # A success only has to settle; its object and pods stay, for their logs.
    if doomed and attempt.outcome is not Outcome.SUCCEEDED and now.obj is not None and not now.engine.deleting:
        draft.delete.append(Doomed(engine.KIND, now.obj))
        draft.wake_at(draft.world.now)
    what = f"waiting for {_left(now)}"
    reason = Reason.SUSPENDING if attempt.outcome is Outcome.SUSPENDED else Reason.ENDED
    verb = "stopping" if stop else "ending"
    why = attempt.message or ""
    draft.set(RUNNING, "True" if now.alive else "False", reason, f"attempt {attempt.number} is {verb} ({why}): {what}")


def _left(now: Scene) -> str:
    """What has to go first."""
    names = ", ".join(pod.name for pod in now.alive) or "its object to be deleted"
    return f"{names}{off_for_good(now.alive)}"


def _survivors_stay(draft: Draft, now: Scene) -> bool:
    """Whether pods run on long after another one failed: the engine should have stopped them."""
    ends = [pod.ended.time for pod in now.pods if pod.failed and pod.ended and pod.ended.time]
    if not ends or not now.alive:
        return False
    limit = min(ends) + SURVIVORS_MAY_STAY
    if draft.world.now < limit:
        draft.wake_at(limit)
        return False
    return True


def _make(draft: Draft, attempt: Attempt) -> None:
    """Make the attempt's object: it never existed, or was deleted before its pods ran."""
    if not draft.may_start:
        words = f"attempt {attempt.number} begins when the queue admits the job"
        draft.set(RUNNING, "False", Reason.QUEUED, words)
        return
    if not draft.served:
        words = f"attempt {attempt.number} begins when the servers are ready"
        draft.set(RUNNING, "False", Reason.STARTING, f"{words}: {draft.message(ConditionType.ROLLOUT_READY)}")
        return
    if draft.placement.nodes is not None and (again := fitted(draft, attempt)) != attempt:
        # Admitted anew since it was recorded, elsewhere or with another number of nodes.
        draft.attempts[-1] = again
        draft.wake_at(draft.world.now)
        return
    surroundings(draft, engine.build(draft.plan, attempt, draft.placement))
    if refusal := next(iter(draft.world.refusals.values()), None):
        explain(draft, RUNNING, waiting.Waiting(refusal.reason, refusal.message))
    else:
        draft.set(RUNNING, "False", Reason.STARTING, f"attempt {attempt.number} is being started")


def _say(draft: Draft, attempt: Attempt, now: Scene) -> None:
    """Running, or why not yet."""
    waits = [pod for pod in now.pods if not pod.running and not pod.ended]
    # What the scheduler says comes before a pod that has a place and only starts.
    stuck = min(waits, key=lambda pod: pod.node is not None, default=None)
    if len(now.pods) < now.nodes and stuck is None:
        assert now.obj is not None
        name = draft.plan.attempt_name(attempt.number)
        warning = draft.world.warnings.get(uid_of(now.obj), "")
        explain(draft, RUNNING, waiting.no_pod("PyTorchJob", name, warning=warning), now.obj)
        return
    if stuck is not None:
        warning = draft.world.warnings.get(stuck.uid, "")
        explain(draft, RUNNING, waiting.waiting_for(stuck, warning=warning), stuck.raw)
        return
    report = draft.world.report
    if report and report.error and _should_answer(draft, now):
        unknown = f"pod {report.pod} runs, but its progress cannot be read: {report.error}"
        draft.set(RUNNING, "True", Reason.PROGRESS_UNKNOWN, unknown)
        return
    if not draft.is_true(RUNNING):
        # The queue is told by the next pass.
        draft.wake_at(draft.world.now)
    known = draft.value("progress")
    warns = f"; {known.warning}" if known and known.warning else ""
    draft.set(RUNNING, "True", Reason.TRAINING, f"attempt {attempt.number} runs{warns}")


def _should_answer(draft: Draft, now: Scene) -> bool:
    """Whether rank 0 has had the time to load its libraries and serve its progress."""
    zero = now.rank_zero
    return zero is not None and zero.started is not None and draft.world.now - zero.started > SILENCE_IS_NORMAL
