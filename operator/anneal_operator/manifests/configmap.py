"""The ConfigMap that holds the job as its pods read it. Its name holds its digest, so it never changes."""

from anneal_api.meta import JOB_FILE
from anneal_operator.kinds import CONFIG_MAP, Obj
from anneal_operator.manifests.common import child
from anneal_operator.plan import Plan


def build(plan: Plan) -> Obj:
    """The ConfigMap."""
    return child(CONFIG_MAP, plan, plan.config_name, immutable=True, data={JOB_FILE: plan.job_file})
