"""Conversations: which characters are trained, for every option and shape of row."""

import json
import pickle
from typing import Any

import pytest

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import RowError
from anneal_trainer.errors import ConfigError
from trainer.chats import LLAMA3, chat, renderer, seen, turns

HI = (("user", "hi"), ("assistant", "yes"))
HI_SEEN = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yes<|im_end|>»\n"
LONG = (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))


def chatml(*pairs: tuple[str, str]) -> str:
    """The expected text: the mark of an untrained end is left to the caller."""
    return "".join(f"<|im_start|>{role}\n{content}\n" for role, content in pairs)


OPTIONS = [
    pytest.param({}, ["s<|im_end|>", "u<|im_end|>", "«a<|im_end|>»", "v<|im_end|>", "«b<|im_end|>»"], id="by default the assistant and its ends"),
    pytest.param({"train_on_eos": "all"}, ["s«<|im_end|>»", "u«<|im_end|>»", "«a<|im_end|>»", "v«<|im_end|>»", "«b<|im_end|>»"], id="every end"),
    pytest.param({"train_on_eos": "last"}, ["s<|im_end|>", "u<|im_end|>", "«a»<|im_end|>", "v<|im_end|>", "«b<|im_end|>»"], id="the last end"),
    pytest.param({"train_on_eos": "none"}, ["s<|im_end|>", "u<|im_end|>", "«a»<|im_end|>", "v<|im_end|>", "«b»<|im_end|>"], id="no end"),
    pytest.param({"roles_to_train": ["user"]}, ["s<|im_end|>", "«u<|im_end|>»", "a<|im_end|>", "«v<|im_end|>»", "b<|im_end|>"], id="another role"),
    pytest.param({"roles_to_train": ["human", "system"]}, ["«s<|im_end|>»", "«u<|im_end|>»", "a<|im_end|>", "«v<|im_end|>»", "b<|im_end|>"], id="roles by the data's names"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "contents"), OPTIONS)
def test_roles_and_ends_are_trained_as_asked(options: dict[str, Any], contents: list[str]) -> None:
    """`rolesToTrain` chooses turns and trainOnEos the tokens that end them."""
    expected = chatml(*((role, content) for (role, _), content in zip(LONG, contents, strict=True)))
    assert seen(chat(**options)(turns(*LONG))) == expected


def test_the_end_of_a_turn_is_trained_where_eos_is_another_token() -> None:
    """The token that ends a turn is found from the template: a model that never learns it never stops."""
    form = chat(renderer(eos="<|endoftext|>"))
    assert seen(form(turns(*HI))) == HI_SEEN
    assert not form(turns(*HI)).notes  # type: ignore[union-attr]


def test_ends_of_turns_and_of_sequences_have_options_of_their_own() -> None:
    """A template that writes both has each trained as trainOnEot and trainOnEos say."""
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|eot_id|>{{ eos_token }}{% endfor %}"
    made, row = renderer(template, eos="</s>"), turns(*HI)
    both = ["<|eot_id|>", "</s>"]
    for named in ({}, {"eot_tokens": ["<|eot_id|>"]}, {"eot_tokens": both}):
        assert seen(chat(made, **named)(row)) == "user:hi<|eot_id|></s>assistant:«yes<|eot_id|></s>»"
    for named in ({}, {"eot_tokens": ["<|eot_id|>"]}):
        form = chat(made, train_on_eot="turn", train_on_eos="none", **named)
        assert seen(form(row)) == "user:hi<|eot_id|></s>assistant:«yes<|eot_id|>»</s>"
        form = chat(made, train_on_eot="none", train_on_eos="all", **named)
        assert seen(form(row)) == "user:hi<|eot_id|>«</s>»assistant:«yes»<|eot_id|>«</s>»"
    with pytest.raises(ConfigError, match=r"trainOnEos is all and trainOnEot is turn, but </s> is both"):
        chat(made, train_on_eos="all", train_on_eot="turn", eot_tokens=both)


def test_an_end_behind_the_next_turns_words_is_that_turns() -> None:
    """A template that writes EOS behind answers alone has none for a question, however short the answer is."""
    template = "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }} A: {% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    row = {"messages": [{"role": "user", "content": "u", "t": True}, {"role": "assistant", "content": "a", "t": False}]}
    form = chat(renderer(template, eos="</s>"), message_field_training="t")
    assert seen(form(row)) == "Q: «u» A: a</s>"
    row["messages"][1] |= {"reasoning_content": "found by comparing"}
    assert seen(form(row)) == "Q: «u» A: a</s>"


def test_train_on_inputs_trains_what_every_role_says() -> None:
    """The turns and their ends, but for those whose own mark says no; the template's frame is not trained."""
    row = turns(("system", "s"), ("user", "u"), ("assistant", "a"))
    row["messages"][1]["t"] = False
    for kind in ({"message_field_training": "t"}, {"type": "messages", "message_field_training": "t"}):
        shown = seen(chat(train_on_inputs=True, **kind)(row)).replace("⟦", "").replace("⟧", "")
        assert shown == chatml(("system", "«s<|im_end|>»"), ("user", "u<|im_end|>"), ("assistant", "«a<|im_end|>»"))


def test_an_empty_turn_trains_nothing_beside_it() -> None:
    """Neither the text behind it nor the header, whatever the template writes there."""
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"
    assert seen(chat(renderer(template))(turns(("user", "u"), ("assistant", "")))) == "[user]u[end][assistant][end]"


def test_a_key_is_passed_on_however_the_template_reads_it() -> None:
    """Also where it gives the message another name first; what it writes of a key belongs to the turn."""
    template = "{% for m in messages %}{% set turn = m %}{{ turn.name }}:{{ turn.content }}<|im_end|>{% endfor %}"
    row = {"messages": [{"role": "assistant", "content": "a", "name": "Ann"}]}
    assert seen(chat(renderer(template))(row)) == "«Ann:a<|im_end|>»"


def test_an_entry_gives_its_template_variables() -> None:
    """`chatTemplateKwargs` reach every rendering; one that the template does not read is refused."""
    template = "{% for m in messages %}{% if loud %}!{% endif %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    form = chat(renderer(template), chat_template_kwargs={"loud": True})
    assert seen(form(turns(*HI))) == "!user:hi<|im_end|>!assistant:«yes<|im_end|>»"
    for name in ("load", "messages"):
        with pytest.raises(ConfigError, match=f"chatTemplateKwargs gives {name}, which the chat template does not"):
            chat(renderer(template), chat_template_kwargs={name: True})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yes<|im_end|>»\n"),
        ("llama3", "<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«yes<|eot_id|>»"),
        ("gemma3", "<s><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»\n"),
        ("gemma", "<s><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»\n"),
        ("mistral_v1", "<s> [INST] hi [/INST] «yes<|im_end|>»"),
        ("alpaca", "<s>### Instruction:\nhi\n\n### Response:\n«yes<|im_end|>»"),
    ],
)  # fmt: skip
def test_a_built_in_template_is_chosen_by_name(name: str, expected: str) -> None:
    """An entry's chatTemplate wins over the model's."""
    assert seen(chat(renderer("{{ 'other' }}"), chat_template=name)(turns(*HI))) == expected


@pytest.mark.parametrize(
    ("own", "choice", "expected"),
    [
        (LLAMA3, "tokenizer_default", TEMPLATES["llama3"]),
        (LLAMA3, "tokenizer_default_fallback_chatml", TEMPLATES["llama3"]),
        (None, "tokenizer_default_fallback_chatml", TEMPLATES["chatml"]),
        (LLAMA3, "{{ messages[0].content }}", "{{ messages[0].content }}"),
    ],
)
def test_a_template_is_the_tokenizers_a_fallback_or_jinja(own: str | None, choice: str, expected: str) -> None:
    """`chatTemplate` takes the words that people know."""
    assert renderer(own).chosen(choice).source == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chat_template": "chatm"}, "chatTemplate chatm is not built in; write tokenizer_default (the model's own, which newer models bring), tokenizer_default_fallback_NAME, chatml, llama3,"),
        ({"chat_template": "phi_3"}, "chatTemplate phi_3 writes <|system|>, <|user|>, <|assistant|>, <|end|>, which this tokenizer lacks"),
        ({"chat_template": "{% for"}, "the chat template is not Jinja: line 1"),
        ({"roles_to_train": ["asistant"]}, "rolesToTrain names 'asistant', which no turn can have: the roles here are assistant, system, tool, user"),
        ({"eot_tokens": ["<|end|>"]}, "eotTokens: <|end|> is not one token of this tokenizer"),
        ({"eot_tokens": ["<|eot_id|>"]}, "the chat template never writes <|eot_id|>; what ends its turns: <|im_end|>"),
        ({"roles": {"user": ["x"], "assistant": ["x"]}}, "roles gives 'x' to both user and assistant"),
        ({"type": "messages", "split_thinking": True}, "splitThinking cannot act on type messages"),
        ({"type": "messages", "chat_template": "gemma"}, "type messages writes chatml or llama3, not 'gemma'"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_act_is_refused(options: dict[str, Any], words: str) -> None:
    """Before a row is read, with what is accepted instead."""
    with pytest.raises(ConfigError) as raised:
        chat(**options)
    assert words in str(raised.value)


def test_chat_options_of_another_detected_type_are_refused() -> None:
    """An option that the schema lets through because the type was left out is not dropped in silence."""
    entry = DatasetSpec.model_validate({"source": "./rows.csv", "rolesToTrain": ["user"]})
    with pytest.raises(ConfigError, match=r"rolesToTrain cannot act on rows of type alpaca, as \./rows\.csv has"):
        formats.formatter(entry.model_copy(update={"type": "alpaca"}), renderer=renderer)


def test_columns_keys_and_roles_may_have_other_names() -> None:
    """fields, messagePropertyMappings and roles say what the data calls things."""
    form = chat(
        fields={"messages": "dialog", "system": "persona"},
        message_property_mappings={"role": "who", "content": "said"},
        roles={"user": ["client"], "assistant": ["bot"]},
        roles_to_train=["bot"],
    )
    row = {"persona": "Be kind", "dialog": [{"who": "client", "said": "hi"}, {"who": "bot", "said": "yes"}]}
    assert seen(form(row)) == "<|im_start|>system\nBe kind<|im_end|>\n" + HI_SEEN


@pytest.mark.parametrize(
    ("row", "options"),
    [
        pytest.param({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}, {}, id="ShareGPT"),
        pytest.param({"messages": json.dumps(turns(*HI)["messages"])}, {}, id="JSON text"),
        pytest.param({**turns(*HI), "system": None, "tools": None}, {}, id="a null system and tools"),
        pytest.param(turns(("system", "s"), *HI), {"drop_system_message": True}, id="a dropped system turn"),
        pytest.param({**turns(*HI), "system": "s"}, {"drop_system_message": True}, id="a dropped system column"),
        pytest.param({"messages": [{"role": "user", "content": "hi", "name": None}, {"role": "assistant", "content": "yes", "tool_calls": None}]}, {}, id="null keys"),
        pytest.param(turns(("user", [{"type": "text", "text": "h"}, "i"]), ("assistant", [{"value": "ye"}, {"content": "s"}])), {}, id="content parts"),
    ],
)  # fmt: skip
def test_many_hands_write_the_same_conversation(row: dict[str, Any], options: dict[str, Any]) -> None:
    """Shapes that mean the same become the same text and marks."""
    assert seen(chat(**options)(row)) == HI_SEEN


def test_a_system_column_gives_way_to_a_system_turn() -> None:
    """A conversation that begins with a system turn keeps it."""
    assert "other" not in seen(chat()(turns(("system", "own"), *HI, system="other")))


def test_marks_of_messages_win_over_roles() -> None:
    """`messageFieldTraining` trains or leaves out a turn, whoever speaks; without a mark the role decides."""
    form = chat(message_field_training="train")
    row = {
        "messages": [
            {"role": "user", "content": "u", "train": True},
            {"role": "assistant", "content": "a", "train": 0},
            {"role": "assistant", "content": "b"},
        ]
    }
    expected = chatml(("user", "«u<|im_end|>»"), ("assistant", "a<|im_end|>"), ("assistant", "«b<|im_end|>»"))
    assert seen(form(row)) == expected
    only = chat(message_field_training="train", roles_to_train=[])
    assert "«b" not in seen(only(row))


def test_ranges_and_parts_are_marked_where_they_stand() -> None:
    """Ranges count characters with both ends included; flags of parts keep the rest out."""
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "one two", "d": [{"begin_offset": 4, "end_offset": 6, "train": True}, {"begin_offset": 0, "end_offset": 3, "train": False}]}]}  # fmt: skip
    assert seen(chat(message_field_training_detail="d")(row)).endswith("assistant\none {two}«<|im_end|>»\n")
    parts = [{"type": "text", "text": "one ", "train": False}, {"type": "text", "text": "two", "weight": 1}]
    assert seen(chat()(turns(("user", "u"), ("assistant", parts)))).endswith("assistant\n⟦one ⟧«two<|im_end|>»\n")


def test_a_range_is_moved_with_a_trimmed_content() -> None:
    """Offsets are into the data's content, also where the template trims it."""
    row = {
        "messages": [
            {"role": "assistant", "content": "  one two ", "d": [{"begin_offset": 2, "end_offset": 4, "train": True}]}
        ]
    }
    assert "\n\n{one} two«<|eot_id|>»" in seen(chat(renderer(LLAMA3), message_field_training_detail="d")(row))


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>{% endfor %}"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>\nhm\n</think>\n\nyes", "«<think>hm</think>yes<|im_end|>»"),
        ("<reasoning>hm</reasoning>yes", "«<think>hm</think>yes<|im_end|>»"),
        ("<|begin_of_thought|>hm<|end_of_thought|> <|begin_of_solution|> yes <|end_of_solution|>", "«<think>hm</think>yes<|im_end|>»"),
        ("no tags", "«no tags<|im_end|>»"),
        ("</think> the wrong way round <think>", "«</think> the wrong way round <think><|im_end|>»"),
    ],
)  # fmt: skip
def test_reasoning_is_split_from_an_answer(content: str, expected: str) -> None:
    """`splitThinking` hands the template what is between the tags, and both are trained."""
    form = chat(renderer(THINKING), split_thinking=True)
    assert seen(form(turns(("user", "u"), ("assistant", content)))).split("assistant\n")[1] == expected


def test_reasoning_has_keys_of_its_own() -> None:
    """`fieldThinking` is read and templateThinkingKey written; parts of it can be marked."""
    template = THINKING.replace("reasoning_content", "inner")
    form = chat(renderer(template), field_thinking="why", template_thinking_key="inner")
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "yes", "why": "hm"}]}
    assert seen(form(row)).endswith("«<think>hm</think>yes<|im_end|>»")
    row["messages"][1]["why"] = [{"text": "h", "train": True}, {"text": "m", "train": False}]
    assert seen(form(row)).endswith("<think>«h»⟦m⟧</think>yes«<|im_end|>»")


TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}<|im_end|>{% endfor %}"
)


def test_tool_calls_are_trained_with_the_turn() -> None:
    """Arguments and parameters that are JSON text become values; calls belong to the turn that makes them."""
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    tool = {"type": "function", "function": {"name": "add", "parameters": '{"type": "object"}', "strict": None}}
    row = {
        "messages": [
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2"},
        ],
        "tools": json.dumps([tool]),
    }
    assert seen(chat(renderer(TOOLS))(row)) == (
        '[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]<|im_start|>user\n1+1<|im_end|>'
        '<|im_start|>assistant\n«[add {"a": 1}]<|im_end|>»<|im_start|>tool\n2<|im_end|><|im_start|>assistant\n«It is 2<|im_end|>»'
    )
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}', "the row itself is not changed"


def test_a_turn_may_be_a_call_alone() -> None:
    """An assistant that calls a tool and says nothing has no content, whether or not the row lists tools."""
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    row = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "tool_calls": [call]}]}
    assert seen(chat(renderer(TOOLS))(row)).endswith('<|im_start|>assistant\n«[add {"a": 1}]<|im_end|>»')


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral_v1"])
def test_what_transformers_compiled_renders_what_transformers_renders(name: str) -> None:
    """Messages of role and text go straight to the compiled template: text, prompt and refusal are the same."""
    from transformers.utils.chat_template_utils import render_jinja_template

    made = renderer(TEMPLATES[name]).chosen(None)
    asked: list[dict[str, Any]] = [{"role": "user", "content": " a\n"}]
    for messages in (asked, [*asked, {"role": "assistant", "content": "b"}], [*asked, *asked]):
        for prompt in (False, True):
            options = {"add_generation_prompt": prompt, **dict(made.renderer.variables)}
            try:
                expected = render_jinja_template([messages], chat_template=made.source, **options)[0][0]
            except Exception as error:  # noqa: BLE001 - whatever a template raises
                with pytest.raises(RowError, match=str(error)):
                    made.render(messages, prompt=prompt)
            else:
                assert made.render(messages, prompt=prompt) == expected


@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("from", "content")])
def test_a_null_beside_a_turn_changes_nothing(keys: tuple[str, str]) -> None:
    """Turns of role and text are read the short way; what Arrow puts beside them does not make them others."""
    turn = [{keys[0]: role, keys[1]: content} for role, content in (("human", "hi"), ("gpt", "yes"))]
    read = []
    for messages in (turn, [{**message, "weight": None} for message in turn]):
        try:
            read.append(seen(chat()({"messages": messages})))
        except RowError as error:
            read.append(str(error).partition("got")[0])
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (turns(("user", "u"), tools="{"), 'tools must be JSON, got "{"'),
        (turns(("user", "u"), tools=[1]), "tools must be a list of JSON schemas"),
        (turns(("user", 5)), "messages[0].content must be text or a list of parts, got 5"),
        (turns(("user", [{"type": "image", "url": "x"}])), "messages[0].content[0] must be a part with text"),
        (turns(("user", [{"text": "a", "train": "yes"}])), 'messages[0].content[0] must be true or false, got "yes"'),
        (turns(("user", "u"), system=7), "system must be text, got 7"),
        ({"messages": [{"role": "user", "content": "a", "t": "no"}]}, 'messages[0].t must be true or false, got "no"'),
        ({"messages": [{"role": "user", "content": "a", "d": [{"begin_offset": 3, "end_offset": 1, "train": True}]}]}, "messages[0].d[0] must hold begin_offset and end_offset"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{a"}}]}]}, 'messages[0].tool_calls[0].function.arguments must be JSON, got "{a"'),
        ({"messages": "[1"}, 'messages must be a list of turns with role and content, got "[1"'),
    ],
)  # fmt: skip
def test_a_conversation_that_does_not_fit_is_explained(row: dict[str, Any], words: str) -> None:
    """Every refusal names the place, what was found and what is accepted."""
    with pytest.raises(RowError) as raised:
        chat(renderer(TOOLS), message_field_training="t", message_field_training_detail="d")(row)
    assert words in str(raised.value)


def test_special_tokens_in_a_users_text_are_kept_escaped_or_refused() -> None:
    """They would become real tokens: by default that is noted, and it can be prevented."""
    row = turns(("user", "stop<|im_end|>now"), ("assistant", "yes"))
    kept = chat()(row)
    assert [note.kind[:33] for note in kept.notes] == ["hold the name of a special token "]  # type: ignore[union-attr]
    assert "stop< |im_end|>now" in seen(chat(special_tokens_in_text="escape")(row))
    with pytest.raises(RowError, match=r'the user\'s text holds "<\|im_end\|>", the name of a special token'):
        chat(special_tokens_in_text="fail")(row)


def test_marks_that_no_option_reads_are_told() -> None:
    """train: false and weight: 0 are OpenAI's and Axolotl's names; an entry says which key it means."""
    for mark in ({"train": False}, {"weight": 0}):
        row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **mark}]}
        [note] = chat()(row).notes  # type: ignore[union-attr]
        assert (note.reason, "set messageFieldTraining" in note.kind) == ("ColumnsUnread", True)
        assert chat(message_field_training=next(iter(mark)))(row).notes == ()  # type: ignore[union-attr]
    assert chat()({"messages": [{"role": "assistant", "content": "b", "weight": 1}]}).notes == ()  # type: ignore[union-attr]


def test_keys_under_other_names_are_named() -> None:
    """With the option that gives them their meaning."""
    words = r"messages\[0\].role is null, the turn has who, say: name the keys of role and content in messageProperty"
    with pytest.raises(RowError, match=words):
        chat()({"messages": [{"who": "user", "say": "Q"}]})


@pytest.mark.parametrize(
    ("template", "row", "words"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", turns(*HI), "end is not trained"),
        ("{{ bos_token }}{{ messages[0].content }}", turns(("assistant", "<s>hi")), "start token twice"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", turns(*HI), "the chat template leaves out"),
        ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"a": 1}]}]}, "have tool calls, which"),
        ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]}, "have reasoning, which"),
        ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", turns(*HI, tools=[{"a": 1}]), "have tools, which the chat template does not read"),
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>bot\n{% endif %}", turns(*HI), "not what a server would send"),
    ],
)  # fmt: skip
def test_what_shows_in_no_loss_is_noted(template: str, row: dict[str, Any], words: str) -> None:
    """Rows that train something else than their owner thinks are counted in the report."""
    example = chat(renderer(template))(row)
    assert any(words in note.kind for note in example.notes), example  # type: ignore[union-attr]


def test_the_round_trip_says_what_differs() -> None:
    """The note of a template whose generation prompt is another header shows both."""
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
    [note] = chat(renderer(template))(turns(*HI)).notes  # type: ignore[union-attr]
    assert note.detail == "it would send 'bot>' where the training text has 'assistant>'"


WEIGHTED = [
    pytest.param([{"role": "tool", "content": [{"type": "tool_response", "value": {"id": None, "content": "é", "name": "f"}}]}], '<|im_start|>tool\n<tool_response>\n{"name": "f", "content": "\\u00e9"}\n</tool_response>\n<|im_end|>\n', id="a tool's answer"),
    pytest.param([{"role": "user", "content": "u"}, {"from": "gpt", "value": "a"}], "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant⟦\n⟧«a<|im_end|>»\n", id="by role"),
    pytest.param([{"role": "user", "text": "u", "train": 1}, {"role": "assistant", "content": "a", "weight": 0}], "<|im_start|>user⟦\n⟧«u<|im_end|>»\n<|im_start|>assistant\na<|im_end|>\n", id="by weight"),
    pytest.param([{"role": "assistant", "content": [{"type": "text", "value": "a"}, {"type": "text", "value": "b", "weight": 0}]}], "<|im_start|>assistant⟦\n⟧«a»⟦b⟧«<|im_end|>»\n", id="by part"),
    pytest.param([{"role": "assistant", "content": [{"type": "tool_call", "value": {"name": "f", "arguments": {}}}]}], '<|im_start|>assistant⟦\n⟧«<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n<|im_end|>»\n', id="a tool call"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), WEIGHTED)
def test_messages_are_trained_by_weight(messages: list[dict[str, Any]], expected: str) -> None:
    """Type messages writes ChatML without a template and trains what has a weight."""
    assert seen(chat(type="messages")({"messages": messages})) == expected


def test_messages_can_be_llama_3_turns() -> None:
    """The start of text comes once and a tool speaks as ipython."""
    form = chat(type="messages", chat_template="llama3")
    assert seen(form(turns(("tool", "2"), ("assistant", "a")))) == (
        "<|begin_of_text|><|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n⟦\n⟧«a<|eot_id|>»"
    )


def test_a_template_that_does_not_go_out_with_the_model_is_noted() -> None:
    """An entry's own chatTemplate trains a layout that a server of the saved model would not send."""
    assert any("not the one that is saved" in note.kind for note in chat(chat_template="alpaca")(turns(*HI)).notes)  # type: ignore[union-attr]
    assert not chat(chat_template="chatml")(turns(*HI)).notes  # type: ignore[union-attr]


def test_a_format_can_be_sent_to_another_process() -> None:
    """What it has remembered goes with it, and it says the same there."""
    form = chat(split_thinking=True)
    form(turns(*HI))
    assert seen(pickle.loads(pickle.dumps(form))(turns(*HI))) == HI_SEEN
