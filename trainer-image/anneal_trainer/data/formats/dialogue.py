"""`pygmalion` and `llama2_chat`: conversations with a fixed wording, from before tokenizers had templates.

Each turn, or each exchange, is tokenized by itself, and what the model says is trained with the EOS behind it.

Where this differs from Axolotl, on purpose: a pygmalion conversation begins with the tokenizer's start tokens even
without a persona, as inference does; `llama2_chat` does not pad, trains exactly the answers (Axolotl masks a row, with
a warning, when its re-tokenization disagrees with itself), ends with the last answer's EOS instead of a BOS that
nothing follows, and takes BOS and EOS from the tokenizer. Roles that are unknown or out of turn are errors.
"""

from typing import Any

from anneal_trainer.data.formats import prompts
from anneal_trainer.data.formats.values import Columns, Row, shown
from anneal_trainer.data.pieces import Piece, RowError, Text

_MODEL = "<|model|>"
_PYGMALION_START = "\n<START>"
_LLAMA2_ROLES = ("human", "gpt")


def pygmalion(row: Row, columns: Columns) -> Text:
    """Turns of system, human and bot."""
    turns = columns.entries(row, "messages", "turns with role and value")
    place = columns.of(row, "messages")
    pieces = [
        _pygmalion_turn(*_said(turn, f"{place}[{i}]", "role", ("system", "human", "bot")))
        for i, turn in enumerate(turns)
    ]
    return Text(tuple(pieces), starts=True)


def _pygmalion_turn(role: str, words: str) -> Piece:
    if role == "system":
        return Piece("<|system|>Persona: " + words.removesuffix(_PYGMALION_START).strip())
    words = words.strip()
    if role == "human":
        return Piece(f"<|user|> {words}")
    text = f"{_MODEL} {words}"
    return Piece(text, ((len(_MODEL), len(text)),), ends=True) if words else Piece(text)


def llama2_chat(row: Row, columns: Columns) -> Text:
    """A system turn if there is one, then human and gpt in turn. A last question without an answer is left out."""
    turns = columns.entries(row, "messages", "turns with from and value")
    place = columns.of(row, "messages")
    said = [_said(turn, f"{place}[{i}]", "from", ("system", *_LLAMA2_ROLES)) for i, turn in enumerate(turns)]
    system = said[0][1] if said[0][0] == "system" else prompts.LLAMA2_SYSTEM
    first = 1 if said[0][0] == "system" else 0
    for number, (role, words) in enumerate(said[first:]):
        _check_llama2(f"{place}[{number + first}]", role, words, _LLAMA2_ROLES[number % 2])
    texts = [words.strip() for _, words in said[first:]]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if not pairs:
        raise RowError(f"{place} must have a human turn and an answer of gpt, got {shown(turns)}")
    return Text(tuple(_exchange(number, pair, system) for number, pair in enumerate(pairs)))


def _check_llama2(place: str, role: str, words: str, expected: str) -> None:
    if role != expected:
        raise RowError(
            f"{place}.from is {shown(role)}: human and gpt must take turns, and human begins; expected {expected}"
        )
    if not words.strip():
        raise RowError(f"{place}.value must have words, got {shown(words)}")


def _exchange(number: int, pair: tuple[str, str], system: str) -> Piece:
    question, answer = pair
    # The first question has no space before [/INST]: models were made so.
    head = f"[INST] {question} [/INST]" if number else f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{question}[/INST]"
    text = f"{head} {answer} "
    return Piece(text, ((len(head), len(text)),), starts=True, ends=True)


def _said(turn: Any, place: str, role_key: str, roles: tuple[str, ...]) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise RowError(f"{place} must be a turn with {role_key} and value, got {shown(turn)}")
    role, words = turn.get(role_key), turn.get("value")
    if role not in roles:
        raise RowError(f"{place}.{role_key} is {shown(role)}; write one of: {', '.join(roles)}")
    if not isinstance(words, str):
        raise RowError(f"{place}.value must be text, got {shown(words)}")
    return role, words
