"""Where pieces that are tokenized one by one differ from their whole text, it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import Piece, Text, Tokens, trained
from anneal_trainer.data.seams import KIND, UNASKED, seam, unasked
from trainer.chats import chat, turns
from trainer.families import NAMES, tokenizer
from trainer.test_tokens import ANY_TEXT, ids_of


def encoder(name: str) -> Encoder:
    """The encoder over one of the families."""
    return Encoder.of(tokenizer(name), len(tokenizer(name)))


def test_a_prefix_space_is_a_seam() -> None:
    """A tokenizer that puts a space before each text puts one before the answer too."""
    note = seam(encoder("pieces"), Text((Piece("USER: Hello\nASSISTANT:"), trained("well"))))
    assert note is not None
    assert note.kind == KIND
    assert note.detail.startswith("'ER: Hello\\nASSISTANT:' and 'well': ['▁")


def test_merged_tokens_are_a_seam() -> None:
    """A token that would reach from the prompt into the answer is told with both readings."""
    merged = next(token for token in ("th", "ea", "er", "in", "ou") if len(ids_of("bytes", token)) == 1)
    note = seam(encoder("bytes"), Text((Piece(merged[0]), trained(merged[1]))))
    assert note is not None
    assert note.detail == f"{merged[0]!r} and {merged[1]!r}: ['{merged[0]}'] apart, ['{merged}'] as one text"


def test_pieces_that_meet_between_tokens_have_no_seam() -> None:
    """Nothing is told where nothing differs, for ids, and where start or end tokens stand between the pieces."""
    made = encoder("bytes")
    assert seam(made, Text((Piece("USER: Hello\n"), trained("ASSISTANT: well")))) is None
    assert seam(made, Tokens([1], [1])) is None
    assert seam(encoder("pieces"), Text((Piece("a", ends=True), Piece("b", ends=True)))) is None


@pytest.mark.parametrize("name", NAMES)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_a_seam_is_told_exactly_where_there_is_one(name: str, texts: list[str]) -> None:
    """A note is given if and only if the ids of the pieces are not those of the whole."""
    apart = [token for text in texts for token in ids_of(name, text)]
    note = seam(encoder(name), Text(tuple(Piece(text) for text in texts)))
    assert (note is None) == (apart == ids_of(name, "".join(texts)))


@pytest.mark.parametrize(("content", "told"), [("  spaced", True), (" ", True), ("words", False), ("", False)])
def test_a_token_that_no_prompt_leads_to_is_told(content: str, *, told: bool) -> None:
    """An answer's first characters may be one token with the line break that its prompt ends in; each row is looked at."""
    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE({**alphabet, "ĊĠ": 256}, merges=[("Ċ", "Ġ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merging = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    form = chat()
    form(turns(("user", "Hello"), ("assistant", "words")))
    note = unasked(Encoder.of(merging, 300), form(turns(("user", "Hello"), ("assistant", content))))
    assert (note is not None) == told
    if note is not None:
        assert (note.reason, note.kind) == ("OtherPrompt", UNASKED)
        assert note.detail.endswith(": ['Ċ'] at a prompt's end, ['ĊĠ'] in the row")
        assert f"assistant\\n' and '{content}" in note.detail
