"""Types of one prompt and one answer: the alpaca family, question answering, critique, metharme, user_defined.

They differ in two things, where a row keeps its parts (`anneal_api.columns`) and how the prompt is worded (`prompts`),
so a type is an entry in a table. Prompt and answer are tokenized apart; the answer is trained, with EOS behind it.
A row with an empty answer has nothing to train on and is dropped with the others of that kind.

Where this differs from Axolotl, on purpose: metharme trains one EOS as every other type does, not three;
`reflection:chat` ends with the corrected answer, which Axolotl reads and leaves out; a reflection row that lacks one
of its three texts trains nothing instead of a lone EOS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import yaml

from anneal_api.columns import STYLES
from anneal_api.dataset import FormatSpec
from anneal_trainer.data.formats import prompts
from anneal_trainer.data.formats.values import Columns, Row, shown
from anneal_trainer.data.formats.wording import Wording
from anneal_trainer.data.pieces import Piece, RowError, Text, trained


@dataclass(frozen=True)
class Asked:
    """The parts of a row. `system` None: the wording's own text."""

    instruction: str
    answer: str
    context: str = ""
    system: str | None = None


Reader = Callable[[Row, Columns], Asked]


@dataclass(frozen=True)
class Kind:
    """One type: how its rows are read and its prompts are worded."""

    wording: Wording
    read: Reader

    def example(self, row: Row, columns: Columns) -> Text:
        """One row."""
        asked = self.read(row, columns)
        prompt = self.wording.prompt(asked.instruction, asked.context, asked.system)
        # Rows that word their prompts whole write special tokens because they mean them.
        said = "" if self.wording is prompts.RAW else _said(asked.instruction, asked.context, asked.system)
        return Text((Piece(prompt), trained(asked.answer)), starts=True, ends=bool(asked.answer), asked=said)


def _said(*parts: str | None) -> str:
    return "\n".join(filter(None, parts))


def plain(row: Row, columns: Columns) -> Asked:
    """Instruction, optional input, answer."""
    return Asked(columns.text(row, "instruction"), columns.text(row, "output"), columns.optional(row, "input"))


def _with_system(row: Row, columns: Columns) -> Asked:
    asked = plain(row, columns)
    return Asked(asked.instruction, asked.answer, asked.context, columns.optional(row, "system"))


def _choice(row: Row, columns: Columns) -> Asked:
    choices = columns.entries(row, "choices", "texts")
    wrong = next((choice for choice in choices if not isinstance(choice, str)), None)
    if wrong is not None:
        raise RowError(f"{columns.of(row, 'choices')} must be a list of texts, got {shown(wrong)} in it")
    listed = "\n".join(f'- "{choice}"' for choice in choices)
    return Asked(columns.text(row, "instruction"), columns.text(row, "output"), listed)


def _jeopardy(row: Row, columns: Columns) -> Asked:
    return Asked(columns.text(row, "instruction"), "what is " + columns.text(row, "output"), columns.text(row, "input"))


def _in_context(row: Row, columns: Columns, layout: str = prompts.CONTEXT_AND_QUESTION) -> str:
    return layout.format(context=columns.text(row, "context"), question=columns.text(row, "instruction"))


def _context_qa(row: Row, columns: Columns) -> Asked:
    return Asked(_in_context(row, columns), columns.text(row, "output"))


def _context_qa_v2(row: Row, columns: Columns) -> Asked:
    answer = prompts.CONTEXT_V2_ANSWER.format(answer=columns.text(row, "output"))
    return Asked(_in_context(row, columns, prompts.CONTEXT_V2), answer)


def _context_qa_404(row: Row, columns: Columns) -> Asked:
    return Asked(_in_context(row, columns), prompts.UNANSWERABLE)


def _evaluation(row: Row, columns: Columns) -> str:
    parts = []
    for slot in ("scores", "critiques"):
        value = row.get(columns.of(row, slot))
        if value is None:
            raise RowError(f"the column {columns.of(row, slot)!r} is missing or null; it holds a mapping of criteria")
        parts.append(yaml.safe_dump(value, default_flow_style=False))
    return "".join(parts)


def _critique(row: Row, columns: Columns) -> Asked:
    question, answer = columns.text(row, "instruction"), columns.text(row, "answer")
    return Asked(prompts.CREATIVE_CRITIQUE.format(question=question, answer=answer), _evaluation(row, columns))


def _revise(row: Row, columns: Columns) -> Asked:
    prompt = prompts.CREATIVE_REVISE.format(
        question=columns.text(row, "instruction"),
        answer=columns.text(row, "answer"),
        evaluation=_evaluation(row, columns),
    )
    return Asked(prompt, columns.text(row, "output"))


def _alpaca(style: str) -> Wording:
    return prompts.styled(style, prompts.ALPACA_WITH_INPUT, prompts.ALPACA_ALONE)


def _styles(base: str, read: Reader, wording: Callable[[str], Wording]) -> dict[str, Kind]:
    """`base` and `base:style` for every style; without one it is instruct."""
    named = {f"{base}:{style}": Kind(wording(style), read) for style in STYLES}
    return {base: named[f"{base}:instruct"], **named}


def _aliases(kind: Kind, *names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, kind)


_CHAT, _INSTRUCT = prompts.BARE_STYLES["chat"], prompts.BARE_STYLES["instruct"]
_CONCISE = prompts.styled("chat", prompts.CONCISE_WITH_INPUT, prompts.CONCISE_ALONE)
_IN_CONTEXT = prompts.styled("chat", prompts.CONTEXT_QA)

KINDS: dict[str, Kind] = {
    **_styles("alpaca", plain, _alpaca),
    **_styles("gpteacher", plain, _alpaca),
    **_styles("oasst", plain, _alpaca),
    **_styles("jeopardy", _jeopardy, _alpaca),
    **_styles("explainchoice", _choice, lambda style: prompts.styled(style, prompts.EXPLAIN_CHOICE)),
    "concisechoice": Kind(prompts.CONCISE_CHOICE_WORDING, _choice),
    "summarizetldr": Kind(prompts.SUMMARIZE, plain),
    **_aliases(Kind(_alpaca("chat"), plain), "alpaca_chat", "alpaca_chat.load"),
    **_aliases(Kind(_CONCISE, plain), "alpaca_chat.load_concise", "alpaca_chat.load_qa", "alpaca_chat.load_camel_ai"),
    "alpaca_chat.load_no_prompt": Kind(_CHAT, plain),
    **_aliases(Kind(_alpaca("instruct"), plain), "alpaca_instruct", "alpaca_instruct.load"),
    "alpaca_instruct.load_no_prompt": Kind(_INSTRUCT, plain),
    **_aliases(Kind(_CHAT, _with_system), "alpaca_w_system", "alpaca_w_system.load", "alpaca_w_system.load_chat"),
    "alpaca_w_system.load_instruct": Kind(_INSTRUCT, _with_system),
    "alpaca_w_system.load_open_orca": Kind(prompts.OPEN_ORCA, _with_system),
    "alpaca_w_system.load_open_orca_chatml": Kind(prompts.BARE_STYLES["chatml"], _with_system),
    "orcamini": Kind(prompts.ORCA_MINI, _with_system),
    **_aliases(Kind(_IN_CONTEXT, _context_qa), "context_qa", "context_qa.load"),
    "context_qa.load_v2": Kind(prompts.RAW, _context_qa_v2),
    "context_qa.load_404": Kind(_IN_CONTEXT, _context_qa_404),
    "creative_acr.load_answer": Kind(prompts.CREATIVE_ANSWER, plain),
    "creative_acr.load_critique": Kind(_CHAT, _critique),
    "creative_acr.load_revise": Kind(_CHAT, _revise),
    "metharme": Kind(prompts.RAW, plain),
}


def user_defined(spec: FormatSpec) -> Kind:
    """The type whose wording the manifest holds."""

    def read(row: Row, columns: Columns) -> Asked:
        asked = plain(row, columns)
        absent = row.get(columns.of(row, "system")) is None
        system = spec.system_prompt if absent else columns.text(row, "system")
        return Asked(asked.instruction, asked.answer, asked.context, system)

    return Kind(Wording(spec.format, spec.no_input_format, system=spec.system_format), read)


_REFLECTIONS = {
    "reflection": (_INSTRUCT, prompts.REFLECTION_ANSWER),
    "reflection:instruct": (prompts.REFLECTION_INSTRUCT, prompts.REFLECTION_ANSWER),
    "reflection:chat": (prompts.REFLECTION_CHAT, prompts.REFLECTION_CHAT_ANSWER),
}


def reflection(kind: str, row: Row, columns: Columns) -> Text:
    """An answer, a reflection on it and a better answer. Tokenized as one text, all behind the prompt trained."""
    wording, layout = _REFLECTIONS[kind]
    asked, context = columns.text(row, "instruction"), columns.optional(row, "input")
    prompt = wording.prompt(asked, context)
    parts = {slot: columns.text(row, slot) for slot in ("output", "reflection", "corrected")}
    if not all(parts.values()):
        return Text((Piece(prompt),), starts=True)
    text = prompt + layout.format(**parts)
    return Text((Piece(text, ((len(prompt), len(text)),)),), starts=True, ends=True, asked=_said(asked, context))


def prompt_of(kind: str, question: str, spec: FormatSpec | None = None) -> str | None:
    """The prompt that a model trained on rows of `kind` is asked `question` with; None if the type has no such form."""
    if kind in _REFLECTIONS:
        return _REFLECTIONS[kind][0].prompt(question)
    if kind == "user_defined":
        spec = spec or FormatSpec()
        return user_defined(spec).wording.prompt(question, system=spec.system_prompt)
    return KINDS[kind].wording.prompt(question) if kind in KINDS else None
