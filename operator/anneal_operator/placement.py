"""What a queue says about where an admitted job's pods go, beside what its pool says. Pure data.

A job without a queue has an empty one. Not here: reading it from a Workload (`kueue`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anneal_operator.kinds import Obj


@dataclass(frozen=True)
class Placement:
    """Node labels, tolerations and metadata that the queue's flavors and admission checks add to the pods."""

    # Training pods that there is quota for; None: as many as the job asks for.
    nodes: int | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Obj, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    # By resource: the flavor of nodes that it was admitted in.
    flavors: Mapping[str, str] = field(default_factory=dict)


ANYWHERE = Placement()
