"""The servers that draw answers, as the steps see them: which there are, whether they serve, and why they do not. Pure.

Not here: what follows from it (`steps.rollout`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from anneal_api.conditions import Reason
from anneal_api.meta import ROLE_ROLLOUT
from anneal_operator import waiting
from anneal_operator.gang import bound
from anneal_operator.kinds import Obj, meta, parse_time, true_condition
from anneal_operator.manifests.rollout import made_of
from anneal_operator.pods import EPOCH, PodView, view

# Ends of a container before its pod was ready for the first time: it would end again.
MOST_ENDS = 3
# Of a container's last words: the kubelet keeps as much of a log.
WORDS_LIMIT = 2048


@dataclass(frozen=True)
class Server:
    """One pod."""

    pod: PodView
    made_of: str

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return not self.pod.deleting and true_condition(self.pod.raw, "Ready") is not None

    @property
    def containers(self) -> list[Obj]:
        """What the kubelet says of its containers."""
        return (self.pod.raw.get("status") or {}).get("containerStatuses") or []

    @property
    def restarts(self) -> int:
        """How often its containers were started again."""
        return sum(int(each.get("restartCount", 0)) for each in self.containers)

    @property
    def ends(self) -> int:
        """How often the one of its containers ended that ended most often."""
        return max(map(_ends, self.containers), default=0)


def servers(pods: Iterable[Obj]) -> list[Server]:
    """Those that hold something."""
    found = [Server(view(pod), made_of(pod)) for pod in pods]
    return [each for each in found if each.pod.role == ROLE_ROLLOUT and each.pod.holds_resources]


def _ends(container: Obj) -> int:
    return int(container.get("restartCount", 0)) + (1 if _last(container) and not _running(container) else 0)


def _running(container: Obj) -> Obj:
    found: Obj = (container.get("state") or {}).get("running") or {}
    return found


def _last(container: Obj) -> Obj:
    """How it ended last, if it ever did."""
    now = (container.get("state") or {}).get("terminated")
    found: Obj = now or (container.get("lastState") or {}).get("terminated") or {}
    return found


def why_not(server: Server, *, warning: str = "") -> waiting.Waiting:
    """Why it does not serve."""
    ended = max(server.containers, key=_ends, default={})
    if _ends(ended):
        return waiting.Waiting(Reason.ROLLOUT_STARTING, _ending(server, ended))
    if server.pod.started:
        words = f"pod {server.pod.name} runs and does not answer yet: it loads the model"
        return waiting.Waiting(Reason.ROLLOUT_STARTING, words)
    found = waiting.waiting_for(server.pod, warning=warning)
    if found.reason is Reason.STARTING:
        return waiting.Waiting(Reason.ROLLOUT_STARTING, found.message, found.puzzling)
    return found


def _ending(server: Server, container: Obj) -> str:
    last, times = _last(container), _ends(container)
    often = "once" if times == 1 else f"{times} times"
    code = f"with code {last.get('exitCode')}" + (f" ({last['reason']})" if last.get("reason") else "")
    return f"container {container.get('name')} of pod {server.pod.name} ended {often}, last {code}{_words(last)}"


def _words(ended: Obj) -> str:
    said = str(ended.get("message", "")).strip()[-WORDS_LIMIT:]
    return f": {said}" if said else ""


def hopeless(servers: Sequence[Server]) -> str:
    """Why one that never served will never do; empty if none is so."""
    dead = next((each for each in servers if not each.ready and each.ends >= MOST_ENDS), None)
    if dead is None:
        return ""
    short = any(_last(each).get("reason") == "OOMKilled" for each in dead.containers)
    remedy = (
        "raise rollout.memory, or lower rollout.maxModelLen"
        if short
        else "correct rollout.image, rollout.extraArgs, rollout.maxModelLen or rollout.memoryUtilization as it says"
    )
    return f"a server cannot start: {why_not(dead).message}; {remedy}"


def turned_away(pods: Iterable[Obj], made: Obj, *, wanted: int) -> str:
    """Why no node keeps a server; empty while that may be chance. Of each that ended its controller makes another."""
    begun = parse_time(meta(made).get("creationTimestamp")) or EPOCH
    views = (view(pod) for pod in pods if made_of(pod) == made_of(made))
    # Those of a Deployment before, of the same make, may not have been collected yet.
    ended = [pod for pod in views if pod.phase == "Failed" and (pod.created or EPOCH) >= begun]
    if len(ended) < MOST_ENDS * wanted:
        return ""
    last = max(ended, key=lambda pod: (pod.created or EPOCH, pod.name))
    said = str((last.raw.get("status") or {}).get("message", "")).strip()[:WORDS_LIMIT]
    return (
        f"nodes have ended {len(ended)} pods of servers, the last one {last.name} on {last.node} "
        f"({last.reason or last.phase}){f': {said}' if said else ''}; "
        "mend those nodes, or choose others with rollout.pool"
    )


def late(servers: Sequence[Server], timeout: timedelta, *, since: datetime | None) -> tuple[datetime | None, str]:
    """When the first of those that run and do not serve will have had its time, and what is to be said then.

    `since`: from when it counts, of servers that have served; by default from when its container started. One that was
    made since has its own time.
    """
    begun = [(_begun(each, since), each) for each in servers if not each.ready and not each.pod.deleting]
    first, server = min(((at, each) for at, each in begun if at), key=lambda pair: pair[0], default=(None, None))
    if first is None or server is None:
        return None, ""
    words = (
        f"{why_not(server).message}; it was not ready within rollout.startTimeoutSeconds "
        f"({timeout.total_seconds():.0f} s): raise that for a large model, or correct what keeps it from starting"
    )
    return first + timeout, words


def _begun(server: Server, since: datetime | None) -> datetime | None:
    """From when a server that runs counts as one that does not serve; None: it does not run."""
    if since is None or server.pod.started is None:
        return server.pod.started
    # Each restart begins anew, so that of one that was restarted the time of its place counts.
    own = bound(server.pod) if server.restarts else server.pod.started
    return max(since, own or since)
