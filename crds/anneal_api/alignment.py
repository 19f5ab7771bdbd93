"""Rows of alignment: pairs, judged answers, compared answers, judged steps and prompts; how each type reads them.

The names are Axolotl's. One name can mean different rows in two families (`chatml.intel` is a pair for DPO and a judged
answer for KTO), so a type is looked up in the family that the method asks for. Not here: a kind that trains on them.
"""

from typing import ClassVar, Final, Literal

from pydantic import Field

from anneal_api.base import PATTERN_WORDS, Block, Rule, ShortText
from anneal_api.columns import Column, Slots

Family = Literal["preference", "unpaired", "reward", "stepwise", "prompt"]


def _need(*names: str) -> Column:
    return Column(names)


def _pair(*prompt: str) -> Slots:
    return {
        "system": Column(("system",), required=False),
        "prompt": Column(prompt),
        "chosen": _need("chosen"),
        "rejected": _need("rejected"),
    }


def _judged(*prompt: str) -> Slots:
    return {
        "system": Column(("system",), required=False),
        "prompt": Column(prompt),
        "completion": _need("completion"),
        "label": _need("label"),
    }


_DEFAULT_PAIR: Slots = {
    **_pair("prompt", "input", "question", "instruction"),
    "chosen": _need("chosen", "chosen_response"),
    "rejected": _need("rejected", "rejected_response"),
}
_ANSWERS: Slots = {"chosen": _need("chosen"), "rejected": _need("rejected")}
_PAIRS: dict[str, Slots] = {
    ".default": _DEFAULT_PAIR,
    "": _DEFAULT_PAIR,
    ".icr": _pair("input"),
    ".intel": _pair("question"),
    ".prompt_pairs": _pair("prompt"),
    ".ultra": _pair("prompt"),
    ".argilla_chat": _ANSWERS,
}
_JUDGED: dict[str, Slots] = {
    ".argilla": _judged("instruction"),
    ".argilla_chat": {"completion": _need("completion"), "label": _need("label")},
    ".intel": _judged("question"),
    ".prompt_pairs": _judged("prompt"),
    ".ultra": _judged("prompt"),
}
WORDINGS: Final = ("chatml", "llama3")
_TEMPLATED: Slots = {"messages": _need("messages"), **_ANSWERS}

ALIGNMENT_READS: dict[Family, dict[str, Slots]] = {
    "preference": {
        **{f"{base}{variant}": slots for base in WORDINGS for variant, slots in _PAIRS.items()},
        "zephyr.nectar": {"prompt": _need("prompt"), "answers": _need("answers")},
        "chat_template": _TEMPLATED,
        "chat_template.default": _TEMPLATED,
        "chat_template.argilla_chat": _ANSWERS,
        "chat_template.argilla": {
            "system": Column(("system",), required=False),
            "prompt": Column(("prompt",), required=False),
            **_ANSWERS,
        },
        "user_defined": _pair("prompt"),
        "passthrough": {"prompt": _need("prompt"), **_ANSWERS},
    },
    "unpaired": {
        **{f"{base}{variant}": slots for base in WORDINGS for variant, slots in _JUDGED.items()},
        "user_defined": _judged("prompt"),
    },
    "reward": {"bradley_terry.chat_template": _pair("input")},
    "stepwise": {
        "stepwise_supervised": {
            "prompt": _need("prompt"),
            "completions": _need("completions"),
            "labels": _need("labels"),
        }
    },
    "prompt": {"prompt": {"prompt": _need("prompt")}, "chat_template": {"messages": _need("messages")}},
}
# What an absent type is taken for. Pairs whose prompt is text are not guessed: their wording is a person's choice.
ALIGNMENT_DETECTED: dict[Family, tuple[str, ...]] = {
    "preference": ("chat_template.default", "zephyr.nectar"),
    "unpaired": (),
    "reward": ("bradley_terry.chat_template",),
    "stepwise": ("stepwise_supervised",),
    "prompt": ("prompt", "chat_template"),
}


class AlignmentFields(Block):
    """Column names, where the data's own differ from what its type expects."""

    system: ShortText | None = Field(default=None, description="The system text; absent or null is none.")
    prompt: ShortText | None = Field(default=None, description="What is asked.")
    messages: ShortText | None = Field(default=None, description="chat_template: the turns before the answer.")
    chosen: ShortText | None = Field(default=None, description="The better answer.")
    rejected: ShortText | None = Field(default=None, description="The worse answer.")
    answers: ShortText | None = Field(default=None, description="zephyr.nectar: the list of {answer, rank}.")
    completion: ShortText | None = Field(default=None, description="The answer that is judged.")
    label: ShortText | None = Field(default=None, description="Whether the answer is wanted: true or false.")
    completions: ShortText | None = Field(default=None, description="stepwise_supervised: the list of steps.")
    labels: ShortText | None = Field(default=None, description="stepwise_supervised: whether each step is right.")


# What `str.format` fills in; a brace of the text itself is doubled.
_LONGEST = 16384


def _template(names: str, default: str, description: str) -> str:
    pattern = rf"^([^{{}}]|\{{\{{|\}}\}}|\{{({names})\}})*$"
    filled = " and ".join(f"{{{name}}}" for name in names.split("|"))
    PATTERN_WORDS[pattern] = (
        f"a text in which only {filled} {'are' if '|' in names else 'is'} filled in; write {{{{ and }}}} for braces"
    )
    made: str = Field(default=default, min_length=1, max_length=_LONGEST, pattern=pattern, description=description)
    return made


class AlignmentFormat(Block):
    """`type: user_defined`: how columns become prompt and answers."""

    prompt_format: str = _template(
        "system|prompt", "{prompt}", "The prompt, with {prompt} and {system} filled in; no system is an empty text."
    )
    chosen_format: str = _template("chosen", "{chosen}", "The better answer.")
    rejected_format: str = _template("rejected", "{rejected}", "The worse answer.")
    completion_format: str = _template("completion", "{completion}", "The judged answer.")


class AlignmentRows(Block):
    """How the rows of one source are read."""

    type: ShortText | None = Field(default=None, description="How a row is read. Default: detected where that is safe.")
    fields: AlignmentFields | None = Field(default=None, description="Column names, where they differ.")
    format: AlignmentFormat | None = Field(default=None, description="The texts of type user_defined.")
    step_separator: str = Field(
        default="\n", min_length=1, max_length=64, description="stepwise_supervised: what stands behind each step."
    )
    max_completion_length: int | None = Field(
        default=None, ge=1, le=10_000_000, description="stepwise_supervised: the most tokens of all steps together."
    )
    train_on_last_step_only: bool = Field(
        default=False, description="stepwise_supervised: only the last step's label is trained."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.format) == (has(self.type) && self.type == 'user_defined')",
            message="format and type: user_defined go together; write format: {} for its defaults",
            holds=lambda r: (r.format is not None) == (r.type == "user_defined"),
            field="format",
        ),
        Rule(
            cel="(has(self.type) && self.type == 'stepwise_supervised') || ((!has(self.stepSeparator) || self.stepSeparator == '\\n') && !has(self.maxCompletionLength) && (!has(self.trainOnLastStepOnly) || !self.trainOnLastStepOnly))",
            message="stepSeparator, maxCompletionLength and trainOnLastStepOnly are for type: stepwise_supervised",
            holds=lambda r: (
                r.type == "stepwise_supervised"
                or (r.step_separator, r.max_completion_length, r.train_on_last_step_only) == ("\n", None, False)
            ),
        ),
    )
