"""Why a pod does not run yet, as a condition's reason and a sentence that names what is missing.

Read from the pod itself where it says so. What only an Event tells (a volume that cannot be mounted, a pod that
admission refuses) is passed in as the newest warning. Not here: how long waiting is acceptable.
"""

import re
from dataclasses import dataclass

from anneal_api.conditions import Reason
from anneal_operator.kinds import Obj
from anneal_operator.pods import PodView

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NO_VOLUME = (
    r"persistentvolumeclaims? [\"']?[^\"']+[\"']? (not found|is being deleted)"
    r"|unbound immediate PersistentVolumeClaims|volume node affinity conflict"
    r"|find available persistent volumes|FailedMount|FailedAttachVolume"
)
_MISSING = (
    (r"secrets? [\"']?[^\"']+[\"']? not found|non-existent secret|find key .* in Secret", Reason.WAITING_FOR_SECRET),
    (r"configmaps? [\"']?[^\"']+[\"']? not found|find key .* in ConfigMap", Reason.WAITING_FOR_CONFIG_MAP),
    (_NO_VOLUME, Reason.WAITING_FOR_CLAIM),
)


@dataclass(frozen=True)
class Waiting:
    """What is waited for; `puzzling` if only Events could tell."""

    reason: Reason
    message: str
    puzzling: bool = False


def _classify(text: str, otherwise: Reason) -> Reason:
    return next((reason for pattern, reason in _MISSING if re.search(pattern, text)), otherwise)


_NAMED = frozenset({Reason.WAITING_FOR_SECRET, Reason.WAITING_FOR_CONFIG_MAP, Reason.WAITING_FOR_CLAIM})


def _remedy(reason: Reason, message: str) -> str:
    missing = reason in _NAMED and "not found" in message
    return "; create it in this namespace, or correct its name in the manifest" if missing else ""


def waiting_for(pod: PodView, *, warning: str = "") -> Waiting:
    """Why this pod does not run."""
    if unscheduled := _unscheduled(pod.raw):
        reason = _classify(unscheduled, Reason.WAITING_FOR_NODE)
        return Waiting(
            reason, f"pod {pod.name} is not scheduled: {unscheduled.rstrip('.')}{_remedy(reason, unscheduled)}"
        )
    state = _container_waiting(pod.raw)
    why, message = state.get("reason", ""), state.get("message", "")
    if why in _IMAGE:
        return Waiting(Reason.WAITING_FOR_IMAGE, f"pod {pod.name} cannot pull its image ({why}): {message}")
    if why in _CONFIG:
        reason = _classify(message, Reason.STARTING)
        return Waiting(reason, f"pod {pod.name} cannot start ({why}): {message}{_remedy(reason, message)}")
    if warning and pod.node:
        reason = _classify(warning, Reason.STARTING)
        return Waiting(reason, f"pod {pod.name} on {pod.node}: {warning}{_remedy(reason, warning)}")
    if pod.node is None:
        return Waiting(Reason.STARTING, f"pod {pod.name} is being scheduled")
    return Waiting(Reason.STARTING, f"pod {pod.name} is starting on {pod.node}", puzzling=True)


def _unscheduled(pod: Obj) -> str:
    """The scheduler's words, if it found no node."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "no node yet")
    return ""


def _container_waiting(pod: Obj) -> Obj:
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    states = ((each.get("state") or {}).get("waiting") for each in statuses)
    found: Obj = next((state for state in states if state), {})
    return found


def no_pod(kind: str, name: str, *, warning: str = "") -> Waiting:
    """A Job or PyTorchJob exists, but no pod of it does."""
    if warning:
        return Waiting(Reason.POD_REJECTED, f"{kind} {name} could not make its pod: {warning}", puzzling=True)
    return Waiting(Reason.STARTING, f"{kind} {name} has no pod yet", puzzling=True)
