"""A small causal language model with random weights, and a tokenizer trained on the quickstart's own data.

The architecture is Qwen3's at a few million parameters, so everything a real model goes through (chat template,
LoRA targets, quantization) is gone through here too. Deterministic: the same data gives the same files.
Not here: a download. That is the point of it.
"""

from collections.abc import Iterable
from pathlib import Path

from anneal_trainer import quiet_libraries
from anneal_trainer.data.formats.chat.known import TEMPLATES

VOCABULARY, WIDTH, HEADS = 1024, 512, 8
SEED = 20240229
END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def build(
    texts: Iterable[str], path: Path, *, vocabulary: int = VOCABULARY, width: int = WIDTH, heads: int = HEADS
) -> None:
    """Write tokenizer and model to `path`; `width` is a multiple of `heads`."""
    _save_tokenizer(texts, path, vocabulary)
    _save_model(path, vocabulary=vocabulary, width=width, heads=heads)


def _save_tokenizer(texts: Iterable[str], path: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START_OF_TURN],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATES["chatml"]
    fast.save_pretrained(path)


def _save_model(path: Path, *, vocabulary: int, width: int, heads: int) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=width // heads,
        max_position_embeddings=2048,
        # Embedding and head stay frozen under LoRA, so what can be learnt is bounded by how well their random rows
        # span the vocabulary: hence few tokens, a wide model, and rows longer than the usual 0.02 makes them.
        tie_word_embeddings=True,
        initializer_range=0.06,
        eos_token_id=2,
        pad_token_id=0,
        dtype="float32",
    )
    quiet_libraries.hide_bars()
    torch.manual_seed(SEED)
    Qwen3ForCausalLM(config).save_pretrained(path)
