"""`spec.datasets` and `spec.evaluation`: the rows that are trained on and those that are held out."""

from typing import ClassVar, Literal, get_args

from pydantic import Field

from anneal_api.base import (
    Block,
    InstructionTemplate,
    LongText,
    Rule,
    ShortText,
    SystemTemplate,
    TurnTemplate,
    bounded,
)
from anneal_api.chat import CHAT_RULES, ChatOptions
from anneal_api.columns import ALL_TRAINED, READS, not_reading
from anneal_api.datasource import DataSource
from anneal_api.evaluation import EvaluationBase

DatasetType = Literal[
    "chat_template",
    "messages",
    "alpaca",
    "gpteacher",
    "oasst",
    "jeopardy",
    "explainchoice",
    "alpaca:instruct",
    "alpaca:chat",
    "alpaca:chatml",
    "alpaca:phi",
    "gpteacher:instruct",
    "gpteacher:chat",
    "gpteacher:chatml",
    "gpteacher:phi",
    "oasst:instruct",
    "oasst:chat",
    "oasst:chatml",
    "oasst:phi",
    "jeopardy:instruct",
    "jeopardy:chat",
    "jeopardy:chatml",
    "jeopardy:phi",
    "explainchoice:instruct",
    "explainchoice:chat",
    "explainchoice:chatml",
    "explainchoice:phi",
    "alpaca_chat",
    "alpaca_chat.load",
    "alpaca_chat.load_concise",
    "alpaca_chat.load_no_prompt",
    "alpaca_chat.load_qa",
    "alpaca_chat.load_camel_ai",
    "alpaca_instruct",
    "alpaca_instruct.load",
    "alpaca_instruct.load_no_prompt",
    "alpaca_w_system",
    "alpaca_w_system.load",
    "alpaca_w_system.load_chat",
    "alpaca_w_system.load_instruct",
    "alpaca_w_system.load_open_orca",
    "alpaca_w_system.load_open_orca_chatml",
    "orcamini",
    "concisechoice",
    "summarizetldr",
    "reflection",
    "reflection:instruct",
    "reflection:chat",
    "context_qa",
    "context_qa.load",
    "context_qa.load_v2",
    "context_qa.load_404",
    "creative_acr.load_answer",
    "creative_acr.load_critique",
    "creative_acr.load_revise",
    "metharme",
    "pygmalion",
    "llama2_chat",
    "user_defined",
    "input_output",
    "completion",
    "pretrain",
    "tokenized",
]
DATASET_TYPES: tuple[str, ...] = get_args(DatasetType)
# What `method: pretrain` accepts: rows of which every token is text to learn.
PRETRAIN_TYPES = ("pretrain", "completion", "tokenized")


class DatasetFields(Block):
    """Column names, where the data's own differ from what its type expects."""

    messages: ShortText | None = Field(
        default=None,
        description="chat_template, messages: the list of turns. Default: messages, else conversations.",
    )
    system: ShortText | None = Field(
        default=None,
        description="The row's system text; absent or null is none. chat_template puts it in front as a turn where the turns do not begin with one; alpaca_w_system, orcamini and user_defined word it themselves. Default: system, or system_prompt.",
    )
    tools: ShortText | None = Field(
        default=None,
        description="chat_template: the tools a model may call, a list of JSON schemas or that list as JSON text. Default: tools.",
    )
    instruction: ShortText | None = Field(
        default=None,
        description="Types with a prompt and an answer: what is asked. Default: what the type's files call it, like instruction, question or prompt.",
    )
    input: ShortText | None = Field(
        default=None, description="The alpaca family and user_defined: optional context. Default: input."
    )
    output: ShortText | None = Field(
        default=None,
        description="Types with a prompt and an answer: the answer, which is trained. Default: what the type's files call it, like output, response or answer.",
    )
    text: ShortText | None = Field(
        default=None, description="completion and pretrain: the text, all of it trained. Default: text."
    )
    context: ShortText | None = Field(
        default=None, description="context_qa: the text that the question is about. Default: article, or context."
    )
    choices: ShortText | None = Field(
        default=None,
        description="explainchoice and concisechoice: the list of answers to choose from. Default: choices.",
    )
    segments: ShortText | None = Field(
        default=None, description="input_output: the list of {label, text}. Default: segments."
    )


class FormatSpec(Block):
    """`type: user_defined`: how a row's columns become the prompt. The answer follows it, then the end of sequence."""

    system_prompt: LongText = Field(
        default="",
        description="The system text of rows whose own is absent or null. A row's empty text stands for none.",
    )
    system_format: SystemTemplate = Field(
        default="{system}", description="Written first if there is a system text, which replaces {system}."
    )
    format: TurnTemplate = Field(
        default="{instruction} {input} ",
        description="The prompt of a row with an input. Braces of the text are doubled.",
    )
    no_input_format: InstructionTemplate = Field(
        default="{instruction} ", description="The prompt of a row whose input is empty, absent or null."
    )


def _acts(slot: str) -> Rule:
    """`fields.SLOT` is for types that read the slot: on another it would change nothing, silently."""
    others = not_reading(slot)
    readers = ", ".join(kind for kind in READS if kind not in others and ":" not in kind and ".load" not in kind)
    listed = ", ".join(f"'{kind}'" for kind in others)
    return Rule(
        cel=f"!has(self.fields) || !has(self.fields.{slot}) || !has(self.type) || !(self.type in [{listed}])",
        message=f"the dataset's type does not read this column; it is for {readers}",
        holds=lambda d: d.fields is None or getattr(d.fields, slot) is None or d.type not in others,
        field=f"fields.{slot}",
    )


_ALL_TRAINED = ", ".join(f"'{kind}'" for kind in ALL_TRAINED)
_ROW_RULES = (
    Rule(
        cel="has(self.format) == (has(self.type) && self.type == 'user_defined')",
        message="format and type: user_defined go together; write format: {} for its defaults",
        holds=lambda d: (d.format is not None) == (d.type == "user_defined"),
        field="format",
    ),
    Rule(
        cel=f"!has(self.trainOnInputs) || !self.trainOnInputs || !has(self.type) || !(self.type in [{_ALL_TRAINED}])",
        message="completion and pretrain train every token anyway, and tokenized rows say by their labels what is trained",
        holds=lambda d: not d.train_on_inputs or d.type not in ALL_TRAINED,
        field="trainOnInputs",
    ),
    Rule(
        cel="!has(self.trainOnInputs) || !self.trainOnInputs || !has(self.rolesToTrain)",
        message="trainOnInputs trains what every role says: leave rolesToTrain out",
        holds=lambda d: not d.train_on_inputs or d.roles_to_train is None,
        field="rolesToTrain",
    ),
    *(_acts(slot) for slot in DatasetFields.model_fields),
)


class DatasetSpec(DataSource, ChatOptions):
    """One source of training rows."""

    type: DatasetType | None = Field(
        default=None,
        description="How a row becomes tokens; the names are those of Axolotl, BASE:STYLE and all, and docs/dataset-types.md says what each reads and writes. Common: chat_template (messages), messages (messages with train or weight), alpaca (instruction, input, output), completion (text), input_output (segments), tokenized (input_ids, labels), user_defined (with format). Default: detected from the columns, and shown in status.",
    )
    fields: DatasetFields | None = Field(
        default=None, description="Column names, where the data's differ from the type's."
    )
    format: FormatSpec | None = Field(default=None, description="The prompt of type user_defined, and of no other.")
    train_on_inputs: bool = Field(
        default=False,
        description="Train prompts too, not answers alone; of conversations, what every role says and the ends of its turns. Not for types that train every token anyway.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (*DataSource.rules, *_ROW_RULES, *CHAT_RULES)


class EvaluationSpec(EvaluationBase):
    """How progress is judged beside the training loss."""

    datasets: list[DatasetSpec] = bounded(
        "Sources of rows to measure the loss on, instead of a holdout; treated as the training rows are.", most=16
    )
