"""Rollout: the servers that draw answers, beside the trainer. Owns `RolloutReady` and `status.rollout`.

They are made when an attempt is to begin, and the attempt's object only when all of them serve. While it trains, a
server that is lost is made again by its controller, and the trainer waits for it. They stay between attempts that
follow each other soon, and go as soon as nothing is to be trained: at the end, in suspension, when the quota is to be
given back. Not here: what a server is like (`manifests.rollout`), and how a pod looks (`servers`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.meta import ROLE_TRAINER
from anneal_api.status import Attempt, RolloutReport
from anneal_api.words import counted
from anneal_operator import attempts as policy
from anneal_operator import engine
from anneal_operator.draft import Draft
from anneal_operator.kinds import (
    DEPLOYMENT,
    Obj,
    format_time,
    is_deleting,
    meta,
    name_of,
    parse_time,
    true_condition,
    uid_of,
)
from anneal_operator.manifests import rollout as manifest
from anneal_operator.servers import Server, hopeless, late, servers, turned_away, why_not
from anneal_operator.steps import unplaced
from anneal_operator.steps.common import (
    explain,
    gpu_hours,
    lingering,
    names,
    off_for_good,
    out_of_time,
    server_hours,
    surroundings,
    upcoming,
)
from anneal_operator.steps.fit import fitted
from anneal_operator.waiting import Waiting
from anneal_operator.world import Doomed

READY = ConditionType.ROLLOUT_READY
# How long after its grace period a trainer's pod may still end.
OVERDUE = timedelta(seconds=60)


def rollout(draft: Draft) -> bool:
    """Have the servers that the next attempt needs, or none; False once they cannot start, which ends the job."""
    if draft.plan.servers is None:
        take_down(draft, "answers are drawn without servers")
        draft.fields["rollout"] = _without_servers(draft)
        draft.conditions.pop(READY, None)
        return True
    if again := unplaced.made_again_at(draft):
        take_down(draft, "not all of them found a place")
        draft.served = False
        unplaced.stay_away(draft, again)
        return True
    match _wanted(draft):
        case "none":
            take_down(draft, "no attempt is to begin")
            draft.served = False
            if READY not in draft.conditions:
                draft.set(READY, "False", Reason.NOT_STARTED)
        case "some":
            _report(draft)
            return _serve(draft)
    return True


def _without_servers(draft: Draft) -> RolloutReport | None:
    """How the job draws answers, if it draws any."""
    spec = draft.plan.spec
    found = getattr(spec, "rollout", None)
    return RolloutReport(mode=found.mode, weight_sync=found.weight_sync) if found and found.mode != "generate" else None


def _wanted(draft: Draft) -> Literal["some", "none", "same"]:
    """Whether servers are needed; `same`: an attempt is ending, after which that is decided."""
    attempt = draft.attempts[-1] if draft.attempts else None
    if attempt is None or attempt.end_time is not None:
        return "some" if _is_to_begin(draft) else "none"
    if attempt.outcome is Outcome.SUCCEEDED:
        return "none"
    leaving = draft.plan.spec.run_policy.suspend or draft.eviction or attempt.retry_time or not draft.may_start
    if leaving and not _training(draft):
        return "none"
    if leaving or attempt.outcome:
        # The trainer may need them for the step that it ends with.
        return "none" if _is_overdue(draft) else "same"
    return "some"


def _is_to_begin(draft: Draft) -> bool:
    if draft.plan.spec.run_policy.suspend or draft.pause or not draft.may_start or out_of_time(draft):
        return False
    return not isinstance(upcoming(draft), policy.Over)


def _training(draft: Draft) -> bool:
    """Whether the attempt's object or a pod of it is there."""
    number = draft.attempts[-1].number if draft.attempts else 0
    made = engine.find(draft.world.children.pytorch_jobs, draft.plan.attempt_name(number))
    open_now = bool(draft.attempts) and draft.attempts[-1].end_time is None
    return (open_now and made is not None) or bool(lingering(draft, ROLE_TRAINER))


def _is_overdue(draft: Draft) -> bool:
    """Whether all that is left of the trainer should have ended long ago: on a node that is off nothing ever does."""
    left = lingering(draft, ROLE_TRAINER)
    # The time by which it is to have ended, its grace period over.
    times = [parse_time(meta(pod.raw).get("deletionTimestamp")) for pod in left]
    if not times or None in times:
        return False
    limit = max(filter(None, times)) + OVERDUE
    if draft.world.now < limit:
        draft.wake_at(limit)
        return False
    return True


def _deployment(draft: Draft) -> Obj | None:
    found = draft.world.children.deployments
    return next((obj for obj in found if name_of(obj) == draft.plan.rollout_name), None)


def _report(draft: Draft) -> None:
    """What there is of them."""
    spec = draft.plan.servers
    assert spec is not None, "checked by rollout"
    assert spec.rollout is not None, "resolve() fills it"
    old, made, wanted = draft.value("rollout"), _deployment(draft), spec.rollout
    found = _present(draft, made)
    ready = sum(each.ready for each in found)
    since = min((format_time(each.pod.started) for each in found if each.pod.started), default=None)
    if since and old and old.since:
        since = old.since
    draft.fields["rollout"] = RolloutReport(
        mode=wanted.mode,
        weight_sync=wanted.weight_sync,
        image=manifest.image(draft.plan),
        replicas=wanted.servers,
        ready=ready,
        ready_text=f"{ready}/{wanted.servers}",
        restarts=sum(each.restarts for each in found),
        pool=draft.plan.rollout_choice.name,
        gpus=wanted.servers * (wanted.gpus or 0),
        since=since,
        ready_time=_ready_time(draft, old, made, all_ready=ready >= wanted.servers),
        # What those had of which none is left is counted for good.
        gpu_hours=(old.gpu_hours if since else _hours(draft, old)) if old else None,
        unplaced=old.unplaced if old else None,
    )
    draft.own(rollout=draft.plan.rollout_name)


def _hours(draft: Draft, report: RolloutReport) -> float | None:
    """GPUs x hours until now."""
    return round(server_hours(report, draft.world.now), 4) or None


def _ready_time(draft: Draft, old: RolloutReport | None, made: Obj | None, *, all_ready: bool) -> str | None:
    """When all that this Deployment makes were ready for the first time."""
    created = str(meta(made).get("creationTimestamp", "")) if made else ""
    if old and old.ready_time and made and old.ready_time >= created:
        return old.ready_time
    return draft.now if all_ready else None


def _present(draft: Draft, made: Obj | None) -> list[Server]:
    """Those of this Deployment."""
    return [each for each in servers(draft.world.children.pods) if made and each.made_of == manifest.made_of(made)]


def _serve(draft: Draft) -> bool:
    """Make them, or make them again where the next attempt needs others, and say how they are."""
    wanted = manifest.build(draft.plan, draft.rollout_placement, attempt=_number(draft))
    made, training = _deployment(draft), _training(draft)
    if made is None or is_deleting(made):
        _make(draft, wanted)
    elif not training and _are_outdated(draft, made, wanted):
        draft.delete.append(Doomed(DEPLOYMENT, made))
        draft.wake_at(draft.world.now)
        _starting(
            draft, Waiting(Reason.ROLLOUT_STARTING, "the servers are made anew, as the next attempt needs others")
        )
    else:
        return _say(draft, made, training=training)
    return True


def _are_outdated(draft: Draft, made: Obj, wanted: Obj) -> bool:
    """Whether others are needed: these are not as the next attempt's must be, were scaled, or could not start."""
    scaled = made["spec"]["replicas"] != wanted["spec"]["replicas"]
    return scaled or manifest.made_of(made) != manifest.made_of(wanted) or draft.reason(READY) == Reason.ROLLOUT_FAILED


def _number(draft: Draft) -> int:
    """Of the attempt that is under way, or is to begin."""
    last = draft.attempts[-1] if draft.attempts else None
    if last is None:
        return 1
    return last.number + (1 if last.end_time else 0)


def _make(draft: Draft, wanted: Obj) -> None:
    if left := servers(draft.world.children.pods):
        ending = [each.pod for each in left]
        words = f"the servers are made when {names(ending)} has ended{off_for_good(ending)}"
        _starting(draft, Waiting(Reason.ROLLOUT_STARTING, words))
        return
    surroundings(draft, manifest.service(draft.plan), wanted)
    if refusal := next(iter(draft.world.refusals.values()), None):
        _starting(draft, Waiting(refusal.reason, refusal.message))
    else:
        _starting(draft, Waiting(Reason.ROLLOUT_STARTING, "the servers are being made"))


def _starting(draft: Draft, waits: Waiting, *about: Obj) -> None:
    draft.served = False
    explain(draft, READY, waits, *about)


def _say(draft: Draft, made: Obj, *, training: bool) -> bool:
    """Serving, or why not; False if they never will."""
    report: RolloutReport = draft.fields["rollout"]
    found, wanted = _present(draft, made), report.replicas or 1
    ready = [each for each in found if each.ready]
    if len(ready) >= wanted:
        if training or _named(draft):
            _serving(draft, wanted)
        return True
    if not training and (why := _never(draft, report, made, found)):
        return _failed(draft, why)
    waits, about = _why(draft, made, found)
    be = "is" if wanted == 1 else "are"
    told = f"{len(ready)} of {counted(wanted, 'server')} {be} ready; {waits.message}"
    if not training:
        _starting(draft, Waiting(waits.reason, told, waits.puzzling), about)
        unplaced.give_back_in_time(draft, report, found, wanted)
        return True
    if draft.reason(READY) != Reason.ROLLOUT_DEGRADED:
        draft.tell(Reason.ROLLOUT_DEGRADED, told, warning=True)
    explain(draft, READY, Waiting(Reason.ROLLOUT_DEGRADED, told, waits.puzzling), about)
    return True


def _named(draft: Draft) -> bool:
    """The trainer finds them by their Service, and nothing else tells that somebody removed it."""
    if refusal := draft.world.refusals.get(draft.plan.rollout_name):
        _starting(draft, Waiting(refusal.reason, refusal.message))
        return False
    draft.apply.append(manifest.service(draft.plan))
    draft.verify.add(draft.plan.rollout_name)
    return True


def _serving(draft: Draft, wanted: int) -> None:
    verb = "serves" if wanted == 1 else "serve"
    message = f"{counted(wanted, 'server')} {verb}"
    if draft.reason(READY) != Reason.ROLLOUT_SERVING:
        draft.tell(Reason.ROLLOUT_SERVING, message)
        # The queue is told by the next pass.
        draft.wake_at(draft.world.now)
    draft.set(READY, "True", Reason.ROLLOUT_SERVING, message)


def _why(draft: Draft, made: Obj, found: Sequence[Server]) -> tuple[Waiting, Obj]:
    """What is told of those that do not serve: what the scheduler says comes before one that has a place."""
    waits = [each for each in found if not each.ready]
    if waits:
        stuck = min(waits, key=lambda each: (each.pod.node is not None, -each.ends))
        return why_not(stuck, warning=draft.world.warnings.get(stuck.pod.uid, "")), stuck.pod.raw
    if refused := true_condition(made, "ReplicaFailure"):
        words = f"Deployment {name_of(made)} cannot make its pods: {refused.get('message', '')}"
        return Waiting(Reason.POD_REJECTED, words), made
    has, asked = made["spec"]["replicas"], draft.value("rollout").replicas
    if has < asked:
        words = (
            f"Deployment {name_of(made)} was scaled to {has}: scale it to {asked}, or it is made anew after the attempt"
        )
        return Waiting(Reason.ROLLOUT_STARTING, words), made
    warning = draft.world.warnings.get(uid_of(made), "")
    words = f"Deployment {name_of(made)} has no pod yet" + (f": {warning}" if warning else "")
    return Waiting(Reason.ROLLOUT_STARTING, words, puzzling=True), made


def _never(draft: Draft, report: RolloutReport, made: Obj, found: Sequence[Server]) -> str:
    """Why they will not serve; empty while they may."""
    pods, wanted = draft.world.children.pods, report.replicas or 1
    if report.ready_time is None and (why := hopeless(found) or turned_away(pods, made, wanted=wanted)):
        return why
    spec = draft.plan.servers
    assert spec is not None, "checked by rollout"
    assert spec.rollout is not None, "resolve() fills it"
    timeout = timedelta(seconds=spec.rollout.start_timeout_seconds)
    since = draft.world.now
    if READY in draft.conditions and not draft.is_true(READY):
        since = parse_time(draft.conditions[READY].last_transition_time) or since
    # Of those that served once it counts how long they have not.
    due, words = late(found, timeout, since=since if report.ready_time else None)
    if due is None or draft.world.now >= due:
        return words
    draft.wake_at(due)
    return ""


def _failed(draft: Draft, why: str) -> bool:
    """Before the first attempt the job has failed. Later, others have served as the spec is: it costs a retry."""
    draft.set(READY, "False", Reason.ROLLOUT_FAILED, why)
    draft.served = False
    if draft.attempts:
        _try_others(draft, why)
        return True
    draft.set(ConditionType.FAILED, "True", Reason.ROLLOUT_FAILED, why)
    draft.set(ConditionType.RUNNING, "False", Reason.ENDED, why)
    draft.tell("Failed", why, warning=True)
    # Taking them down is the next pass's, which knows the spec no more.
    draft.fields["gpu_hours"] = gpu_hours(draft, draft.attempts)
    draft.wake_at(draft.world.now)
    return False


def _try_others(draft: Draft, why: str) -> None:
    """An attempt has ended of which nothing was made, and the next one's servers are others: on another node, maybe."""
    # They are deleted by the next pass, when the record is safe.
    draft.wake_at(draft.world.now)
    if _were_lost(draft):
        return
    if draft.attempts[-1].end_time is not None:
        draft.attempts.append(fitted(draft, Attempt(number=_number(draft), start_time=draft.now)))
    ended = policy.note(
        draft.attempts[-1], policy.Evidence(Outcome.INFRASTRUCTURE, Reason.ROLLOUT_FAILED, why)
    ).model_copy(update={"end_time": draft.now})
    draft.attempts[-1] = ended
    draft.tell("AttemptEnded", f"attempt {ended.number} ended ({ended.outcome}): {why}", warning=True)


def _were_lost(draft: Draft) -> bool:
    """Whether they served and were lost under the last attempt, which has cost a retry already."""
    report, ended = draft.value("rollout"), draft.attempts[-1].end_time
    served = report is not None and report.ready_time is not None
    return served and ended is not None and draft.conditions[READY].last_transition_time <= ended


def _says_why(draft: Draft) -> bool:
    """Whether it is told already why there are no servers, or there never were any."""
    match draft.reason(READY):
        case "" | Reason.NOT_STARTED:
            return True
        case Reason.SCHEDULING_TIMEOUT:
            return unplaced.made_again_at(draft) is not None
        case Reason.ROLLOUT_FAILED:
            return draft.is_true(ConditionType.FAILED)
    return False


def take_down(draft: Draft, why: str) -> None:
    """Have no servers: of a job of any state, also of one whose spec is wrong."""
    doomed = [obj for obj in draft.world.children.deployments if not is_deleting(obj)]
    draft.delete += [Doomed(DEPLOYMENT, obj) for obj in doomed]
    if doomed:
        draft.wake_at(draft.world.now)
    if not _says_why(draft):
        draft.set(READY, "False", Reason.ROLLOUT_STOPPED, f"there are no servers: {why}")
    report = draft.value("rollout")
    if report is None or report.mode != "server":
        return
    stopped = {"ready": None, "ready_text": None, "since": None, "ready_time": None}
    draft.fields["rollout"] = report.model_copy(update=stopped | {"gpu_hours": _hours(draft, report)})
    if report.since and draft.has_plan:
        draft.fields["gpu_hours"] = gpu_hours(draft, draft.attempts)
