"""Conversations as tokens: three families of tokenizers, any unicode, and the two ways of finding turns agreeing."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anneal_trainer.data import labels
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat.locate import Locator
from anneal_trainer.data.formats.chat.turns import Conversation, Turn
from anneal_trainer.data.pieces import IGNORED, Piece, Text
from trainer.chats import CHATML, LLAMA3, TOKENIZERS, byte_level, chat, renderer, trained_tokens, turns

# Contents as people paste them: any script, control characters, white space at the ends; no private-use characters.
CONTENT = st.text(st.characters(exclude_categories=("Cs", "Co")), max_size=24)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


@cache
def made_once(family: str) -> Any:
    """The tokenizer of a family."""
    return TOKENIZERS[family]()


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """One tokenizer of each family."""
    return made_once(request.param)


def test_an_answer_and_its_end_are_trained_token_by_token(tokenizer: Any) -> None:
    """In every family the ids are those of the whole text and the labels those of the answer."""
    example = chat()(turns(("user", "Hello there"), ("assistant", "The answer is 4.")))
    [encoded] = Encoder.of(tokenizer, len(tokenizer)).encode([example])
    text = example.pieces[0].text  # type: ignore[union-attr]
    assert encoded.input_ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    written = "".join(trained_tokens(tokenizer, example)).replace("▁", " ").replace("Ġ", " ")
    assert written.strip() == "The answer is 4.<|im_end|>"


def test_bos_is_not_doubled() -> None:
    """A template that writes BOS and a tokenizer that adds it give one."""
    made = made_once("byte-level with BOS")
    example = chat(renderer(LLAMA3))(turns(("user", "Hello"), ("assistant", "hi")))
    [encoded] = Encoder.of(made, len(made)).encode([example])
    assert encoded.input_ids.count(made.bos_token_id) == 1


PARTS = [
    pytest.param(
        [("think... ", False), ("The cat", True)], ["Ġcat", "<|im_end|>"], id="an edge inside a token is kept out"
    ),
    pytest.param(
        [("think...", False), (" The cat", True)], ["ĠThe", "Ġcat", "<|im_end|>"], id="an edge before a space"
    ),
    pytest.param([("The", True), (" answer", False)], ["Th", "e", "<|im_end|>"], id="the front"),
]


@pytest.mark.parametrize(("parts", "expected"), PARTS)
def test_parts_keep_out_what_they_do_not_train(parts: list[tuple[str, bool]], expected: list[str]) -> None:
    """A token that an untrained part shares is not trained."""
    content = [{"type": "text", "text": text, "train": flag} for text, flag in parts]
    made = made_once("byte-level")
    assert trained_tokens(made, chat()(turns(("user", "u"), ("assistant", content)))) == expected


RANGES = [
    pytest.param([(9, 11, True)], ["ĠThe", "<|im_end|>"], id="a word without its space takes the token"),
    pytest.param(
        [(0, 8, True)], ["th", "in", "k", "...", "<|im_end|>"], id="a space behind a word does not take the next"
    ),
    pytest.param([(8, 9, True), (10, 11, True)], ["ĠThe", "<|im_end|>"], id="ranges that touch are one"),
    pytest.param([(0, 99, False)], ["<|im_end|>"], id="nothing but the end"),
]


@pytest.mark.parametrize(("ranges", "expected"), RANGES)
def test_ranges_follow_words(ranges: list[tuple[int, int, bool]], expected: list[str]) -> None:
    """A token is trained if it lies in a range or has two characters there."""
    detail = [{"begin_offset": first, "end_offset": last, "train": flag} for first, last, flag in ranges]
    row = {"messages": [{"role": "assistant", "content": "think... The cat", "d": detail}]}
    made = made_once("byte-level")
    assert trained_tokens(made, chat(message_field_training_detail="d")(row)) == expected


def test_white_space_at_a_turns_end_is_trained() -> None:
    """Also with a tokenizer that leaves it out of its offsets, as Llama 3's does, and with no end behind it."""
    from tokenizers import processors

    made = byte_level()
    made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    example = chat(train_on_eos="none")(turns(("user", "Hello  "), ("assistant", "yes  "), ("assistant", " \t ")))
    assert "".join(trained_tokens(made, example)) == "yesĠĠĠĉĠ"


def test_a_token_that_begins_in_a_header_is_not_trained() -> None:
    """Type messages trains what begins in a trained text: the line break before it may be one token with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE({**alphabet, "ĊA": 256}, merges=[("Ċ", "A")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merging = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    said = turns(("user", "u"), ("assistant", "Add"))
    assert trained_tokens(merging, chat(type="messages")(said)) == ["d", "d", "<|im_end|>"]
    assert trained_tokens(merging, chat()(said)) == ["ĊA", "d", "d", "<|im_end|>"]


@given(st.lists(st.tuples(ROLES, CONTENT), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_marks_cover_exactly_the_answers(pairs: list[tuple[str, str]]) -> None:
    """For any unicode the trained characters are the assistant's contents and the ends behind them."""
    example = chat()(turns(*pairs))
    assert isinstance(example, Text)
    [piece] = example.pieces
    said = "".join(f"{content}<|im_end|>" for role, content in pairs if role == "assistant" and content)
    assert "".join(piece.text[first:last] for first, last in piece.trained) == said


@pytest.mark.parametrize("template", [CHATML, LLAMA3], ids=["as it is", "trimmed"])
@given(pairs=st.lists(st.tuples(ROLES, CONTENT), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_both_ways_of_finding_turns_agree(template: str, pairs: list[tuple[str, str]]) -> None:
    """Rebuilding the text from its shape and comparing it turn by turn give the same characters."""
    made = renderer(template).chosen(None)
    conversation = Conversation(tuple(Turn({"role": role, "content": content}) for role, content in pairs))
    text = made.render(conversation.messages)
    quick = Locator(made).spans(conversation, text, range(len(pairs)))
    slow = dict(Locator(made)._one_by_one(conversation, text, range(len(pairs))))
    assert quick == {index: span for index, span in slow.items() if span[1] > span[0]}


@given(text=CONTENT, data=st.data())
@settings(max_examples=200, deadline=None)
def test_labels_are_those_of_the_tokens_that_share_a_character(text: str, data: st.DataObject) -> None:
    """The two look-ups of a span choose the tokens that a pass over all offsets would."""
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, len(text)))
    for name in TOKENIZERS:
        [encoding] = made_once(name).backend_tokenizer.encode_batch([text], add_special_tokens=False)
        piece = Piece(f"{text}.", ((first, last),) if first < last else ())
        found = labels.labels(piece, encoding.ids, encoding)
        expected = [
            token if first < last and start < last and end > first else IGNORED
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        assert found == expected, (name, encoding.offsets)
