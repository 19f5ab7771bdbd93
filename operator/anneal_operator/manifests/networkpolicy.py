"""Who may talk to a job's pods: each other on every port; the operator and monitoring on the progress port.

Egress stays open: a prepare pod fetches models from hubs and mirrors that the operator cannot know.
"""

from anneal_api.meta import OWNER_UID_LABEL, PROGRESS_PORT
from anneal_operator.kinds import NETWORK_POLICY, Obj
from anneal_operator.manifests.common import child
from anneal_operator.plan import Plan
from anneal_operator.settings import LabelSelector

OPERATOR_LABELS = {"app.kubernetes.io/name": "anneal", "app.kubernetes.io/component": "operator"}
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


def build(plan: Plan) -> Obj:
    """The policy."""
    own = {"matchLabels": {OWNER_UID_LABEL: plan.uid}}
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: plan.settings.namespace}},
        "podSelector": {"matchLabels": OPERATOR_LABELS},
    }
    readers = [operator]
    if monitoring := plan.settings.monitoring:
        readers.append(
            {
                "namespaceSelector": _selector(monitoring.namespace_selector),
                "podSelector": _selector(monitoring.pod_selector),
            }
        )
    spec = {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": own}]},
            {"from": readers, "ports": [{"port": PROGRESS_PORT, "protocol": "TCP"}]},
        ],
    }
    return child(NETWORK_POLICY, plan, plan.base, spec=spec)


def _selector(selector: LabelSelector) -> Obj:
    return {"matchLabels": dict(selector.match_labels)} if selector.match_labels else {}
