"""The options of one entry with every default filled, checked against the template and the tokenizer it is used with.

Where two options contradict each other or one could not act, the entry is refused before a row is read.
"""

from dataclasses import dataclass
from typing import Literal

from anneal_api.dataset import DatasetFields, DatasetSpec
from anneal_trainer.data.formats.chat.template import Template
from anneal_trainer.errors import ConfigError

ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
THINKING = "reasoning_content"
Ends = Literal["turn", "all", "last", "none"]


@dataclass(frozen=True)
class Options:
    """What an entry asks for. `roles` maps a name in the data to a role; `keys` a template's key to one in the data."""

    columns: tuple[str, ...]
    system_column: str
    tools_column: str
    roles: dict[str, str]
    known_roles: frozenset[str]
    trained_roles: frozenset[str]
    every_role: bool
    keys: dict[str, str]
    thinking: str
    training_key: str | None
    detail_key: str | None
    split_thinking: bool
    drop_system: bool
    special_text: Literal["keep", "escape", "fail"]
    eos: Ends
    eot: Ends

    @classmethod
    def of(cls, dataset: DatasetSpec, template: Template) -> "Options":
        """The entry's, or ConfigError."""
        fields = dataset.fields or DatasetFields()
        roles = _roles(dataset)
        known = frozenset(roles) | frozenset(roles.values()) | frozenset(ROLES.values()) & template.names
        eos = dataset.train_on_eos or "turn"
        thinking = dataset.template_thinking_key or THINKING
        return cls(
            columns=message_columns(fields),
            system_column=fields.system or "system",
            tools_column=fields.tools or "tools",
            roles=roles,
            known_roles=known | _role_words(template),
            trained_roles=_trained_roles(dataset, roles, known | template.names),
            every_role=dataset.train_on_inputs,
            keys={thinking: dataset.field_thinking or THINKING, **(dataset.message_property_mappings or {})},
            thinking=thinking,
            training_key=dataset.message_field_training,
            detail_key=dataset.message_field_training_detail,
            split_thinking=bool(dataset.split_thinking),
            drop_system=bool(dataset.drop_system_message),
            special_text=dataset.special_tokens_in_text or "keep",
            eos=eos,
            eot=dataset.train_on_eot or eos,
        )


# Roles that only some templates know; the others need them mapped.
_RARER = frozenset({"developer", "function", "ipython", "observation", "model", "tool_response"})


def _role_words(template: Template) -> frozenset[str]:
    return _RARER & template.names


def message_columns(fields: DatasetFields) -> tuple[str, ...]:
    """The columns in which the turns may be."""
    return (fields.messages,) if fields.messages else ("messages", "conversations")


def _roles(dataset: DatasetSpec) -> dict[str, str]:
    if dataset.roles is None:
        return ROLES
    mapped: dict[str, str] = {}
    for role, names in dataset.roles.items():
        for name in names:
            if mapped.setdefault(name, role) != role:
                raise ConfigError(f"roles gives {name!r} to both {mapped[name]} and {role}: name it once")
    return mapped


def _trained_roles(dataset: DatasetSpec, roles: dict[str, str], known: frozenset[str]) -> frozenset[str]:
    wanted = ["assistant"] if dataset.roles_to_train is None else dataset.roles_to_train
    trained = [roles.get(role, role) for role in wanted]
    for role in trained:
        if role not in known:
            raise ConfigError(
                f"rolesToTrain names {role!r}, which no turn can have: the roles here are "
                f"{', '.join(sorted(set(roles.values())))}; add it to roles"
            )
    return frozenset(trained)
