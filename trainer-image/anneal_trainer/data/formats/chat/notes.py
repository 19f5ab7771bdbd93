"""What is worth telling about rows that are fine: counted by kind in the report, with the first of each shown."""

from anneal_trainer.data.pieces import Note


def special_text() -> Note:
    """A special token's name in what someone says."""
    return Note(
        "SpecialTokensInText",
        "hold the name of a special token in what a user, a system turn or a tool says; it becomes that token "
        "(specialTokensInText: keep)",
    )


def marks_unread() -> Note:
    """`train` or `weight` in turns of an entry that names no such key."""
    return Note(
        "ColumnsUnread",
        "have turns with train: false or weight: 0, which is not read: set messageFieldTraining to that key, "
        "or type: messages",
    )


def end_untrained() -> Note:
    """An answer behind which nothing is trained that would end it."""
    return Note(
        "EndNotTrained",
        "have an answer whose end is not trained: no token that ends a turn follows it in the chat template",
    )


def start_twice() -> Note:
    """BOS written by the template and again by the text."""
    return Note("StartTokenTwice", "begin with the start token twice: the text or the chat template writes it again")


def left_out(role: str) -> Note:
    """A turn to be trained of which nothing is in the text."""
    return Note(
        "TurnLeftOut", f"have a {role} turn to be trained that the chat template leaves out or shortens to nothing"
    )


def tools_unread() -> Note:
    """Tools in the row and a template that has no place for them."""
    return Note("ToolsUnread", "have tools, which the chat template does not read")


def calls_unread() -> Note:
    """Calls in the row and a template that has no place for them."""
    return Note("ToolCallsUnread", "have tool calls, which the chat template does not read: they are not in the text")


def thinking_unread() -> Note:
    """Reasoning in the row, or split off by `splitThinking`, and a template that has no place for it."""
    return Note("ReasoningUnread", "have reasoning, which the chat template does not read: it is not in the text")


def other_template() -> Note:
    """An entry whose template is not the one that goes out with the trained model."""
    return Note(
        "OtherTemplate",
        "are written with their entry's chatTemplate, which is not the one that is saved with the model: "
        "a server would use that one",
    )


def other_prompt(sent: str, had: str) -> Note:
    """The round trip failed: a server would send another text than the one trained on."""
    return Note(
        "OtherPrompt",
        "have a text before an answer that is not what a server would send with the same chat template",
        f"it would send {sent!r} where the training text has {had!r}",
    )
