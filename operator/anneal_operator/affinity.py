"""Kubernetes' affinity as the chart's pools declare it, checked in full, and how several of them become one.

An operator that starts with a misspelt affinity would place every job wrongly without a word: API servers drop what
they do not know inside a PyTorchJob. Not here: which affinity a job gets (`manifests.pytorchjob`).
"""

from typing import Annotated, Literal

from pydantic import Field

from anneal_api.base import Block
from anneal_operator.kinds import Obj

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


class NodeExpression(Block):
    """A condition on one label or field of a node."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] = Field(default_factory=list)


class NodeTerm(Block):
    """Conditions that must all hold."""

    match_expressions: list[NodeExpression] = Field(default_factory=list)
    match_fields: list[NodeExpression] = Field(default_factory=list)


class NodeTerms(Block):
    """Terms of which one must hold."""

    node_selector_terms: list[NodeTerm] = Field(min_length=1)


class PreferredNode(Block):
    """A term that is liked, and how much."""

    weight: Annotated[int, Field(ge=1, le=100)]
    preference: NodeTerm


class NodeAffinity(Block):
    """Which nodes."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredNode] = Field(default_factory=list)


class LabelExpression(Block):
    """A condition on one label of a pod or namespace."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = Field(default_factory=list)


class Selector(Block):
    """Which pods or namespaces."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[LabelExpression] = Field(default_factory=list)


class PodTerm(Block):
    """Other pods, and how near."""

    topology_key: str = Field(min_length=1)
    label_selector: Selector | None = None
    namespace_selector: Selector | None = None
    namespaces: list[str] = Field(default_factory=list)
    match_label_keys: list[str] = Field(default_factory=list)
    mismatch_label_keys: list[str] = Field(default_factory=list)


class PreferredPods(Block):
    """A term that is liked, and how much."""

    weight: Annotated[int, Field(ge=1, le=100)]
    pod_affinity_term: PodTerm


class PodAffinity(Block):
    """Near which pods, or far from which."""

    required_during_scheduling_ignored_during_execution: list[PodTerm] = Field(default_factory=list)
    preferred_during_scheduling_ignored_during_execution: list[PreferredPods] = Field(default_factory=list)


class Affinity(Block):
    """A pod's affinity."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None

    def as_manifest(self) -> Obj:
        """As it was written."""
        return self.model_dump(mode="json", exclude_unset=True)


def require(affinity: Obj, *expressions: Obj) -> Obj:
    """The affinity with further conditions on the node. Its terms are alternatives, so each gets all of them."""
    if not expressions:
        return affinity
    nodes = affinity.get("nodeAffinity") or {}
    terms = (nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    both = [{**term, "matchExpressions": [*term.get("matchExpressions", []), *expressions]} for term in terms]
    return {**affinity, "nodeAffinity": {**nodes, _REQUIRED: {"nodeSelectorTerms": both}}}


def keep_together(affinity: Obj, required: Obj) -> Obj:
    """The affinity with a further condition on which pods to be near."""
    near = affinity.get("podAffinity") or {}
    return {**affinity, "podAffinity": {**near, _REQUIRED: [*near.get(_REQUIRED, []), required]}}


def keep_apart(affinity: Obj, preferred: Obj) -> Obj:
    """The affinity with a further wish about which pods not to be near."""
    wishes = "preferredDuringSchedulingIgnoredDuringExecution"
    apart = affinity.get("podAntiAffinity") or {}
    return {**affinity, "podAntiAffinity": {**apart, wishes: [*apart.get(wishes, []), preferred]}}
