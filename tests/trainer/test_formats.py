"""From rows to token ids and labels, token by token, for every type."""

from typing import Any

import pytest

from anneal_api.dataset import DATASET_TYPES, DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats import alpaca, chat
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import IGNORED, Example, RowError

CHATML = TEMPLATES["chatml"]


def formatted(kind: str, row: dict[str, Any], **options: Any) -> Example:
    """A row through a type, as a manifest's entry with these options has it."""
    given = {"source": "./rows.jsonl", "type": kind, **options}
    if kind == "user_defined":
        given.setdefault("format", {})
    renderer = chat.Renderer("{{ messages }}", added_tokens=("<|im_start|>", "<|im_end|>"))
    return formats.formatter(DatasetSpec.model_validate(given), renderer=lambda: renderer)(row)


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token a word, one a line break: what is trained can be read off as text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "hi",
        "you",
        "there",
        "bye",
        "a",
        "b",
        "c",
        "user",
        "assistant",
        "system",
        "Be",
        "brief",
        "yes",
        "no",
        "text",
        "\n",
        "###",
        "Response:",
    ]
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, "<unk>", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[1:],
    )


def shown(tokenizer: Any, example: Example) -> tuple[str, str]:
    """All tokens, and the trained ones with `_` for each that is not; `⏎` is a line break."""
    encoder = Encoder.of(tokenizer, len(tokenizer))
    [tokens] = encoder.encode([example])
    assert len(tokens.input_ids) == len(tokens.labels)
    assert all(label in (IGNORED, token) for token, label in zip(tokens.input_ids, tokens.labels, strict=True))
    names = [name.replace("\n", "⏎") for name in tokenizer.convert_ids_to_tokens(tokens.input_ids)]
    kept = [name if label != IGNORED else "_" for name, label in zip(names, tokens.labels, strict=True)]
    return " ".join(names), " ".join(kept)


def conversation(tokenizer: Any, template: str, *turns: tuple[str, str]) -> tuple[str, str]:
    """A conversation through the `chat_template` type."""
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    return shown(tokenizer, chat_format(tokenizer, template)(row))


def chat_format(tokenizer: Any, template: str | None, **options: Any) -> formats.Format:
    """The `chat_template` type with a template and the entry's other options."""
    entry = DatasetSpec(source="./rows.jsonl", type="chat_template", **options)
    tokenizer.chat_template = template
    return formats.formatter(entry, renderer=lambda: chat.Renderer.of(tokenizer, own=template))


def test_chatml_trains_every_assistant_turn_and_its_end(tokenizer: Any) -> None:
    """In ChatML the words of each assistant turn and the token that ends it are trained, and nothing else."""
    turns = (("system", "Be brief"), ("user", "hi"), ("assistant", "hi you"), ("user", "bye"), ("assistant", "bye"))
    tokens, labels = conversation(tokenizer, CHATML, *turns)
    assert tokens == (
        "<|im_start|> system ⏎ Be brief <|im_end|> ⏎ <|im_start|> user ⏎ hi <|im_end|> ⏎ "
        "<|im_start|> assistant ⏎ hi you <|im_end|> ⏎ <|im_start|> user ⏎ bye <|im_end|> ⏎ "
        "<|im_start|> assistant ⏎ bye <|im_end|> ⏎"
    )
    assert labels == ("_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ hi you <|im_end|> _ _ _ _ _ _ _ _ _ _ bye <|im_end|> _")


def test_llama3_trims_content_and_trains_the_end_of_turn(tokenizer: Any) -> None:
    """A template that trims what it is given is still followed to the character."""
    llama3 = TEMPLATES["llama3"].replace("{{ bos_token }}", "")
    tokens, labels = conversation(tokenizer, llama3, ("user", " hi "), ("assistant", "  hi you "))
    assert tokens == (
        "<|start_header_id|> user <|end_header_id|> ⏎ ⏎ hi <|eot_id|> "
        "<|start_header_id|> assistant <|end_header_id|> ⏎ ⏎ hi you <|eot_id|>"
    )
    assert labels == "_ _ _ _ _ _ _ _ _ _ _ _ hi you <|eot_id|>"


def test_a_template_that_changes_earlier_turns_is_followed(tokenizer: Any) -> None:
    """Where a template shortens all turns but the last, the words that remain are trained."""
    template = (
        "{% for m in messages %}<|im_start|> {{ m.role }} "
        "{{ m.content if loop.last or m.role == 'user' else m.content.split('|')[-1] }} <|im_end|> {% endfor %}"
    )
    turns = (("user", "hi"), ("assistant", "a b | c"), ("user", "bye"), ("assistant", "yes | no"))
    _, labels = conversation(tokenizer, template, *turns)
    assert labels == "_ _ _ _ _ _ c <|im_end|> _ _ _ _ _ _ yes <unk> no <|im_end|>"


def test_the_same_words_in_another_turn_are_not_trained(tokenizer: Any) -> None:
    """A user who says what the assistant says is not mistaken for it."""
    _, labels = conversation(tokenizer, CHATML, ("user", "hi you"), ("assistant", "hi you"))
    assert labels == "_ _ _ _ _ _ _ _ _ _ hi you <|im_end|> _"


def test_a_conversation_without_assistant_trains_nothing(tokenizer: Any) -> None:
    """No assistant turn, no label."""
    _, labels = conversation(tokenizer, CHATML, ("user", "hi"))
    assert set(labels.split()) == {"_"}


def test_sharegpt_is_read_as_messages(tokenizer: Any) -> None:
    """`from`/`value` with human and gpt gives what role/content with user and assistant gives."""
    expected = conversation(tokenizer, CHATML, ("system", "Be"), ("user", "hi"), ("assistant", "yes"))
    pairs = (("system", "Be"), ("human", "hi"), ("gpt", "yes"))
    row = {"conversations": [{"from": role, "value": text} for role, text in pairs]}
    assert shown(tokenizer, chat_format(tokenizer, CHATML)(row)) == expected


def test_alpaca_prompt_is_the_published_one() -> None:
    """With and without input the prompt is the one that the type has had since 2023."""
    assert alpaca.prompt("Add.", "1 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
        "### Response:\n"
    )
    assert alpaca.prompt("Add.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )


def test_alpaca_trains_the_answer_and_eos(tokenizer: Any) -> None:
    """The prompt is masked; the answer and the end of sequence are trained."""
    tokens, labels = shown(tokenizer, formatted("alpaca", {"instruction": "hi", "output": "hi you"}))
    assert tokens.endswith("### Response: ⏎ hi you <|endoftext|>")
    assert labels.split()[-3:] == ["hi", "you", "<|endoftext|>"]
    assert set(labels.split()[:-3]) == {"_"}


def test_alpaca_does_not_add_a_second_eos(tokenizer: Any) -> None:
    """An answer that already ends with EOS keeps one."""
    _, labels = shown(tokenizer, formatted("alpaca", {"instruction": "hi", "output": "you <|endoftext|>"}))
    assert labels.split()[-2:] == ["you", "<|endoftext|>"]
    assert labels.split()[-3] == "_"


def test_alpaca_reads_renamed_columns() -> None:
    """`fields` says which columns hold what."""
    fields = {"instruction": "question", "output": "answer"}
    renamed = formatted("alpaca", {"question": "hi", "answer": "yes"}, fields=fields)
    assert renamed == formatted("alpaca", {"instruction": "hi", "output": "yes"})


def test_an_empty_answer_trains_nothing(tokenizer: Any) -> None:
    """Not even EOS: a model must not learn to answer with silence."""
    _, labels = shown(tokenizer, formatted("alpaca", {"instruction": "hi", "output": ""}))
    assert set(labels.split()) == {"_"}


def test_completion_trains_everything(tokenizer: Any) -> None:
    """All of the text, and EOS."""
    assert shown(tokenizer, formatted("completion", {"text": "hi you"})) == (
        "hi you <|endoftext|>",
        "hi you <|endoftext|>",
    )


def test_start_tokens_come_once_in_front(tokenizer: Any) -> None:
    """A tokenizer that starts texts with a token of its own does so for the prompt and not for the answer."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    starting = deepcopy(tokenizer)
    starting.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", SPECIAL.index("<|im_start|>"))]
    )
    tokens, labels = shown(starting, formatted("alpaca", {"instruction": "hi", "output": "yes"}))
    assert tokens.split().count("<|im_start|>") == 1
    assert tokens.startswith("<|im_start|>")
    assert labels.startswith("_")


def test_tokenized_rows_pass_through() -> None:
    """Ids and labels are taken as they are; without labels everything is trained."""
    given = formatted("tokenized", {"input_ids": [7, 8, 9], "labels": [-100, 8, -100]})
    assert (given.input_ids, given.labels) == ([7, 8, 9], [-100, 8, -100])
    assert formatted("tokenized", {"input_ids": [7, 8]}).labels == [7, 8]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            lambda: formatted("alpaca", {"output": "a"}),
            "'instruction' is missing; this row has output",
            id="missing",
        ),
        pytest.param(
            lambda: formatted("alpaca", {"instruction": 5, "output": "a"}),
            "instruction must be text, got 5",
            id="type",
        ),
        pytest.param(lambda: formatted("completion", {"text": None}), "text must be text, got null", id="null"),
        pytest.param(
            lambda: formatted("tokenized", {"input_ids": [1, "2"]}),
            "input_ids must be a list of whole numbers",
            id="ids",
        ),
        pytest.param(
            lambda: formatted("tokenized", {"input_ids": [1, 2], "labels": [1]}), "2 entries and labels 1", id="lengths"
        ),
        pytest.param(
            lambda: formatted("tokenized", {"input_ids": [1, 2], "attention_mask": [1, 0]}),
            "leave padding out",
            id="padding",
        ),
        pytest.param(lambda: messages({"messages": []}), "messages must be a list of turns", id="no turns"),
        pytest.param(lambda: messages({"messages": ["hi"]}), "messages[0] must be a turn", id="turn type"),
        pytest.param(
            lambda: messages({"messages": [{"role": "bot", "content": "a"}]}),
            'messages[0].role is "bot"; write one of: user',
            id="role",
        ),
        pytest.param(
            lambda: messages({"conversations": [{"from": "gpt", "value": None}]}),
            "conversations[0].value must be text or a list of parts, got null",
            id="content",
        ),
        pytest.param(
            lambda: messages({"text": "a"}), "'messages' is missing or null; this row has text", id="no messages"
        ),
    ],
)
def test_a_row_that_does_not_fit_is_explained(make: Any, words: str) -> None:
    """Every refusal names the column, what was found and what is accepted."""
    with pytest.raises(RowError) as raised:
        make()
    assert words in str(raised.value)


def messages(row: dict[str, Any]) -> Example:
    """A row through the `chat_template` type with a template that does nothing."""
    entry = DatasetSpec(source="./rows.jsonl", type="chat_template")
    return formats.formatter(entry, renderer=lambda: chat.Renderer("{{ '' }}"))(row)


def test_a_template_that_refuses_is_a_row_error(tokenizer: Any) -> None:
    """What a template raises becomes the row's problem, in its words."""
    form = chat_format(tokenizer, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RowError, match="the chat template refuses these messages: roles must alternate"):
        form({"messages": [{"role": "user", "content": "a"}]})


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Any) -> None:
    """A token id or label that the model does not have is an error, not a crash on the GPU."""
    encoder = Encoder.of(tokenizer, 20)
    with pytest.raises(RowError, match=r"token id 20 is not in the model's vocabulary \(0 to 19\)"):
        encoder.check(formatted("tokenized", {"input_ids": [1, 20]}))
    with pytest.raises(RowError, match="label -1 is neither -100 nor"):
        encoder.check(formatted("tokenized", {"input_ids": [1, 2], "labels": [-1, 2]}))


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["messages"], "chat_template"),
        (["id", "conversations"], "chat_template"),
        (["instruction", "input", "output"], "alpaca"),
        (["text", "source"], "completion"),
        (["input_ids", "labels"], "tokenized"),
        (["question", "answer"], None),
    ],
)
def test_the_type_is_detected_from_the_columns(columns: list[str], kind: str | None) -> None:
    """Each type has columns of its own."""
    assert formats.detect(columns, None) == kind


@pytest.mark.parametrize("kind", DATASET_TYPES)
def test_every_type_has_an_arm(kind: Any) -> None:
    """Whatever the schema accepts, a row can be formatted as and its columns be checked for."""
    with pytest.raises(RowError, match=r"missing|must be"):
        formatted(kind, {"other": 1})
    assert formats.needed(kind, None)
