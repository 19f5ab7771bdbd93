"""What a pass looks at and what it decides: the two ends of the pure reconcile.

A `World` is everything that is so, gathered beforehand; a `Decision` is everything that shall be done. Between them
there is no client, no clock and no memory, so that a test can state any situation and a restart loses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from anneal_api.progress import KeptPreview, ProgressReport
from anneal_operator.errors import Refusal
from anneal_operator.kinds import Kind, Obj
from anneal_operator.kueue import QueueFacts
from anneal_operator.neighbours import Neighbour
from anneal_operator.pools import NodeGroup
from anneal_operator.settings import Settings


@dataclass(frozen=True)
class Children:
    """What exists for this job, by the owner's UID."""

    prepare_jobs: tuple[Obj, ...] = ()
    pytorch_jobs: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    workloads: tuple[Obj, ...] = ()
    deployments: tuple[Obj, ...] = ()
    # Vanished since the last pass, in their last state.
    departed_pods: tuple[Obj, ...] = ()
    config_maps: tuple[Obj, ...] = ()
    network_policies: tuple[Obj, ...] = ()
    services: tuple[Obj, ...] = ()


@dataclass(frozen=True)
class Report:
    """The last answer of a pod's `/progress`, or why there is none; and that of `/preview`, if it is not kept yet."""

    pod: str
    time: datetime
    report: ProgressReport | None = None
    error: str = ""
    preview: KeptPreview | None = None


@dataclass(frozen=True)
class StorageFacts:
    """What was read about the job's claim; `known` is False where nothing needed reading."""

    known: bool = False
    claim: Obj | None = None
    class_exists: bool = True
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """One job and everything around it, at one moment."""

    job: Obj
    settings: Settings
    now: datetime
    children: Children = field(default_factory=Children)
    neighbours: tuple[Neighbour, ...] = ()
    storage: StorageFacts = field(default_factory=StorageFacts)
    # Whether its trainer and its servers share a claim that one node can use, for jobs with servers.
    on_one_node: bool = False
    # Nodes with GPUs, for jobs that ask for some.
    node_groups: tuple[NodeGroup, ...] = ()
    # Of the job's queue; None where the job names none, or is over.
    queue: QueueFacts | None = None
    # By name, the values of the priority classes that the job may name; None where that was not asked or is unknown.
    priority_classes: Mapping[str, int] | None = None
    # Names of jobs by those of their Workloads, of the job's namespace.
    workload_names: Mapping[str, str] = field(default_factory=dict)
    report: Report | None = None
    # Children that could not be made in this very pass, by name.
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    # The newest warning event about an object, by its UID: read only while something does not start.
    warnings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Doomed:
    """An object to delete."""

    kind: Kind
    obj: Obj


@dataclass(frozen=True)
class Amendment:
    """A change of an object that exists: its whole status, or fields that are applied to the one with this UID."""

    obj: Obj
    status: bool = False
    uid: str = ""


@dataclass(frozen=True)
class Note:
    """A Kubernetes Event about the job."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """Effects, in the order in which they are carried out; `wake` is when to look again whatever happens."""

    apply: tuple[Obj, ...] = ()
    delete: tuple[Doomed, ...] = ()
    amend: tuple[Amendment, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Note, ...] = ()
    wake: datetime | None = None
    # Names of own children that must be made sure of, even if they are believed to exist.
    verify: frozenset[str] = frozenset()
    # Objects whose warning events would tell why nothing starts.
    puzzling: tuple[Obj, ...] = ()
