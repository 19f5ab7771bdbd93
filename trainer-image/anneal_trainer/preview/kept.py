"""The preview that stays with a job: beside the prepared data, and through the pod's `/preview` in a ConfigMap.

A ConfigMap holds one MiB, so rows are shortened in their middle, and left out from the end, until all of it fits; what
is missing is said. Not here: making the ConfigMap (the operator does).
"""

import hashlib
from dataclasses import replace
from pathlib import Path

from anneal_api.progress import KeptPreview
from anneal_trainer.context import Context
from anneal_trainer.files import replace_text
from anneal_trainer.preview import page, terminal
from anneal_trainer.preview.view import Preview
from anneal_trainer.reporter import Reporter

# In the directory of the prepared data.
PAGE, TEXT = "preview.html", "preview.txt"
# Among the records of a pod's processes: what `/preview` answers.
PUBLISHED = "preview.json"
LARGEST = 600_000
_SEGMENTS = 1500


def bounded(preview: Preview, *, most: int = LARGEST) -> KeptPreview:
    """As many rows as fit into `most` bytes, as text and as a page together; at least one, however short."""
    rows, segments = list(preview.rows), _SEGMENTS
    while True:
        shown = replace(preview, rows=tuple(row.shortened(segments) for row in rows))
        if len(rows) < len(preview.rows):
            left_out = f"{len(preview.rows) - len(rows)} more rows are not shown here: anneal preview shows them"
            shown = replace(shown, packs=(), notes=(*preview.notes, left_out))
        text = "\n".join(terminal.lines(shown, colour=False, ids=False)) + "\n"
        kept = KeptPreview(text=text, html=page.html(shown))
        if len(kept.text.encode()) + len(kept.html.encode()) <= most:
            return kept
        if len(rows) > 1:
            rows.pop()
        else:
            segments //= 2


def write(directory: Path, kept: KeptPreview) -> None:
    """Into the directory of the prepared data."""
    replace_text(directory / PAGE, kept.html)
    replace_text(directory / TEXT, kept.text)


def publish(context: Context, directory: Path, reporter: Reporter) -> None:
    """Have the pod answer `/preview` with what is in `directory`, if anything is and the job wants it told."""
    if context.records is None or not context.spec.preparation.preview_rows or not (directory / PAGE).exists():
        return
    kept = KeptPreview(text=(directory / TEXT).read_text("utf-8"), html=(directory / PAGE).read_text("utf-8"))
    replace_text(context.records / PUBLISHED, kept.model_dump_json())
    reporter.update(preview=hashlib.sha256(kept.html.encode()).hexdigest()[:16])
