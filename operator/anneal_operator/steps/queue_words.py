"""What a job that queues says of its queue: where it stands, what is short, who is before it, what would help. Pure.

Kueue's own words are kept where they say what is short; what only programs need is taken out of them. Not here: which
of it is so (`steps.admit`).
"""

from itertools import islice

from anneal_api.status import QueueReport
from anneal_api.words import counted
from anneal_operator import kueue
from anneal_operator.draft import Draft
from anneal_operator.kinds import format_time, name_of
from anneal_operator.kueue import WorkloadView

_NAMES_SHOWN = 3
# As many as the schema of status lets in.
_FLAVORS_SHOWN, _AHEAD_SHOWN = 16, 8


def report(workload: WorkloadView) -> QueueReport:
    """Where the job stands, without its place."""
    return QueueReport(
        name=workload.queue,
        cluster_queue=workload.cluster_queue,
        quota_reserved=workload.reserved,
        since=format_time(workload.since) if workload.since else None,
        flavors=_flavors(workload, kueue.PODSET),
        rollout_flavors=_flavors(workload, kueue.ROLLOUT_PODSET),
    )


def _flavors(workload: WorkloadView, podset: str) -> dict[str, str]:
    return dict(islice(kueue.assigned_flavors(workload.obj, podset).items(), _FLAVORS_SHOWN))


def where(draft: Draft) -> str:
    """The flavors of an admitted job; those of its servers only where they are others."""
    both = [dict.fromkeys(each.flavors.values()) for each in (draft.placement, draft.rollout_placement)]
    trainer, servers = (", ".join(each) for each in both)
    apart = f", servers in flavor {servers}" if servers and servers != trainer else ""
    return (f", flavor {trainer}" if trainer else "") + apart


def places(draft: Draft, workload: WorkloadView) -> dict[str, object]:
    """Its place, and who is before it."""
    queue = draft.world.queue
    pending = sorted(queue.pending, key=lambda each: each.place) if queue and queue.pending is not None else []
    mine = next((each for each in pending if each.name == workload.name), None)
    if mine is None:
        return {}
    ahead = [draft.world.workload_names.get(each.name, each.name) for each in pending if each.place < mine.place]
    return {"position": mine.place_in_cluster_queue + 1, "ahead": ahead[:_AHEAD_SHOWN]}


def waiting(draft: Draft, workload: WorkloadView, stands: QueueReport) -> str:
    """For what it waits, since when, behind whom, and what would help."""
    since = f" since {stands.since}" if stands.since else ""
    words = f"waits in queue {workload.queue}{since}"
    if stands.position is not None:
        words += f", place {stands.position}"
        if stands.ahead:
            shown = ", ".join(stands.ahead[:_NAMES_SHOWN])
            more = stands.position - 1 - min(len(stands.ahead), _NAMES_SHOWN)
            words += f" behind {shown}" + (f" and {more} more" if more > 0 else "")
        elif stands.position > 1:
            words += f" behind {counted(stands.position - 1, 'job')} of other queues"
    first = (stands.position or 1) == 1
    why = workload.waits or ("Kueue has not looked at it yet" if first else "its turn has not come")
    after = preemptor(draft, workload.evicted[1]) if workload.evicted else ""
    return f"{words}: {_needs(draft)}{why}{after or _holders(draft, first=first)}{_hint(draft, why)}"


def _needs(draft: Draft) -> str:
    """Of a job with servers, what both sides ask for: Kueue's words are of one of them."""
    if draft.plan.rollout is None:
        return ""
    pods = f"{counted(draft.plan.nodes, 'training pod')} + {counted(draft.plan.rollout.servers, 'server')}"
    gpus = f" with {draft.plan.gpus_text} GPUs" if draft.plan.gpus or draft.plan.rollout_gpus else ""
    return f"needs {pods}{gpus}, admitted together: "


def _holders(draft: Draft, *, first: bool) -> str:
    """For the one that is next: the jobs of this namespace that have quota of the same ClusterQueue."""
    facts = draft.world.queue
    behind = name_of(facts.cluster_queue) if facts and facts.cluster_queue else ""
    names = [other.name for other in draft.world.neighbours if behind and other.quota_of == behind]
    if not first or not names:
        return ""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"; quota is with {', '.join(sorted(names)[:_NAMES_SHOWN])}{more}"


def _hint(draft: Draft, why: str) -> str:
    """What helps where waiting does not."""
    if "maximum capacity" in why:
        fewer = "fewer nodes or GPUs" if draft.plan.nodes > 1 or draft.plan.gpus > 1 else "less"
        if draft.plan.rollout:
            fewer = "fewer nodes, GPUs or rollout.replicas"
        return f"; the queue never has that much: ask for {fewer}, or have its quota raised"
    if "unavailable in ClusterQueue" in why:
        return "; have the resource added to the ClusterQueue, or excluded in Kueue's configuration"
    return _stopped(draft) if "is inactive" in why else ""


def _stopped(draft: Draft) -> str:
    """Why a queue admits nothing, whoever is next in it."""
    facts = draft.world.queue
    for kind, obj in (("LocalQueue", facts and facts.local_queue), ("ClusterQueue", facts and facts.cluster_queue)):
        policy = ((obj or {}).get("spec") or {}).get("stopPolicy", "None")
        if policy != "None":
            return f": stopPolicy of the {kind} is {policy}; it admits nothing until that is None"
    conditions = (((facts and facts.cluster_queue) or {}).get("status") or {}).get("conditions") or []
    why = next((each.get("message") for each in conditions if each.get("type") == "Active"), "")
    return f": {why}" if why else ""


def deactivated(workload: WorkloadView, reason: str, message: str) -> str:
    """Who has taken it out of the queue, and how it comes back."""
    remedy = "set it to true and the job queues again"
    if reason.startswith(kueue.BY_KUEUE):
        why = kueue.plain(message) or reason
        return f"Kueue has deactivated Workload {workload.name}: {why}; mend that, then its spec.active: {remedy}"
    return f"spec.active of Workload {workload.name} is false: {remedy}"


def preemptor(draft: Draft, message: str) -> str:
    """Who has the quota now, if it is a job of this namespace: Kueue's message has its UID."""
    name = next((other.name for other in draft.world.neighbours if other.uid in message), None)
    return f"; preempted by job {name}" if name else ""
