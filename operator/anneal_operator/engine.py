"""The training engine behind two functions: `build` an attempt, `observe` one.

PyTorchJob of the Kubeflow training-operator is the engine. Everything above this module knows only an object, its pods,
and whether the engine itself has called it over; another engine is another file like this one.
"""

from dataclasses import dataclass
from datetime import datetime

from anneal_api.status import Attempt
from anneal_operator.kinds import PYTORCH_JOB, Obj, is_deleting, meta, name_of, parse_time, true_condition
from anneal_operator.manifests import pytorchjob
from anneal_operator.placement import ANYWHERE, Placement
from anneal_operator.plan import Plan

KIND = PYTORCH_JOB
MISSING = (
    "this cluster does not know PyTorchJob (kubeflow.org/v1): install the Kubeflow training-operator 1.9; "
    "the job goes on by itself then"
)


@dataclass(frozen=True)
class EngineView:
    """What the engine says of one attempt."""

    exists: bool = False
    deleting: bool = False
    created: datetime | None = None
    succeeded: bool = False
    failed: bool = False
    message: str = ""
    concluded: datetime | None = None


def build(plan: Plan, attempt: Attempt, placement: Placement = ANYWHERE) -> Obj:
    """The object whose creation starts an attempt."""
    return pytorchjob.build(plan, attempt, placement)


def find(objects: tuple[Obj, ...], name: str) -> Obj | None:
    """An attempt's object."""
    return next((obj for obj in objects if name_of(obj) == name), None)


def observe(obj: Obj | None) -> EngineView:
    """Read an attempt's object. Conditions count only while they are True: earlier ones stay in the list."""
    if obj is None:
        return EngineView()
    failed, succeeded = true_condition(obj, "Failed"), true_condition(obj, "Succeeded")
    return EngineView(
        exists=True,
        deleting=is_deleting(obj),
        created=parse_time(meta(obj).get("creationTimestamp")),
        succeeded=succeeded is not None,
        failed=failed is not None,
        message=(failed or {}).get("message", ""),
        concluded=parse_time((succeeded or failed or {}).get("lastTransitionTime")),
    )
