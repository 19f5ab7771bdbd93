"""The ConfigMap with the first rows token by token, for `kubectl` and a browser. Its name holds its digest."""

from anneal_api.progress import KeptPreview
from anneal_operator.kinds import CONFIG_MAP, Obj
from anneal_operator.manifests.common import child
from anneal_operator.plan import Plan

TEXT, PAGE = "preview.txt", "preview.html"


def build(plan: Plan, digest: str, preview: KeptPreview) -> Obj:
    """The ConfigMap."""
    data = {TEXT: preview.text, PAGE: preview.html}
    return child(CONFIG_MAP, plan, plan.preview_name(digest), immutable=True, data=data)
