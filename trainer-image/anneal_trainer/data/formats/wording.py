"""How a prompt is worded around a row's own texts: a value, so that a type is a line in a table and not a class."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """Templates in which {instruction}, {input} and {system} are filled in.

    `before` and `before_alone` are the system text of rows that bring none, with an input and without; `always`: the
    system section is written even where its text is empty.
    """

    turn: str
    alone: str
    system: str = "{system}"
    before: str = ""
    before_alone: str = ""
    always: bool = False

    def prompt(self, instruction: str, context: str = "", system: str | None = None) -> str:
        """What the model reads before it answers; `system` None: the wording's own."""
        said = (self.before if context else self.before_alone) if system is None else system
        head = self.system.format(system=said) if said or self.always else ""
        if context:
            return head + self.turn.format(instruction=instruction, input=context)
        return head + self.alone.format(instruction=instruction)
