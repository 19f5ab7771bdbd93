"""`alpaca`: instruction, optional input, output. The prompt is the one the Alpaca project published in 2023.

Prompt and answer are tokenized apart, the answer and the end-of-sequence token after it are trained.
A row with an empty answer has nothing to train on and is dropped with the others of that kind.
"""

from typing import Any

from anneal_api.dataset import DatasetFields
from anneal_trainer.data.formats.values import optional_text_of, text_of
from anneal_trainer.data.pieces import Piece, Text, trained

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)


def prompt(instruction: str, context: str = "") -> str:
    """What the model reads before it answers."""
    if context:
        return f"{WITH_INPUT}\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"
    return f"{WITHOUT_INPUT}\n\n### Instruction:\n{instruction}\n\n### Response:\n"


def example(row: dict[str, Any], fields: DatasetFields) -> Text:
    """One row."""
    instruction = text_of(row, fields.instruction or "instruction")
    context = optional_text_of(row, fields.input or "input")
    answer = text_of(row, fields.output or "output")
    return Text((Piece(prompt(instruction, context)), trained(answer)), starts=True, ends=bool(answer))
