"""What the tests of conversations share: small tokenizers of three families, and trained characters made visible."""

from typing import Any

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat import Renderer
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import IGNORED, Text

CHATML = TEMPLATES["chatml"]
LLAMA3 = TEMPLATES["llama3"]
SPECIAL = [
    "<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
TEXTS = [
    "Hello there, how are you? The answer is 4. I think... that the cat sat.",
    "naïve café 你好 😀 let me think",
] * 20


def renderer(template: str | None = CHATML, *, eos: str = "<|im_end|>", bos: str = "<s>") -> Renderer:
    """What a tokenizer with all these special tokens brings."""
    variables = (("eos_token", eos), ("bos_token", bos))
    return Renderer(
        template, own=template, variables=variables, special_tokens=tuple(SPECIAL), added_tokens=tuple(SPECIAL)
    )


def chat(made: Renderer | None = None, **options: Any) -> formats.Format:
    """The format of an entry with these options, by their Python names."""
    kind = options.pop("type", "chat_template")
    camel = {
        f"{name.split('_')[0]}{''.join(map(str.title, name.split('_')[1:]))}": value for name, value in options.items()
    }
    entry = DatasetSpec.model_validate({"source": "./rows.jsonl", "type": kind, **camel})
    return formats.formatter(entry, renderer=lambda: made or renderer())


def turns(*pairs: tuple[str, Any], **extra: Any) -> dict[str, Any]:
    """A row of role and content pairs."""
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **extra}


def seen(example: Any) -> str:
    """The text with what is trained in «», what is kept out of it in ⟦⟧, and partly trained ranges in {}."""
    assert isinstance(example, Text)
    whole = ""
    for piece in example.pieces:
        marks = [*((span, "«»") for span in piece.trained), *((span, "⟦⟧") for span in piece.masked)]
        marks += [(span, "{}") for span in piece.partly]
        inserts = sorted(
            [(last, 0, pair[1]) for (_, last), pair in marks] + [(first, 1, pair[0]) for (first, _), pair in marks]
        )
        text, place = "", 0
        for at, _, mark in inserts:
            text, place = text + piece.text[place:at] + mark, at
        whole += text + piece.text[place:]
    return whole


def byte_level(*, starts: bool = False) -> Any:
    """A byte-level BPE tokenizer, which may begin every text with `<s>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": SPECIAL, "show_progress": False}
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, **options))
    if starts:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _fast(made)


def unigram() -> Any:
    """A Unigram tokenizer in SentencePiece's manner: a prefix space, bytes for what it does not know."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=130, special_tokens=SPECIAL, unk_token=SPECIAL[0], show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    return _fast(made)


def _fast(made: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        bos_token="<s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL,
    )


TOKENIZERS = {"byte-level": byte_level, "byte-level with BOS": lambda: byte_level(starts=True), "unigram": unigram}


def trained_tokens(tokenizer: Any, example: Any) -> list[str]:
    """The tokens that are trained, as the tokenizer writes them."""
    [tokens] = Encoder.of(tokenizer, len(tokenizer)).encode([example])
    assert len(tokens.input_ids) == len(tokens.labels)
    kept = [token for token, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED]
    names: list[str] = tokenizer.convert_ids_to_tokens(kept)
    return names
