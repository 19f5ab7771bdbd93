"""All pods of an attempt and of its servers at once, or none: when those that have a place give it back. Pure.

The scheduler places pod by pod. Two jobs that each got half of the GPUs would hold them for ever, so a job of which
only a part has found places gives everything back after a while, and tries again later: later each time, and not in
step with the other. A job of which no pod has a place holds nothing and just waits: an autoscaler looks for such pods.
Not here: deleting and making (`steps.regroup`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from anneal_api.resolve import digest
from anneal_api.words import counted
from anneal_operator.kinds import format_time, parse_time, true_condition
from anneal_operator.pods import EPOCH, PodView
from anneal_operator.waiting import waiting_for

FIRST_WAIT = 60.0
LONGEST_WAIT = 900.0
# Beyond this many doublings every wait is the longest one.
_DOUBLINGS = 10
# The part of a wait by which that of one job can differ from another's.
_JITTER = 0.5


@dataclass(frozen=True)
class Standing:
    """How much of an attempt has found a place, since when, and what is said of the rest."""

    placed: int
    wanted: int
    since: datetime | None = None
    words: str = ""

    @property
    def in_part(self) -> bool:
        """Whether GPUs are held that cannot be used."""
        return 0 < self.placed < self.wanted

    @property
    def whole(self) -> bool:
        """Whether every pod has a place."""
        return self.placed >= self.wanted


def standing(pods: Sequence[PodView], wanted: int, *, begun: datetime | None = None) -> Standing:
    """What the pods have found. `begun`: since when all of them are wanted; servers have their places before."""
    here = [pod for pod in pods if pod.holds_resources]
    placed = [pod for pod in here if bound(pod) is not None]
    since = min((bound(pod) or EPOCH for pod in placed), default=None)
    lacking = next((pod for pod in here if bound(pod) is None), None)
    if since is not None:
        # One that is made again, long after the others, has its time too.
        since = max(since, begun or EPOCH, (lacking.created if lacking else None) or EPOCH)
    words = waiting_for(lacking).message if lacking else "the others have not been made"
    return Standing(len(placed), wanted, since, words)


def bound(pod: PodView) -> datetime | None:
    """Since when a pod has a node; None while it has none."""
    scheduled = true_condition(pod.raw, "PodScheduled")
    if pod.node is None and scheduled is None:
        return None
    return parse_time((scheduled or {}).get("lastTransitionTime")) or pod.created or EPOCH


def due(found: Standing, timeout: int) -> datetime | None:
    """When a job gives back what it holds; None if it holds nothing, or all that it needs."""
    return found.since + timedelta(seconds=timeout) if found.in_part and found.since else None


def retry_after(uid: str, times: int) -> timedelta:
    """How long to wait after giving back for the `times`-th time."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(times - 1, _DOUBLINGS))
    # From the job's UID and not from dice: a pass that is repeated comes to the same time.
    part = int(digest(f"{uid}/{times}")[:8], 16) / 16**8
    return timedelta(seconds=round(wait * (1.0 + _JITTER * part)))


def given_back(found: Standing, timeout: int, again: datetime, what: str = "pod") -> str:
    """What happened, for a person."""
    verb = "has" if found.placed == 1 else "have"
    return (
        f"{found.placed} of {counted(found.wanted, what)} {verb} held a place for {timeout} s "
        f"(runPolicy.schedulingTimeoutSeconds) while others found none ({found.words}): "
        f"all are given back, and made again at {format_time(again)}"
    )


def warning(found: Standing, at: datetime, what: str = "pod") -> str:
    """What will happen, for a person."""
    verb = "has" if found.placed == 1 else "have"
    return (
        f"{found.placed} of {counted(found.wanted, what)} {verb} a place; "
        f"unless the others find one, all are given back at {format_time(at)}"
    )
