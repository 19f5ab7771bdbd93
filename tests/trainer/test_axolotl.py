"""Ids and labels are Axolotl's: what version 0.19.0 made of these rows, recorded, against what is made here.

`axolotl-0.19.0.txt` has a line a case: its name, the tokenizer, the labels as runs (`12-3+` is twelve masked, three
trained) and a digest of the ids. It was written by calling Axolotl's own strategies with the rows, options and
tokenizers of this file. The tokenizers are spelled out, not trained, so that they are the same everywhere. Not here:
what Axolotl does wrong (docs/dataset-types.md and docs/conversations.md list it), which other tests hold.
"""

import hashlib
import json
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from anneal_api.columns import READS
from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat import Renderer
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import IGNORED

RECORDED = Path(__file__).with_name("axolotl-0.19.0.txt")
SPECIAL = [
    "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
    "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "[|endofturn|]",
]  # fmt: skip
WORDS = [
    "Hello",
    " there",
    " answer",
    " the",
    "The",
    " is",
    " you",
    "naïve",
    " café",
    "你好",
    "..",
    ".\n",
    "\n\n",
    "Add",
]
NAMES = ("bytes", "bytes-bos", "pieces", "pieces-eos")


@cache
def tokenizer(name: str) -> Any:
    """A byte-level BPE without and with BOS, a Unigram with a prefix space and BOS, and one that ends texts with EOS."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    made = _bytes() if name.startswith("bytes") else _pieces()
    around = {"bytes-bos": "<s> $A", "pieces": "<s> $A", "pieces-eos": "$A </s>"}.get(name)
    if around is not None:
        made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
    )


def _bytes() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *sorted(level.alphabet())])}
    merges = []
    for word in WORDS:
        left = ""
        for symbol in "".join(part for part, _ in level.pre_tokenize_str(word)):
            if left:
                merges.append((left, symbol))
                vocabulary.setdefault(left + symbol, len(vocabulary))
            left += symbol
    made = Tokenizer(models.BPE(vocabulary, merges=list(dict.fromkeys(merges))))
    made.pre_tokenizer = level
    return made


def _pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = sorted({chr(code) for code in range(33, 127)} | set("\n▁öüßéï你好"))
    words = [word.replace(" ", "▁") for word in WORDS] + ["▁Hello", "▁The", "\nA"]
    pieces = [
        *((token, 0.0) for token in SPECIAL),
        *((word, -4.0) for word in words),
        *((one, -9.0) for one in letters),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return made


SAID = ["Hello there", " naïve café, 你好 ", "{0} 😀\n", "The answer\n\nis</s>"]
WORDINGS = {
    kind: [{column.names[0]: SAID[(number + shift) % 4] for number, column in enumerate(slots.values())} for shift in (0, 1)]
    for kind, slots in READS.items()
    if kind not in ("chat_template", "messages", "tokenized", "input_output", "user_defined")
    # Documented differences: the number of EOS, the row's masks, the corrected answer.
    and kind not in ("metharme", "llama2_chat", "reflection:chat")
}  # fmt: skip
for _kind, _rows in WORDINGS.items():
    for _row in _rows:
        _row |= {"choices": ["one", "two"]} if "choices" in READS[_kind] else {}
        _row |= {"scores": {"refusal": 3}, "critiques": {"refusal": {"explanation": "é"}}} if "scores" in _row else {}
        if _kind == "pygmalion":
            _row["conversations"] = [
                {"role": role, "value": words} for role, words in zip(("system", "human", "bot"), SAID, strict=False)
            ]
WORDINGS |= {
    "input_output": [{"segments": [{"label": False, "text": "<s>Hello "}, {"label": True, "text": "there</s>"}]}],
}
TALK = [
    ("system", "Be naïve."),
    ("user", "Hello there\n"),
    ("assistant", " The answer is 4. "),
    ("human", "你好?"),
    ("gpt", "Add 😀"),
]
TURNS = [{"role": role, "content": content} for role, content in TALK]
STRICT = [{"role": role, "content": content} for role, content in (*TALK[1:3], ("user", "a"), ("assistant", "b"))]
MARKED = [{**turn, "train": number % 2 == 0} for number, turn in enumerate(TURNS)]
# No emoji: its bytes behind a range are trained there.
DETAILED = [
    {"role": role, "content": content.replace("😀", "it"), "ranges": [{"begin_offset": 0, "end_offset": 3, "train": True}, {"begin_offset": 5, "end_offset": 9, "train": False}]}
    for role, content in TALK
]  # fmt: skip
PARTED = [
    {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there", "train": True}]},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "The", "weight": 0}, {"type": "text", "text": " answer"}],
    },
]
CALLED = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"x": "é"}'}}]},
    {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "The answer", "reasoning_content": "is 4"},
]
READING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['reasoning_content'] %}<think>{{ message['reasoning_content'] }}</think>{% endif %}"
    "{{ message['content'] }}{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>",
        "cohere": "<|END_OF_TURN_TOKEN|>", "aya": "<|END_OF_TURN_TOKEN|>", "phi_3": "<|end|>", "phi_35": "<|end|>",
        "exaone": "[|endofturn|]"}  # fmt: skip
CHATML: dict[str, Any] = {"chat_template": "chatml", "eot_tokens": ["<|im_end|>"]}
OPTIONS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    **{
        f"template {name}": ({"chat_template": name, **({"eot_tokens": [ENDS[name]]} if name in ENDS else {})}, STRICT)
        for name in TEMPLATES
    },
    **{f"trainOnEos {ends}": ({**CHATML, "train_on_eos": ends}, TURNS) for ends in ("all", "turn", "last", "none")},
    "trainOnEot": ({**CHATML, "train_on_eos": "none", "train_on_eot": "all"}, TURNS),
    "rolesToTrain": ({**CHATML, "roles_to_train": ["human", "system"]}, TURNS),
    "roles": ({**CHATML, "roles": {"user": ["user", "human"], "assistant": ["assistant"], "system": ["system", "gpt"]}}, TURNS),
    "trainOnInputs": ({**CHATML, "train_on_inputs": True}, TURNS),
    "dropSystemMessage": ({**CHATML, "drop_system_message": True}, TURNS),
    "messageFieldTraining": ({**CHATML, "message_field_training": "train"}, MARKED),
    "messageFieldTrainingDetail": ({**CHATML, "message_field_training_detail": "ranges"}, DETAILED),
    "parts": (CHATML, PARTED),
    "splitThinking": ({"chat_template": READING, "eot_tokens": ["<|im_end|>"], "split_thinking": True}, [*STRICT[:3], {"role": "assistant", "content": "<think> is </think>\n\nAdd"}]),
    "tools": ({"chat_template": READING, "eot_tokens": ["<|im_end|>"]}, CALLED),
    "messagePropertyMappings": ({**CHATML, "message_property_mappings": {"role": "by", "content": "says"}}, [{"by": role, "says": content} for role, content in TALK]),
}  # fmt: skip
CASES = [
    (option, name)
    for option in OPTIONS
    for name in NAMES
    # There, ranges run past the turn where a tokenizer adds a space in front.
    if not (name.startswith("pieces") and option in ("messageFieldTrainingDetail", "parts"))
]
RECORDS = dict(line.rsplit(" | ", 1) for line in RECORDED.read_text(encoding="utf-8").splitlines())


def summary(ids: list[int], labels: list[int]) -> str:
    """Labels as runs, and a digest of the ids."""
    runs = ((kept, len(list(group))) for kept, group in groupby(label != IGNORED for label in labels))
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]
    return "".join(f"{length}{'+' if kept else '-'}" for kept, length in runs) + f" {digest}"


def made_here(entry: dict[str, Any], row: dict[str, Any], name: str) -> str:
    """What Anneal makes of a row."""
    camel = {f"{key.split('_')[0]}{''.join(map(str.title, key.split('_')[1:]))}": value for key, value in entry.items()}
    made = tokenizer(name)
    spec = DatasetSpec.model_validate({"source": "./rows.jsonl", **camel})
    form = formats.formatter(spec, renderer=lambda: Renderer.of(made, own=None))
    encoder, example = Encoder.of(made, len(made)), form(json.loads(json.dumps(row)))
    [tokens] = encoder.divided(example, encoder.encode([example])[0], 10_000)
    assert all(label in (token, IGNORED) for token, label in zip(tokens.input_ids, tokens.labels, strict=True))
    return summary(tokens.input_ids, tokens.labels)


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("kind", WORDINGS)
def test_prompt_and_answer_are_axolotls(kind: str, name: str) -> None:
    """Ids and labels of every worded type; an EOS that a tokenizer puts between prompt and answer is its own test."""
    for number, row in enumerate(WORDINGS[kind]):
        assert made_here({"type": kind}, row, name) == RECORDS[f"{kind} {number} | {name}"]


@pytest.mark.parametrize(("option", "name"), CASES)
def test_a_conversation_is_axolotls(option: str, name: str) -> None:
    """Ids and labels for every option and named template."""
    options, messages = OPTIONS[option]
    found = made_here({"type": "chat_template", **options}, {"messages": messages}, name)
    assert found == RECORDS[f"{option} | {name}"]
