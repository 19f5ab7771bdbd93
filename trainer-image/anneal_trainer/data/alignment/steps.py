"""`stepwise_supervised`: a prompt, the steps of a solution, and whether each is right (process reward models).

Every option of the type acts here; Axolotl drops stepSeparator, maxCompletionLength and trainOnLastStepOnly.
"""

from collections.abc import Callable

from anneal_api.alignment import AlignmentRows
from anneal_api.words import counted
from anneal_trainer.data.alignment.examples import Steps
from anneal_trainer.data.formats.values import Columns, Row, shown
from anneal_trainer.data.pieces import RowError


def stepwise(spec: AlignmentRows) -> Callable[[Row, Columns], Steps]:
    """The type with its options."""

    def read(row: Row, columns: Columns) -> Steps:
        steps = columns.entries(row, "completions", "texts")
        wrong = next((step for step in steps if not isinstance(step, str)), None)
        if wrong is not None:
            raise RowError(f"{columns.of(row, 'completions')} must be a list of texts, got {shown(wrong)} in it")
        labels = _labels(row, columns)
        if len(labels) != len(steps):
            raise RowError(
                f"each step has one label, got {counted(len(steps), 'completion')} and {counted(len(labels), 'label')}"
            )
        unread = len(labels) - 1 if spec.train_on_last_step_only else 0
        kept = (*(None for _ in range(unread)), *labels[unread:])
        return Steps(columns.text(row, "prompt"), tuple(steps), kept, spec.step_separator, spec.max_completion_length)

    return read


def _labels(row: Row, columns: Columns) -> list[bool]:
    labels = columns.entries(row, "labels", "true or false")
    wrong = [label for label in labels if not isinstance(label, bool) and label not in (0, 1)]
    if wrong:
        raise RowError(f"{columns.of(row, 'labels')} must be a list of true or false, got {shown(wrong[0])} in it")
    return [bool(label) for label in labels]
