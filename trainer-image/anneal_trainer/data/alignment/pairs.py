"""Rows of two answers or of a judged one: `preference` (DPO, IPO, SimPO, ORPO), `unpaired` (KTO) and `reward`.

Where this differs from Axolotl, on purpose: `zephyr.nectar` chooses the best-ranked answer, not the worst; answers
come out of the whole rendered conversation, so a template that trims does not leave a fragment of itself; a
null system is none; in `chat_template.argilla` a conversation of several turns keeps its own questions; conversations
that a type would cut, and answers that are equal or empty, are errors.
"""

from collections.abc import Callable
from typing import Any

from anneal_api.alignment import AlignmentFormat
from anneal_api.words import counted
from anneal_trainer.data.alignment.examples import Compared, Judged, Pair, Prompt
from anneal_trainer.data.alignment.turns import (
    Template,
    Turn,
    answer,
    exchange,
    rendered,
    said_by_the_model,
    turn,
    turns,
)
from anneal_trainer.data.formats.prompts import BARE_STYLES, CONVERSATIONS, LLAMA3_STYLE, ZEPHYR_PROMPT
from anneal_trainer.data.formats.values import Columns, Row, shown
from anneal_trainer.data.pieces import RowError

STYLES = {"chatml": (BARE_STYLES["chatml"], "<|im_end|>"), "llama3": (LLAMA3_STYLE, "<|eot_id|>")}


def worded(kind: str) -> Callable[[Row, Columns], Pair]:
    """`chatml` and `llama3` with their variants: a fixed wording and its end of turn."""
    style, _, variant = kind.partition(".")
    wording, end = STYLES[style]

    def read(row: Row, columns: Columns) -> Pair:
        asked, chosen, rejected = _texts(row, columns, variant)
        prompt = Prompt(wording.prompt(asked, system=columns.optional(row, "system")), starts=True)
        return distinct(Pair(prompt, chosen + end, rejected + end), empty=(chosen, rejected))

    return read


def _texts(row: Row, columns: Columns, variant: str) -> tuple[str, str, str]:
    """Question, better answer, worse answer."""
    if variant not in ("ultra", "argilla_chat"):
        return columns.text(row, "prompt"), columns.text(row, "chosen"), columns.text(row, "rejected")
    asked, chosen = exchange(columns.value(row, "chosen"), columns.of(row, "chosen"))
    _, rejected = exchange(columns.value(row, "rejected"), columns.of(row, "rejected"))
    return (columns.text(row, "prompt") if variant == "ultra" else asked), chosen, rejected


def prompt_of(kind: str, asked: str, spec: AlignmentFormat | None) -> str:
    """The prompt of a type that words it itself, for a question alone."""
    style = kind.partition(".")[0]
    match style:
        case "user_defined":
            return (spec or AlignmentFormat()).prompt_format.format(system="", prompt=asked)
        case "passthrough":
            return asked
        case "zephyr":
            return ZEPHYR_PROMPT.format(prompt=asked)
        case _:
            return STYLES[style][0].prompt(asked)


def distinct(pair: Pair, *, empty: tuple[str, str]) -> Pair:
    """The pair; RowError if its answers say the same or nothing."""
    if not all(text.strip() for text in empty):
        raise RowError("chosen and rejected must have words; an empty answer cannot be preferred to")
    if pair.chosen == pair.rejected:
        raise RowError(f"chosen and rejected are the same, {shown(empty[0])}: there is nothing to prefer")
    return pair


def nectar(row: Row, columns: Columns) -> Pair:
    """Ranked answers: the best one, and the next."""
    place = columns.of(row, "answers")
    ranked = [
        _ranked(entry, f"{place}[{i}]") for i, entry in enumerate(columns.entries(row, "answers", "{answer, rank}"))
    ]
    if len(ranked) < 2:  # noqa: PLR2004 - two make a pair
        raise RowError(f"{place} must have two answers or more, got {len(ranked)}")
    (_, best), (_, second) = sorted(ranked, key=lambda entry: entry[0])[:2]
    prompt = Prompt(ZEPHYR_PROMPT.format(prompt=columns.text(row, "prompt")), starts=True)
    return distinct(Pair(prompt, best, second), empty=(best, second))


def _ranked(entry: Any, place: str) -> tuple[float, str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("answer"), str):
        raise RowError(f"{place} must be a mapping of answer (text) and rank, got {shown(entry)}")
    rank = entry.get("rank")
    if not isinstance(rank, int | float) or isinstance(rank, bool):
        raise RowError(f"{place}.rank must be a number, 1 the best, got {shown(rank)}")
    return float(rank), entry["answer"]


def user_defined(spec: AlignmentFormat) -> Callable[[Row, Columns], Pair]:
    """Texts that the manifest words."""

    def read(row: Row, columns: Columns) -> Pair:
        chosen, rejected = columns.text(row, "chosen"), columns.text(row, "rejected")
        pair = Pair(
            _prompt(spec, row, columns),
            spec.chosen_format.format(chosen=chosen),
            spec.rejected_format.format(rejected=rejected),
        )
        return distinct(pair, empty=(chosen, rejected))

    return read


def _prompt(spec: AlignmentFormat, row: Row, columns: Columns) -> Prompt:
    system, asked = columns.optional(row, "system"), columns.text(row, "prompt")
    return Prompt(spec.prompt_format.format(system=system, prompt=asked), starts=True)


def passthrough(row: Row, columns: Columns) -> Pair:
    """Texts as they are."""
    chosen, rejected = columns.text(row, "chosen"), columns.text(row, "rejected")
    pair = Pair(Prompt(columns.text(row, "prompt"), starts=True), chosen, rejected)
    return distinct(pair, empty=(chosen, rejected))


def templated(kind: str, template: Template) -> Callable[[Row, Columns], Pair]:
    """`chat_template` and its variants: the model's own template."""
    # `argilla` keeps what the template writes behind the answer's end; the others have always cut its white space.
    strips = not kind.endswith(".argilla")

    def read(row: Row, columns: Columns) -> Pair:
        before, chosen, rejected = _CONVERSATIONS[kind](row, columns)
        prompt = rendered(template, before, generate=True)
        answers = [answer(template, before, said, prompt) for said in (chosen, rejected)]
        better, worse = (text.rstrip() for text in answers) if strips else answers
        return distinct(
            Pair(Prompt(prompt, starts=False), better, worse), empty=(chosen["content"], rejected["content"])
        )

    return read


Conversation = tuple[list[Turn], Turn, Turn]


def _messages_and_answers(row: Row, columns: Columns) -> Conversation:
    before = turns(columns.value(row, "messages"), columns.of(row, "messages"))
    return before, _last(row, columns, "chosen"), _last(row, columns, "rejected")


def _last(row: Row, columns: Columns, slot: str) -> Turn:
    """An answer as text, as a turn, or as the last of a list of turns."""
    value, place = columns.value(row, slot), columns.of(row, slot)
    if isinstance(value, list) and value:
        return said_by_the_model(turn(value[-1], f"{place}[{len(value) - 1}]"), place)
    return said_by_the_model(turn(value, place, "assistant"), place)


def _whole_conversations(row: Row, columns: Columns) -> Conversation:
    chosen, rejected = (turns(columns.value(row, slot), columns.of(row, slot)) for slot in ("chosen", "rejected"))
    if len(chosen) != len(rejected) or len(chosen) == 1:
        raise RowError(
            "chosen and rejected must be conversations that differ in their last turn alone; "
            f"they have {counted(len(chosen), 'turn')} and {counted(len(rejected), 'turn')}"
        )
    place = next((at for at, both in enumerate(zip(chosen, rejected, strict=True)) if both[0] != both[1]), len(chosen))
    if place < len(chosen) - 1:
        one, other = shown(chosen[place]["content"]), shown(rejected[place]["content"])
        raise RowError(
            "chosen and rejected must be conversations that differ in their last turn alone; "
            f"their turns [{place}] differ: {one} and {other}"
        )
    return chosen[:-1], said_by_the_model(chosen[-1], "chosen"), said_by_the_model(rejected[-1], "rejected")


def _argilla(row: Row, columns: Columns) -> Conversation:
    before, chosen, rejected = _whole_conversations(row, columns)
    system, asked = columns.optional(row, "system"), columns.optional(row, "prompt")
    if asked and len(before) == 1:
        before = [{"role": "user", "content": asked}]
    return ([{"role": "system", "content": system}, *before] if system else before), chosen, rejected


_CONVERSATIONS: dict[str, Callable[[Row, Columns], Conversation]] = {
    "chat_template": _messages_and_answers,
    "chat_template.default": _messages_and_answers,
    "chat_template.argilla_chat": _whole_conversations,
    "chat_template.argilla": _argilla,
}


def judged(kind: str) -> Callable[[Row, Columns], Judged]:
    """`chatml` and `llama3` for KTO."""
    style, _, variant = kind.partition(".")
    wording, end = STYLES[style]

    def read(row: Row, columns: Columns) -> Judged:
        label = _label(row, columns)
        if variant == "argilla_chat":
            said = turns(columns.value(row, "completion"), columns.of(row, "completion"))
            words = said_by_the_model(said[-1], columns.of(row, "completion"))["content"]
            return Judged(Prompt(_conversation(style, said[:-1]), starts=True), _wordy(words) + end, label)
        prompt = wording.prompt(columns.text(row, "prompt"), system=columns.optional(row, "system"))
        return Judged(Prompt(prompt, starts=True), _wordy(columns.text(row, "completion")) + end, label)

    return read


def _conversation(style: str, before: list[Turn]) -> str:
    said, begun = CONVERSATIONS[style]
    return "".join(said.format(**entry) for entry in before) + begun


def judged_user_defined(spec: AlignmentFormat) -> Callable[[Row, Columns], Judged]:
    """Texts that the manifest words."""

    def read(row: Row, columns: Columns) -> Judged:
        completion = spec.completion_format.format(completion=_wordy(columns.text(row, "completion")))
        return Judged(_prompt(spec, row, columns), completion, _label(row, columns))

    return read


def _wordy(text: str) -> str:
    if not text.strip():
        raise RowError("completion must have words: there is nothing to judge")
    return text


def _label(row: Row, columns: Columns) -> bool:
    value = columns.value(row, "label")
    if not isinstance(value, bool) and value not in (0, 1):
        raise RowError(f"{columns.of(row, 'label')} must be true or false, or 1 or 0, got {shown(value)}")
    return bool(value)


def compared(template: Template) -> Callable[[Row, Columns], Compared]:
    """`bradley_terry.chat_template`: the question with each answer, as two conversations."""

    def read(row: Row, columns: Columns) -> Compared:
        system, asked = columns.optional(row, "system"), columns.text(row, "prompt")
        chosen, rejected = columns.text(row, "chosen"), columns.text(row, "rejected")
        before = [turn(system, "", "system")] if system else []
        before.append(turn(asked, "", "user"))
        texts = [rendered(template, [*before, turn(said, "", "assistant")]) for said in (chosen, rejected)]
        distinct(Pair(Prompt("", starts=False), *texts), empty=(chosen, rejected))
        return Compared(*texts)

    return read
