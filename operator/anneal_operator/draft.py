"""The status of one pass while it is being made, and the effects that go with it.

Steps change a draft in memory; what comes out is one status, written only if it differs from the one that is there.
Not here: what any step decides.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from anneal_api.conditions import ConditionType, Reason
from anneal_api.status import Attempt, Children, Condition, JobStatus
from anneal_operator.attempts import Evidence
from anneal_operator.kinds import Obj, format_time, meta
from anneal_operator.placement import ANYWHERE, Placement
from anneal_operator.plan import Plan
from anneal_operator.world import Amendment, Decision, Doomed, Note, World

Truth = Literal["True", "False", "Unknown"]
MESSAGE_LIMIT = 4096


@dataclass
class Draft:
    """One pass in the making."""

    world: World
    old: JobStatus
    conditions: dict[ConditionType, Condition]
    attempts: list[Attempt]
    children: Children
    fields: dict[str, Any] = field(default_factory=dict)
    apply: list[Obj] = field(default_factory=list)
    delete: list[Doomed] = field(default_factory=list)
    amend: list[Amendment] = field(default_factory=list)
    events: list[Note] = field(default_factory=list)
    verify: set[str] = field(default_factory=set)
    puzzling: list[Obj] = field(default_factory=list)
    wake: datetime | None = None
    # A job that had failed before its first attempt was corrected: this pass starts it anew.
    reopened: bool = False
    # Where the queue lets the pods go.
    placement: Placement = ANYWHERE
    # Where it lets those of the servers go that draw answers.
    rollout_placement: Placement = ANYWHERE
    # Whether pods may be made: not while the queue has not admitted the job.
    may_start: bool = True
    # Whether there is all that the trainer asks for answers; a job without servers has it.
    served: bool = True
    # Why the queue wants the pods gone.
    eviction: Evidence | None = None
    # When the next pods are due, if that is so far away that the job holds no quota until then.
    pause: datetime | None = None
    _plan: Plan | None = None

    @property
    def has_plan(self) -> bool:
        """Whether the spec is valid, as far as this pass has looked."""
        return self._plan is not None

    @property
    def plan(self) -> Plan:
        """The plan; only steps after a valid spec ask for it."""
        assert self._plan is not None
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def now(self) -> str:
        """The pass's time, as status writes it."""
        return format_time(self.world.now)

    @property
    def generation(self) -> int:
        """The spec's generation."""
        return int(meta(self.world.job).get("generation", 0))

    def set(self, kind: ConditionType, status: Truth, reason: Reason, message: str = "") -> None:
        """Assert something; the time moves only when the status changes."""
        before = self.conditions.get(kind)
        changed = before is None or before.status != status
        self.conditions[kind] = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=_bounded(message),
            last_transition_time=self.now if before is None or changed else before.last_transition_time,
            observed_generation=self.generation,
        )

    def is_true(self, kind: ConditionType) -> bool:
        """Whether a condition holds."""
        found = self.conditions.get(kind)
        return found is not None and found.status == "True"

    def reason(self, kind: ConditionType) -> str:
        """A condition's reason, empty if it was never set."""
        found = self.conditions.get(kind)
        return found.reason if found else ""

    def message(self, kind: ConditionType) -> str:
        """A condition's message."""
        found = self.conditions.get(kind)
        return found.message if found else ""

    def value(self, name: str) -> Any:
        """A status field as this pass has it."""
        return self.fields.get(name, getattr(self.old, name))

    def own(self, **names: str | None) -> None:
        """Record names of children."""
        self.children = self.children.model_copy(update=names)

    def wake_at(self, time: datetime) -> None:
        """Look again at `time` at the latest."""
        self.wake = time if self.wake is None else min(self.wake, time)

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Have an Event made after the status is written."""
        self.events.append(Note(reason, message, warning))

    def status(self) -> JobStatus:
        """The status that this pass comes to."""
        return self.old.model_copy(
            update={
                **self.fields,
                "observed_generation": self.generation,
                "conditions": [self.conditions[kind] for kind in ConditionType if kind in self.conditions],
                "attempts": self.attempts,
                "attempt": self.attempts[-1].number if self.attempts else None,
                "children": self.children if self.children.dump() else None,
            }
        )

    def decision(self) -> Decision:
        """What shall be done; no status where nothing changed."""
        status = self.status().dump()
        unchanged = status == (self.world.job.get("status") or {})
        return Decision(
            apply=tuple(self.apply),
            delete=tuple(self.delete),
            amend=tuple(self.amend),
            status=None if unchanged else status,
            events=() if unchanged else tuple(self.events),
            wake=self.wake,
            verify=frozenset(self.verify),
            puzzling=tuple(self.puzzling),
        )


def begin(world: World) -> Draft:
    """A draft that starts from the status that is there."""
    old = read_status(world.job)
    return Draft(
        world=world,
        old=old,
        conditions={ConditionType(each.type): each for each in old.conditions if each.type in set(ConditionType)},
        attempts=list(old.attempts),
        children=old.children or Children(),
    )


def read_status(job: Obj) -> JobStatus:
    """The status of a job; an empty one where there is none yet."""
    return JobStatus.model_validate(job.get("status") or {})


def _bounded(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else f"{message[: MESSAGE_LIMIT - 1]}…"
