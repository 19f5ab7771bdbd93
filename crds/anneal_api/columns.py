"""Which columns each dataset type reads: the one table from which detection, checks and the reference follow.

A type reads slots (`instruction`, `output`, …), each from a column whose name people's files have had for years; a slot
that `fields` can rename has a field of that name there. Types of one family differ in wording, not in what they read.
Not here: what a row becomes (the trainer's formats).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """Where a slot is read: the first of `names` that a row has. A column that is not `required` may be absent or null."""

    names: tuple[str, ...]
    required: bool = True


Slots = dict[str, Column]


def _need(*names: str) -> Column:
    return Column(names)


def _may(*names: str) -> Column:
    return Column(names, required=False)


_ALPACA: Slots = {"instruction": _need("instruction"), "input": _may("input"), "output": _need("output")}
_SYSTEM: Slots = {"system": _may("system"), **_ALPACA}
_ORCA: Slots = {
    "system": _may("system_prompt"),
    "instruction": _need("question"),
    "output": _need("response"),
}
_CHOICE: Slots = {
    "instruction": _need("question"),
    "choices": _need("choices"),
    "output": _need("solution", "explanation"),
}
_CONTEXT_QA: Slots = {
    "context": _need("article"),
    "instruction": _need("question"),
    "output": _need("answer"),
}
_REFLECTION: Slots = {**_ALPACA, "reflection": _need("reflection"), "corrected": _need("corrected")}
_CRITIQUE: Slots = {
    "instruction": _need("instruction"),
    "answer": _need("answer"),
    "scores": _need("scores"),
    "critiques": _need("critiques"),
}
_STYLED: dict[str, Slots] = {
    "alpaca": _ALPACA,
    "gpteacher": {**_ALPACA, "output": _need("response")},
    "oasst": {"instruction": _need("INSTRUCTION"), "output": _need("RESPONSE")},
    "jeopardy": {"instruction": _need("question"), "input": _need("category"), "output": _need("answer")},
    "explainchoice": _CHOICE,
}
STYLES = ("instruct", "chat", "chatml", "phi")

READS: dict[str, Slots] = {
    "chat_template": {
        "messages": _need("messages", "conversations"),
        "system": _may("system"),
        "tools": _may("tools"),
    },
    "messages": {"messages": _need("messages", "conversations")},
    **_STYLED,
    **{f"{base}:{style}": slots for base, slots in _STYLED.items() for style in STYLES},
    "alpaca_chat": _ALPACA,
    "alpaca_chat.load": _ALPACA,
    "alpaca_chat.load_concise": _ALPACA,
    "alpaca_chat.load_no_prompt": _ALPACA,
    "alpaca_chat.load_qa": {"instruction": _need("question"), "output": _need("answer")},
    "alpaca_chat.load_camel_ai": {"instruction": _need("message_1"), "output": _need("message_2")},
    "alpaca_instruct": _ALPACA,
    "alpaca_instruct.load": _ALPACA,
    "alpaca_instruct.load_no_prompt": _ALPACA,
    "alpaca_w_system": _SYSTEM,
    "alpaca_w_system.load": _SYSTEM,
    "alpaca_w_system.load_chat": _SYSTEM,
    "alpaca_w_system.load_instruct": _SYSTEM,
    "alpaca_w_system.load_open_orca": _ORCA,
    "alpaca_w_system.load_open_orca_chatml": _ORCA,
    "orcamini": _ORCA,
    "concisechoice": _CHOICE,
    "summarizetldr": {"instruction": _need("article"), "output": _need("summary")},
    "reflection": _REFLECTION,
    "reflection:instruct": _REFLECTION,
    "reflection:chat": _REFLECTION,
    "context_qa": _CONTEXT_QA,
    "context_qa.load": _CONTEXT_QA,
    "context_qa.load_v2": {**_CONTEXT_QA, "context": _need("context")},
    "context_qa.load_404": {"context": _need("article"), "instruction": _need("unanswerable_question")},
    "creative_acr.load_answer": {"instruction": _need("instruction"), "output": _need("revision")},
    "creative_acr.load_critique": _CRITIQUE,
    "creative_acr.load_revise": {**_CRITIQUE, "output": _need("revision")},
    "metharme": {"instruction": _need("prompt"), "output": _need("generation")},
    "pygmalion": {"messages": _need("conversations")},
    "llama2_chat": {"messages": _need("conversations")},
    "user_defined": _SYSTEM,
    "input_output": {"segments": _need("segments")},
    "completion": {"text": _need("text")},
    "pretrain": {"text": _need("text")},
    "tokenized": {"input_ids": _need("input_ids")},
}

# Types of which every token is trained, or whose rows say themselves which are.
ALL_TRAINED = ("completion", "pretrain", "tokenized")

# What an absent type is taken for, the most telling columns first, and the optional slot that must be there for it.
# Types that read the same columns as one of these under another wording are never guessed: a person chooses them.
DETECTED: tuple[tuple[str, str], ...] = (
    ("tokenized", ""),
    ("chat_template", ""),
    ("input_output", ""),
    ("reflection", ""),
    ("context_qa", ""),
    ("context_qa.load_v2", ""),
    ("context_qa.load_404", ""),
    ("jeopardy", ""),
    ("explainchoice", ""),
    ("alpaca_w_system.load_open_orca", "system"),
    ("creative_acr.load_revise", ""),
    ("creative_acr.load_critique", ""),
    # `alpaca` would leave the rows' system texts out without a word.
    ("alpaca_w_system.load_instruct", "system"),
    ("alpaca", ""),
    ("gpteacher", ""),
    ("oasst", ""),
    ("summarizetldr", ""),
    ("metharme", ""),
    ("alpaca_chat.load_camel_ai", ""),
    ("completion", ""),
)


def not_reading(slot: str) -> tuple[str, ...]:
    """The types that do not read `slot`, in the table's order."""
    return tuple(kind for kind, slots in READS.items() if slot not in slots)
