"""Four small tokenizers of different families, trained in a moment: what is exact for these is exact for real ones.

`bytes` is a byte-level BPE that adds nothing (Qwen, GPT-2), `bytes-bos` one that begins texts with BOS (Llama 3),
`pieces` a Unigram with a prefix space and BOS (SentencePiece: Llama 2, Gemma), `pieces-eos` one that ends every text
with EOS by itself (T5).
"""

from functools import cache
from typing import Any

from anneal_trainer.data.formats import prompts

NAMES = ("bytes", "bytes-bos", "pieces", "pieces-eos")
BOS, EOS = "<s>", "</s>"
SPECIAL = [BOS, EOS, "<unk>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    prompts.ALPACA_WITH_INPUT,
    prompts.LLAMA2_SYSTEM,
    "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3",
    "USER: Hello there, how are you?\nASSISTANT: I am well, thank you.",
    "Grüße aus Köln — naïve café, 東京の天気, Привет мир, שלום, 👩‍👩‍👧 and e\u0301.",
]


@cache
def tokenizer(name: str) -> Any:
    """One of `NAMES`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if name.startswith("bytes"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator(TEXTS, trainer)
    around = {"bytes-bos": f"{BOS} $A", "pieces": f"{BOS} $A", "pieces-eos": f"$A {EOS}"}
    if name in around:
        made.post_processor = processors.TemplateProcessing(
            single=around[name], special_tokens=[(BOS, SPECIAL.index(BOS)), (EOS, SPECIAL.index(EOS))]
        )
    bos = {} if name in ("bytes", "pieces-eos") else {"bos_token": BOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=EOS, unk_token="<unk>", additional_special_tokens=SPECIAL[3:], **bos
    )
