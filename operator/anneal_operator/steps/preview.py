"""Preview: the first rows, token by token, stay with the job once a pod has told them. Owns no condition.

It is a help for people: nothing waits for it, and a job that never told one runs all the same.
"""

from anneal_operator.draft import Draft
from anneal_operator.manifests import preview as manifest


def keep_preview(draft: Draft) -> bool:
    """Make the ConfigMap of what was told last; True always."""
    told = draft.world.report
    if told and told.preview and told.report and told.report.preview:
        name = draft.plan.preview_name(told.report.preview)
        if draft.children.preview != name:
            draft.apply.append(manifest.build(draft.plan, told.report.preview, told.preview))
            draft.own(preview=name)
    return True
