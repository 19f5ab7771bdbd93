"""What a row of alignment is on its way to tokens, and the token ids that it becomes.

The names of the ids are those that TRL's trainers read. Not here: how rows become examples, and tokenization.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """What is asked. `starts`: the tokenizer's own start tokens come first; a rendered template brings its own."""

    text: str
    starts: bool


@dataclass(frozen=True)
class Pair:
    """A question with a better and a worse answer (DPO, IPO, SimPO, ORPO)."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Judged:
    """A question with an answer that is wanted or not (KTO)."""

    prompt: Prompt
    completion: str
    label: bool


@dataclass(frozen=True)
class Compared:
    """Two whole conversations, the better one first (reward models)."""

    chosen: str
    rejected: str


@dataclass(frozen=True)
class Steps:
    """A solution in steps, each right or wrong; None: that step's label is not trained (process reward models)."""

    prompt: str
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]
    separator: str
    longest: int | None = None


@dataclass(frozen=True)
class Asked:
    """A question alone (online methods), with what rewards are given: the row's other columns, and the question.

    `asked`: as text, or as turns of role and content.
    """

    prompt: Prompt
    row: dict[str, Any] = field(default_factory=dict)
    asked: str | list[dict[str, str]] = ""


Aligned = Pair | Judged | Compared | Steps | Asked


@dataclass(frozen=True)
class PairTokens:
    """`lost`: tokens at the prompt's end that the tokenizer merges with an answer; they count to the answers."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    lost: int = 0


@dataclass(frozen=True)
class JudgedTokens:
    """`lost`: as in `PairTokens`."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    lost: int = 0


@dataclass(frozen=True)
class ComparedTokens:
    """Two sequences for the reward model."""

    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class StepTokens:
    """Labels are 1 (right), 0 (wrong) or -100, on the last token of each separator."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class AskedTokens:
    """The prompt's ids, and what rewards are given, as in `Asked`."""

    prompt_ids: list[int]
    row: dict[str, Any]
    asked: str | list[dict[str, str]] = ""


AlignedTokens = PairTokens | JudgedTokens | ComparedTokens | StepTokens | AskedTokens
