"""What a `datasets` entry says about conversations: their template, their keys, and which of it is trained.

The names are those that people's manifests have had for years, in camelCase. Every default is absent, so that an entry
of another type does not carry them; the trainer fills them in. Not here: which column holds the turns (`fields`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from anneal_api.base import Block, Rule, ShortText

CHAT_TYPES = ("chat_template", "messages")
Ends = Literal["turn", "all", "last", "none"]
SpecialText = Literal["keep", "escape", "fail"]
# Whatever a template's author chose to read: no schema can say more.
TemplateKwargs = Annotated[
    dict[ShortText, Any],
    WithJsonSchema(
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "minProperties": 1, "maxProperties": 16}
    ),
]
Names = Annotated[list[ShortText], Field(max_length=32)]


class ChatOptions(Block):
    """The options of conversations; each of them acts, or is refused."""

    chat_template: str | None = Field(
        default=None,
        min_length=1,
        max_length=32768,
        description="How this entry's messages become text: tokenizer_default, the name of a built-in template (chatml, llama3, gemma, gemma3, cohere, aya, phi_3, phi_35, deepseek_v2, mistral_v1, exaone, alpaca), tokenizer_default_fallback_NAME, or Jinja text. Type messages: chatml (default) or llama3. Default: model.chatTemplate.",
    )
    chat_template_kwargs: TemplateKwargs | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Variables for the chat template, like {enable_thinking: false}; each must be one that the template reads. They are not saved with the model: a server must be sent the same.",
    )
    roles: dict[ShortText, Names] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="For each role of the template, the names it has in the data. Default: user [user, human], assistant [assistant, gpt], system, tool. A role that the template itself names needs no entry.",
    )
    roles_to_train: list[ShortText] | None = Field(
        default=None,
        max_length=16,
        description="Roles whose turns are trained. Default: [assistant]. Empty only together with per-message marks, which then choose alone.",
    )
    train_on_eos: Ends | None = Field(
        default=None,
        description="Which end-of-sequence tokens behind turns are trained: turn (behind trained turns, default), all, last (behind the last trained turn), none.",
    )
    train_on_eot: Ends | None = Field(
        default=None,
        description="The same for the tokens that end a turn. Default: as trainOnEos. The token that ends a turn is found from the template even where it is not EOS, so a model always learns to stop.",
    )
    eot_tokens: list[ShortText] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="The tokens that end a turn. Default: those that the template writes behind an assistant's words.",
    )
    message_property_mappings: dict[ShortText, ShortText] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="For each key that the template reads from a message, the key it has in the data, like {role: from, content: value}.",
    )
    message_field_training: ShortText | None = Field(
        default=None,
        description="The key of a message that holds true or false: whether the turn is trained, whatever its role. Type messages: default train, else weight.",
    )
    message_field_training_detail: ShortText | None = Field(
        default=None,
        description="The key of a message that lists parts of its content as {begin_offset, end_offset, train}; the offsets count characters and include both ends. Ranges that touch are one; a token on an edge is trained if at least two of its characters are inside.",
    )
    field_thinking: ShortText | None = Field(
        default=None, description="The key of a message that holds the reasoning. Default: reasoning_content."
    )
    template_thinking_key: ShortText | None = Field(
        default=None, description="The key under which the template reads the reasoning. Default: reasoning_content."
    )
    split_thinking: bool | None = Field(
        default=None,
        description="Take reasoning between <think>, <reasoning> or <|begin_of_thought|> tags out of an assistant's content and hand it to the template as reasoning.",
    )
    drop_system_message: bool | None = Field(
        default=None, description="Leave out a system turn that begins a conversation."
    )
    special_tokens_in_text: SpecialText | None = Field(
        default=None,
        description="A special token's name inside what a user, system or tool says would become that token: keep (default; counted in the report), escape (a space is put behind its first character) or fail.",
    )


def chat_options(entry: Any) -> list[str]:
    """The chat options that an entry sets, as a manifest writes them."""
    fields = ChatOptions.model_fields
    return [str(info.alias) for name, info in fields.items() if getattr(entry, name) is not None]


def _only_for_chat() -> Rule:
    names = [str(info.alias) for info in ChatOptions.model_fields.values()]
    other = " && ".join(f"self.type != '{kind}'" for kind in CHAT_TYPES)
    given = " || ".join(f"has(self.{name})" for name in names)
    return Rule(
        cel=f"!(has(self.type) && {other}) || !({given})",
        message=f"{', '.join(names)} are options of the types {' and '.join(CHAT_TYPES)}: leave them out or change type",
        holds=lambda entry: entry.type in (None, *CHAT_TYPES) or not chat_options(entry),
        field="type",
    )


CHAT_RULES = (
    _only_for_chat(),
    Rule(
        cel="!has(self.rolesToTrain) || self.rolesToTrain.size() > 0 || has(self.messageFieldTraining) || has(self.messageFieldTrainingDetail)",
        message="an empty list trains nothing: name roles, or the key of a message that says what is trained (messageFieldTraining or messageFieldTrainingDetail)",
        holds=lambda entry: (
            entry.roles_to_train != [] or bool(entry.message_field_training or entry.message_field_training_detail)
        ),
        field="rolesToTrain",
    ),
)
