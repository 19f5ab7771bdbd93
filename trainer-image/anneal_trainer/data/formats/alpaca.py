"""The prompt that the Alpaca project published in 2023, for what is asked and trained outside a data set."""

from anneal_trainer.data.formats.instruction import KINDS


def prompt(instruction: str, context: str = "") -> str:
    """What the model reads before it answers."""
    return KINDS["alpaca"].wording.prompt(instruction, context)
