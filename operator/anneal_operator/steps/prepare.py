"""Prepare: the data is read, checked and tokenized on a CPU before any GPU is asked for. Owns `DataReady`.

One Job for each prepare key. Jobs of a namespace share what is prepared: one that finds its key ready, or being made by
another job, makes no pod of its own.
"""

from anneal_api import exitcodes
from anneal_api.conditions import ConditionType, Outcome, Reason
from anneal_api.datasetreport import DatasetReport
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.words import counted
from anneal_operator import waiting
from anneal_operator.draft import Draft
from anneal_operator.kinds import (
    JOB,
    Obj,
    format_time,
    is_deleting,
    meta,
    name_of,
    parse_time,
    true_condition,
    uid_of,
)
from anneal_operator.manifests import prepare as manifest
from anneal_operator.neighbours import Neighbour
from anneal_operator.pods import PodView, view
from anneal_operator.steps.common import explain, pods_may_be_late, surroundings
from anneal_operator.world import Doomed

DATA_READY = ConditionType.DATA_READY


def prepare(draft: Draft) -> bool:
    """True once the data is ready."""
    if draft.attempts and draft.attempts[-1].end_time is None:
        return True
    key = draft.plan.prepare_key
    if draft.old.prepare_key != key:
        draft.set(DATA_READY, "False", Reason.NOT_STARTED)
        draft.fields |= {"prepare_key": key, "dataset": None, "models": []}
    if _is_stale(draft):
        draft.set(DATA_READY, "False", Reason.PREPARED_DATA_STALE, draft.attempts[-1].message or "")
    if draft.is_true(DATA_READY):
        return True
    delete_outdated(draft)
    if draft.plan.spec.run_policy.suspend:
        return suspended(draft)
    resumed(draft)
    others = [] if _is_stale(draft) or _needs_own_pod(draft) else _same_data(draft)
    if ready := next((other for other in others if other.data_ready), None):
        _ready_by(draft, ready)
        return True
    # One that waits for something of its own (a Secret, say) is not waited for; nor by a job that has begun itself.
    busy = next((other for other in others if other.preparing), None)
    if busy and not draft.world.children.prepare_jobs:
        draft.own(prepare=None)
        draft.set(DATA_READY, "False", Reason.PREPARING, f"job {busy.name} prepares the same data")
        return False
    return _by_own_job(draft)


def _needs_own_pod(draft: Draft) -> bool:
    """Whether the pods name objects that only the kubelet can look up, or rewards that only they can open.

    What is missing or wrong there must not be found on a GPU. The data is found prepared all the same, so such a pod
    takes seconds.
    """
    spec = draft.plan.spec
    rewards = isinstance(spec, RLHFSpec) and spec.rewards
    return bool(spec.secrets or (spec.compute.pod and spec.compute.pod.volumes) or rewards)


def _is_stale(draft: Draft) -> bool:
    """Whether the last attempt found that the sources had changed since they were prepared."""
    if not draft.attempts or draft.attempts[-1].outcome is not Outcome.PREPARED_DATA_STALE:
        return False
    prepared = parse_time(draft.value("dataset").prepared_time) if draft.value("dataset") else None
    ended = parse_time(draft.attempts[-1].end_time)
    return prepared is None or ended is None or prepared < ended


def suspended(draft: Draft) -> bool:
    """A suspended job holds nothing: its prepare Job goes, and what it had done is done again."""
    draft.delete += [Doomed(JOB, job) for job in draft.world.children.prepare_jobs if not is_deleting(job)]
    draft.own(prepare=None)
    draft.set(DATA_READY, "False", Reason.SUSPENDED, "suspended before the data was prepared")
    draft.set(ConditionType.RUNNING, "False", Reason.SUSPENDED, "suspended; set runPolicy.suspend to false to go on")
    return False


def resumed(draft: Draft) -> None:
    """A job that is not suspended any more does not say that it is."""
    if draft.reason(ConditionType.RUNNING) == Reason.SUSPENDED:
        draft.set(ConditionType.RUNNING, "False", Reason.NOT_STARTED)


def _same_data(draft: Draft) -> list[Neighbour]:
    """Other jobs of the namespace that use the same prepared data."""
    mine = draft.plan
    return [each for each in draft.world.neighbours if each.uid != mine.uid and each.prepare_key == mine.prepare_key]


def _ready_by(draft: Draft, other: Neighbour) -> None:
    dataset = other.dataset or DatasetReport()
    draft.fields["dataset"] = dataset.model_copy(
        update={"prepared_by": dataset.prepared_by or other.name, "prepared_time": draft.now}
    )
    # Of one key are only jobs with the same models and heads, whatever their adapters.
    draft.fields["models"] = list(other.models)
    draft.set(DATA_READY, "True", Reason.PREPARED_BY_ANOTHER, f"prepared by job {other.name}")


def _by_own_job(draft: Draft) -> bool:
    """Follow the job's own prepare Job."""
    plan, world = draft.plan, draft.world
    draft.own(prepare=plan.prepare_name)
    job = next((each for each in world.children.prepare_jobs if name_of(each) == plan.prepare_name), None)
    if job is None:
        surroundings(draft, manifest.build(plan))
        _not_begun(draft)
        return False
    if is_deleting(job) or any(doomed.obj is job for doomed in draft.delete):
        draft.set(DATA_READY, "False", Reason.PREPARING, "an outdated prepare Job is being removed")
        return False
    pods = _pods(draft, job)
    over = true_condition(job, "Complete", "Failed")
    if over is None or pods_may_be_late(draft, pods, parse_time(over.get("lastTransitionTime"))):
        _in_progress(draft, job, pods)
        return False
    if over["type"] == "Complete":
        return _complete(draft, pods)
    _failed(draft, over, pods)
    return False


def _not_begun(draft: Draft) -> None:
    if refusal := next(iter(draft.world.refusals.values()), None):
        explain(draft, DATA_READY, waiting.Waiting(refusal.reason, refusal.message))
    else:
        draft.set(DATA_READY, "False", Reason.PREPARING, "the prepare pod is being made")


def _pods(draft: Draft, job: Obj) -> list[PodView]:
    """The pods of this very Job, oldest first."""
    children = draft.world.children
    alive = [view(pod) for pod in children.pods if _made_by(pod, job)]
    gone = [view(pod, gone=True) for pod in children.departed_pods if _made_by(pod, job)]
    return sorted(gone + alive, key=lambda pod: pod.created.timestamp() if pod.created else 0.0)


def _made_by(pod: Obj, job: Obj) -> bool:
    return any(owner.get("uid") == uid_of(job) for owner in meta(pod).get("ownerReferences") or [])


def _complete(draft: Draft, pods: list[PodView]) -> bool:
    """Take over what the pod said about the data and the models."""
    told = next((pod.ended.words for pod in reversed(pods) if pod.succeeded and pod.ended), None)
    dataset = (told.dataset if told else None) or DatasetReport()
    draft.fields["dataset"] = dataset.model_copy(update={"prepared_time": draft.now})
    draft.fields["models"] = told.models if told else []
    message = (told.message if told else "") or "the data is prepared"
    if dataset.warnings:
        first = dataset.warnings[0].message
        message += f"; {counted(len(dataset.warnings), 'warning')} in status.dataset.warnings, the first: {first}"
    draft.set(DATA_READY, "True", Reason.PREPARED, message)
    draft.tell("DataReady", message)
    for warning in dataset.warnings:
        draft.tell(warning.reason, warning.message, warning=True)
    return True


def _failed(draft: Draft, failed: Obj, pods: list[PodView]) -> None:
    """The Job gave up: the pod's own sentence is what a person needs."""
    last = next((pod for pod in reversed(pods) if pod.failed), None)
    ended = last.ended if last else None
    said = ended.words.message if ended and ended.words else ""
    if ended and ended.reason == "OOMKilled":
        limit = draft.plan.spec.compute.prepare.memory
        said = f"the prepare pod needs more memory than {limit}: raise spec.compute.prepare.memory"
    message = said or f"preparing the data failed: {failed.get('message', failed.get('reason', ''))}"
    users = ended is not None and exitcodes.is_user_error(ended.exit_code)
    draft.set(DATA_READY, "False", Reason.PREPARE_FAILED, message)
    draft.set(ConditionType.FAILED, "True", Reason.USER_ERROR if users else Reason.PREPARE_FAILED, message)
    draft.set(ConditionType.RUNNING, "False", Reason.NOT_STARTED)
    draft.fields["completion_time"] = draft.now
    draft.tell("PrepareFailed", message, warning=True)


def _in_progress(draft: Draft, job: Obj, pods: list[PodView]) -> None:
    current = next((pod for pod in reversed(pods) if pod.holds_resources), None)
    if current is None:
        if not pods:
            explain(draft, DATA_READY, waiting.no_pod("Job", name_of(job), warning=_warning(draft, job)), job)
        else:
            draft.set(DATA_READY, "False", Reason.PREPARING, _tried(pods))
        return
    if not current.running:
        explain(
            draft,
            DATA_READY,
            waiting.waiting_for(current, warning=draft.world.warnings.get(current.uid, "")),
            current.raw,
        )
        return
    report = draft.world.report
    rows = report.report.rows if report and report.report and report.report.role == "prepare" else None
    done = f": {counted(rows, 'row')} read" if rows else ""
    draft.set(DATA_READY, "False", Reason.PREPARING, f"pod {current.name} prepares the data{done}")


def _tried(pods: list[PodView]) -> str:
    """Between two pods: why the last one ended, and how many there may be."""
    ended = pods[-1].ended
    said = ended.words.message if ended and ended.words else ""
    why = f": {said.splitlines()[0]}" if said else ""
    return f"pod {pods[-1].name} has ended (try {len(pods)} of {manifest.TRIES}){why}"


def _warning(draft: Draft, obj: Obj) -> str:
    return draft.world.warnings.get(uid_of(obj), "")


def delete_outdated(draft: Draft) -> None:
    """Prepare Jobs of an earlier spec, and one that prepared what is stale now."""
    for job in draft.world.children.prepare_jobs:
        if not is_deleting(job) and _is_outdated(draft, job):
            draft.delete.append(Doomed(JOB, job))


def _is_outdated(draft: Draft, job: Obj) -> bool:
    if name_of(job) != draft.plan.prepare_name:
        return True
    if draft.reopened and true_condition(job, "Failed"):
        return True
    last = draft.attempts[-1] if draft.attempts else None
    if last is None or last.end_time is None or last.outcome is not Outcome.PREPARED_DATA_STALE:
        return False
    created = parse_time(meta(job).get("creationTimestamp"))
    return created is not None and format_time(created) < last.end_time
