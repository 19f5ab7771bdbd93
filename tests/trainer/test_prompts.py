"""What each type writes, character by character: the prompt that is masked and the answer that is trained."""

from typing import Any

import pytest

from anneal_api.columns import ALL_TRAINED, DETECTED, READS, STYLES
from anneal_api.dataset import DATASET_TYPES, DatasetFields, DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.formats import instruction
from anneal_trainer.data.formats.instruction import KINDS
from anneal_trainer.data.pieces import Example, RowError, Text, Tokens

A1 = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
A2 = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
B1 = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n"
)
B2 = (
    "Below is an instruction from a USER that describes a task. The ASSISTANT writes a response that appropriately and "
    "concisely completes the request.\n\n"
)
CHOOSE = "Choose the answer that best answers the question. "
QA = "SYSTEM: Use the following contextual information to concisely answer the question.\n\nUSER: "
REFUSAL = (
    "The context provided does not contain any information about your inquiry. Therefore, I'm unable to answer your "
    "question based on the given context."
)
IXO = {"instruction": "Add.", "input": "1 2", "output": "3"}
IO = {"instruction": "Add.", "input": "", "output": "3"}
SYS = {"system": "Be.", **IXO}
ORCA = {"system_prompt": "Be.", "question": "Why?", "response": "So."}
CHOICE = {"question": "Which?", "choices": ["a", "b"], "solution": "a"}
CLUE = {"question": "Q", "category": "C", "answer": "A"}
ARTICLE = {"article": "Text.", "question": "Q?", "answer": "A."}
REFLECTED = {**IXO, "reflection": "Hm.", "corrected": "4"}
JUDGED = {
    "instruction": "Q?",
    "answer": "A.",
    "scores": {"refusal": 9, "creativity": 2},
    "critiques": {"refusal": {"improvements": "none", "explanation": "fine"}},
}
EVALUATION = "creativity: 2\nrefusal: 9\nrefusal:\n  explanation: fine\n  improvements: none\n"
INSTRUCT, INSTRUCT_ALONE = (
    "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
    "### Instruction:\nAdd.\n\n### Response:\n",
)
CHATML = "<|im_start|>user\nAdd.\n1 2<|im_end|>\n<|im_start|>assistant\n"

TABLE: list[tuple[str, dict[str, Any], str, str]] = [
    ("alpaca", IXO, f"{A1}\n\n{INSTRUCT}", "3"),
    ("alpaca", IO, f"{A2}\n\n{INSTRUCT_ALONE}", "3"),
    ("alpaca:instruct", IXO, f"{A1}\n\n{INSTRUCT}", "3"),
    ("alpaca:chat", IXO, f"SYSTEM: {A1}\nUSER: Add.\n1 2\nASSISTANT:", "3"),
    ("alpaca:chat", IO, f"SYSTEM: {A2}\nUSER: Add.\nASSISTANT:", "3"),
    ("alpaca:chatml", IXO, f"<|im_start|>system\n{A1}<|im_end|>\n{CHATML}", "3"),
    (
        "alpaca:chatml",
        IO,
        f"<|im_start|>system\n{A2}<|im_end|>\n<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n",
        "3",
    ),
    ("alpaca:phi", IXO, f"<|system|>\n{A1}<|end|>\n<|user|>\nAdd.<|end|>1 2<|assistant|>", "3"),
    ("alpaca:phi", IO, f"<|system|>\n{A2}<|end|>\n<|user|>\nAdd.<|end|>\n<|assistant|>\n", "3"),
    ("alpaca_instruct.load", IXO, f"{A1}\n\n{INSTRUCT}", "3"),
    ("alpaca_instruct.load_no_prompt", IXO, INSTRUCT, "3"),
    ("alpaca_chat.load", IXO, f"SYSTEM: {A1}\nUSER: Add.\n1 2\nASSISTANT:", "3"),
    ("alpaca_chat.load_concise", IXO, f"SYSTEM: {B1}\nUSER: Add.\n1 2\nASSISTANT:", "3"),
    ("alpaca_chat.load_concise", IO, f"SYSTEM: {B2}\nUSER: Add.\nASSISTANT:", "3"),
    ("alpaca_chat.load_qa", {"question": "Q", "answer": "A"}, f"SYSTEM: {B2}\nUSER: Q\nASSISTANT:", "A"),
    ("alpaca_chat.load_camel_ai", {"message_1": "Q", "message_2": "A"}, f"SYSTEM: {B2}\nUSER: Q\nASSISTANT:", "A"),
    ("alpaca_chat.load_no_prompt", IXO, "USER: Add.\n1 2\nASSISTANT:", "3"),
    (
        "gpteacher",
        {"instruction": "Add.", "input": "1 2", "response": "3"},
        f"{A1}\n\n{INSTRUCT}",
        "3",
    ),
    ("oasst", {"INSTRUCTION": "Add.", "RESPONSE": "3"}, f"{A2}\n\n{INSTRUCT_ALONE}", "3"),
    ("jeopardy", CLUE, f"{A1}\n\n### Instruction:\nQ\n\n### Input:\nC\n\n### Response:\n", "what is A"),
    (
        "explainchoice",
        CHOICE,
        f'{CHOOSE}Explain your reasoning.\n\n\n### Instruction:\nWhich?\n\n### Input:\n- "a"\n- "b"\n\n### Response:\n',
        "a",
    ),
    (
        "explainchoice:chat",
        {**CHOICE, "solution": None, "explanation": "since"},
        f'SYSTEM: {CHOOSE}Explain your reasoning.\n\nUSER: Which?\n- "a"\n- "b"\nASSISTANT:',
        "since",
    ),
    (
        "concisechoice",
        CHOICE,
        f'{CHOOSE}Be concise in your response.\n\nUSER: Which?\n- "a"\n- "b"\nASSISTANT:',
        "a",
    ),
    (
        "summarizetldr",
        {"article": "Long.", "summary": "Short."},
        "USER: Summarize the following article as a TL;DR.\nLong.\nASSISTANT:",
        "Short.",
    ),
    (
        "reflection",
        REFLECTED,
        INSTRUCT,
        "### Thought:\n3\n\n### Agent Reflection:\nHm.\n\n### Final Response:\n4",
    ),
    (
        "reflection",
        {**REFLECTED, "input": None},
        INSTRUCT_ALONE,
        "### Thought:\n3\n\n### Agent Reflection:\nHm.\n\n### Final Response:\n4",
    ),
    ("alpaca_w_system.load", SYS, "SYSTEM: Be.\nUSER: Add.\n1 2\nASSISTANT:", "3"),
    ("alpaca_w_system.load_chat", {**SYS, "system": ""}, "USER: Add.\n1 2\nASSISTANT:", "3"),
    ("alpaca_w_system.load_instruct", SYS, f"Be.\n\n{INSTRUCT}", "3"),
    ("alpaca_w_system.load_instruct", {**SYS, "system": None}, INSTRUCT, "3"),
    (
        "alpaca_w_system.load_open_orca",
        ORCA,
        "### System:\nBe.\n### Human:\nWhy?\n### Assistant:\n",
        "So.",
    ),
    (
        "alpaca_w_system.load_open_orca_chatml",
        ORCA,
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "So.",
    ),
    ("orcamini", ORCA, "### System:\nBe.\n\n### User:\nWhy?\n\n### Response:\n", "So."),
    ("context_qa.load", ARTICLE, f"{QA}Text.\n===\nQ?\nASSISTANT:", "A."),
    (
        "context_qa.load_v2",
        {"context": "Text.", "question": "Q?", "answer": "A."},
        "Context: Text.\nQuestion: Q?\n",
        "Answer: A.",
    ),
    (
        "context_qa.load_404",
        {"article": "Text.", "unanswerable_question": "Q?"},
        f"{QA}Text.\n===\nQ?\nASSISTANT:",
        REFUSAL,
    ),
    (
        "creative_acr.load_answer",
        {"instruction": "Q?", "answer": "no", "revision": "yes"},
        (
            "Answer the following question in a comprehensive, in-depth, and creative way. Additionally your response "
            "should be relevant, accurate, and free of any ambiguity.\nUSER: Q?\nASSISTANT:"
        ),
        "yes",
    ),
    ("metharme", {"prompt": "<|user|>hi<|model|>", "generation": " yes"}, "<|user|>hi<|model|>", " yes"),
    ("user_defined", {"instruction": "Q", "output": "A"}, "Q ", "A"),
    ("user_defined", {"instruction": "Q", "input": "x", "output": "A"}, "Q x ", "A"),
]


def formatted(kind: str, row: dict[str, Any], **options: Any) -> Example:
    """A row through a type, as a manifest's entry with these options has it."""
    given = {"source": "./rows.jsonl", "type": kind, **options}
    if kind == "user_defined":
        given.setdefault("format", {})

    def renderer() -> Any:
        raise AssertionError("no template is asked for")

    return formats.formatter(DatasetSpec.model_validate(given), renderer=renderer)(row)


def split(example: Example) -> tuple[str, str]:
    """The text that is masked and the text that is trained."""
    assert isinstance(example, Text)
    masked, trained = "", ""
    for piece in example.pieces:
        kept = [any(first <= at < last for first, last in piece.trained) for at in range(len(piece.text))]
        masked += "".join(c for c, keep in zip(piece.text, kept, strict=True) if not keep)
        trained += "".join(c for c, keep in zip(piece.text, kept, strict=True) if keep)
    return masked, trained


@pytest.mark.parametrize(
    ("kind", "row", "prompt", "answer"), TABLE, ids=[f"{kind} {i}" for i, (kind, *_) in enumerate(TABLE)]
)
def test_a_type_writes_what_it_has_always_written(kind: str, row: dict[str, Any], prompt: str, answer: str) -> None:
    """The prompt is masked, the answer is trained, start tokens come first and EOS last."""
    example = formatted(kind, row)
    assert split(example) == (prompt, answer)
    assert isinstance(example, Text)
    assert (example.starts, example.ends, example.division) == (True, True, "")


def test_every_type_of_the_api_is_known_everywhere() -> None:
    """The schema's names, the table of columns and the table of wordings are the same types."""
    assert set(DATASET_TYPES) == set(READS)
    assert set(KINDS) < set(READS)
    assert {kind for kind, _ in DETECTED} < set(READS)
    assert set(ALL_TRAINED) < set(READS)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("base", ["gpteacher", "oasst", "jeopardy"])
def test_a_style_is_alpacas_whatever_the_base(base: str, style: str) -> None:
    """`base:style` reads its own columns and words them as `alpaca:style` does."""
    assert KINDS[f"{base}:{style}"].wording == KINDS[f"alpaca:{style}"].wording


def test_reflection_with_instruct_explains_itself() -> None:
    """`reflection:instruct` begins with the long text about papers and reflection, with or without an input."""
    masked, _ = split(formatted("reflection:instruct", REFLECTED))
    assert masked.startswith(
        f"{A1.split(' Write', maxsplit=1)[0]} You, the Assistant, should generate a response as if it were an abstract"
    )
    assert masked.endswith(f"as augmentations to the generation\n\n{INSTRUCT}")
    alone, _ = split(formatted("reflection:instruct", {**REFLECTED, "input": ""}))
    assert alone.startswith("Below is an instruction that describes a task. You, the Assistant")


def test_reflection_as_chat_trains_the_corrected_answer() -> None:
    """Axolotl reads `corrected` and leaves it out of this style; here it is the last thing said."""
    _, answer = split(formatted("reflection:chat", REFLECTED))
    assert answer == "\nTHOUGHT: 3\nASSISTANT REFLECTION: Hm.\nASSISTANT: 4"


@pytest.mark.parametrize("absent", ["output", "reflection", "corrected"])
def test_a_reflection_with_an_empty_part_trains_nothing(absent: str) -> None:
    """Axolotl would train a lone EOS behind the prompt: to answer with silence."""
    example = formatted("reflection", {**REFLECTED, absent: ""})
    assert split(example)[1] == ""
    assert isinstance(example, Text)
    assert not example.ends


def test_critique_and_revision_hold_the_evaluation_as_yaml() -> None:
    """Scores and critiques are written as YAML with sorted keys, as the answer of one and in the prompt of the other."""
    prompt, answer = split(formatted("creative_acr.load_critique", JUDGED))
    assert prompt.startswith(
        "USER: Given the following Question and Response, critique the Response on a scale of 1-10."
    )
    assert "0 means there is prescriptive bias.\n" in prompt
    assert prompt.endswith("Question: Q?\nAnswer: A.\n\nASSISTANT:")
    assert answer == EVALUATION
    prompt, answer = split(formatted("creative_acr.load_revise", {**JUDGED, "revision": "B."}))
    assert prompt.startswith("USER: Definitions:\nrefusal: whether")
    assert "0 means their is prescriptive bias.\n" in prompt
    assert prompt.endswith(f"Question: Q?\nAnswer: A.\nEvaluation:\n{EVALUATION}\n\nASSISTANT:")
    assert answer == "B."


def test_orcamini_writes_the_system_section_even_if_it_is_empty() -> None:
    """A null system is empty, and never the word None."""
    assert split(formatted("orcamini", {**ORCA, "system_prompt": None}))[0].startswith("### System:\n\n\n### User:")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        pytest.param({"i": "Q", "x": "c", "o": "A", "s": "S"}, "[S] {Q/c}", id="all"),
        pytest.param({"i": "Q", "o": "A", "s": "S"}, "[S] {Q}", id="no input"),
        pytest.param({"i": "Q", "o": "A"}, "[D] {Q}", id="default system"),
        pytest.param({"i": "Q", "o": "A", "s": None}, "[D] {Q}", id="null system"),
        pytest.param({"i": "Q", "o": "A", "s": ""}, "{Q}", id="empty system"),
    ],
)
def test_user_defined_is_worded_by_the_manifest(row: dict[str, Any], prompt: str) -> None:
    """Columns come from `fields`, words from `format`; doubled braces are braces."""
    worded = {
        "systemPrompt": "D",
        "systemFormat": "[{system}] ",
        "format": "{{{instruction}/{input}}}",
        "noInputFormat": "{{{instruction}}}",
    }
    fields = {"instruction": "i", "input": "x", "output": "o", "system": "s"}
    assert split(formatted("user_defined", row, format=worded, fields=fields)) == (prompt, "A")


def test_braces_in_a_row_are_only_text() -> None:
    """What looks like a placeholder in a row is not filled in."""
    row = {"instruction": "{input} {0} {{", "input": "{instruction}", "output": "{}"}
    prompt, answer = split(formatted("alpaca", row))
    assert "### Instruction:\n{input} {0} {{\n\n### Input:\n{instruction}\n" in prompt
    assert answer == "{}"


def test_pygmalion_trains_what_the_bot_says() -> None:
    """The persona loses its <START> mark; each bot turn but for its prefix is trained and ended."""
    turns = [
        {"role": "system", "value": "A cat.\n<START>"},
        {"role": "human", "value": " hi "},
        {"role": "bot", "value": "meow "},
        {"role": "bot", "value": " "},
    ]
    example = formatted("pygmalion", {"conversations": turns})
    assert isinstance(example, Text)
    assert [piece.text for piece in example.pieces] == [
        "<|system|>Persona: A cat.",
        "<|user|> hi",
        "<|model|> meow",
        "<|model|> ",
    ]
    assert split(example)[1] == " meow"
    assert [piece.ends for piece in example.pieces] == [False, False, True, False]
    assert example.starts


def test_llama2_chat_trains_each_answer_and_its_end() -> None:
    """Every exchange has start tokens and an end of its own; a last question is left out."""
    said = [("human", " hi "), ("gpt", "yo"), ("human", "so?"), ("gpt", "yes"), ("human", "bye")]
    row = {"conversations": [{"from": role, "value": words} for role, words in said]}
    example = formatted("llama2_chat", row)
    assert isinstance(example, Text)
    first, second = example.pieces
    assert first.text.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as")
    assert first.text.endswith("please don't share false information.\n<</SYS>>\n\nhi[/INST] yo ")
    assert second.text == "[INST] so? [/INST] yes "
    assert split(example)[1] == " yo  yes "
    assert all(piece.starts and piece.ends for piece in example.pieces)
    row["conversations"].insert(0, {"from": "system", "value": "Be."})
    own = formatted("llama2_chat", row)
    assert isinstance(own, Text)
    assert own.pieces[0].text == "[INST] <<SYS>>\nBe.\n<</SYS>>\n\nhi[/INST] yo "


def test_segments_are_taken_as_they_are() -> None:
    """No token is added to `input_output`, and a label decides what is trained."""
    row = {"segments": [{"label": False, "text": "<s>Q: "}, {"label": True, "text": "A</s>"}]}
    example = formatted("input_output", row)
    assert split(example) == ("<s>Q: ", "A</s>")
    assert isinstance(example, Text)
    assert not example.starts
    assert not example.ends


def test_lists_may_be_json_text() -> None:
    """What a CSV file can only hold as text is read as the list that it is."""
    assert formatted("tokenized", {"input_ids": "[1, 2]", "labels": "[-100, 2]"}) == Tokens([1, 2], [-100, 2])
    row = {"segments": '[{"label": true, "text": "a"}]'}
    assert split(formatted("input_output", row)) == ("", "a")
    assert split(formatted("explainchoice", {**CHOICE, "choices": '["a", "b"]'})) == split(
        formatted("explainchoice", CHOICE)
    )


@pytest.mark.parametrize("kind", sorted(set(KINDS) | {"reflection", "input_output", "pygmalion", "llama2_chat"}))
def test_train_on_inputs_masks_nothing(kind: str) -> None:
    """With trainOnInputs every piece of every type is trained as a whole."""
    row: dict[str, Any] = {column.names[0]: "words" for column in READS[kind].values()}
    row |= {"choices": ["a"]} if "choices" in row else {}
    row |= {"segments": [{"label": False, "text": "a"}]} if kind == "input_output" else {}
    turn = {"pygmalion": ("role", "human", "bot"), "llama2_chat": ("from", "human", "gpt")}.get(kind)
    if turn:
        row = {"conversations": [{turn[0]: turn[1], "value": "a"}, {turn[0]: turn[2], "value": "b"}]}
    example = formatted(kind, row, trainOnInputs=True)
    assert isinstance(example, Text)
    assert all(piece.whole for piece in example.pieces)


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        pytest.param("tokenized", {"input_ids": [1], "attention_mask": 1}, "attention_mask must be a list of whole numbers, got 1", id="mask"),
        pytest.param("explainchoice", {**CHOICE, "choices": "a"}, 'choices must be a list of texts, got "a"', id="choices"),
        pytest.param("explainchoice", {**CHOICE, "choices": ["a", 1]}, "choices must be a list of texts, got 1 in it", id="choice"),
        pytest.param("creative_acr.load_critique", {**JUDGED, "scores": None}, "'scores' is missing or null", id="scores"),
        pytest.param("input_output", {"segments": []}, "segments must be a list of {label, text}, got []", id="segments"),
        pytest.param("input_output", {"segments": [{"label": 1, "text": "a"}]}, "segments[0].label must be true or false, got 1", id="label"),
        pytest.param("input_output", {"segments": [{"label": True}]}, "segments[0].text must be text, got null", id="text"),
        pytest.param("pygmalion", {"conversations": [{"role": "gpt", "value": "a"}]}, 'conversations[0].role is "gpt"; write one of: system, human, bot', id="role"),
        pytest.param("llama2_chat", {"conversations": [{"from": "gpt", "value": "a"}]}, "human begins; expected human", id="gpt first"),
        pytest.param("llama2_chat", {"conversations": [{"from": "human", "value": "a"}]}, "must have a human turn and an answer of gpt", id="no answer"),
        pytest.param("llama2_chat", {"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "a"}]}, "conversations[0].value must have words", id="empty"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_explained(kind: str, row: dict[str, Any], words: str) -> None:
    """Every refusal names the column, what was found and what is accepted."""
    with pytest.raises(RowError) as raised:
        formatted(kind, row)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["segments"], "input_output"),
        (["system", "instruction", "input", "output"], "alpaca_w_system.load_instruct"),
        (["system_prompt", "question", "response"], "alpaca_w_system.load_open_orca"),
        (["question", "response"], None),
        (["instruction", "output", "reflection", "corrected"], "reflection"),
        (["instruction", "response"], "gpteacher"),
        (["INSTRUCTION", "RESPONSE"], "oasst"),
        (["question", "category", "answer"], "jeopardy"),
        (["question", "choices", "explanation"], "explainchoice"),
        (["article", "question", "answer"], "context_qa"),
        (["context", "question", "answer"], "context_qa.load_v2"),
        (["article", "summary"], "summarizetldr"),
        (["prompt", "generation"], "metharme"),
        (["message_1", "message_2"], "alpaca_chat.load_camel_ai"),
        (["instruction", "answer", "scores", "critiques", "revision"], "creative_acr.load_revise"),
        (["instruction", "output", "text"], "alpaca"),
    ],
)
def test_a_type_is_detected_by_its_telling_columns(columns: list[str], kind: str | None) -> None:
    """The most telling columns decide, and what would be left out silently is not."""
    assert formats.detect(columns, None) == kind


def test_detection_reads_every_column_that_fields_names() -> None:
    """A type that would ignore a named column is not taken."""
    columns = ["instruction", "output", "body"]
    assert formats.detect(columns, None) == "alpaca"
    assert formats.detect(columns, DatasetFields(text="body")) == "completion"


def test_samples_are_asked_as_rows_are() -> None:
    """The prompt of a sample is worded by the type of the training data."""
    assert instruction.prompt_of("alpaca:chat", "Hi") == f"SYSTEM: {A2}\nUSER: Hi\nASSISTANT:"
    assert instruction.prompt_of("reflection", "Hi") == "### Instruction:\nHi\n\n### Response:\n"
    spec = DatasetSpec.model_validate(
        {"source": "./a", "type": "user_defined", "format": {"systemPrompt": "D", "systemFormat": "{system}: "}}
    )
    assert instruction.prompt_of("user_defined", "Hi", spec.format) == "D: Hi "
    assert instruction.prompt_of("completion", "Hi") is None
