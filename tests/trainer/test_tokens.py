"""Token ids and labels of every type with tokenizers of four families, and the masks' properties for any unicode."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anneal_trainer.data import division
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.pieces import IGNORED, Piece, Text, Tokens, trained
from anneal_trainer.data.shape import CUT_OFF, KEPT, MASKED, TOO_LONG, Flat, Limits, shape
from trainer.families import BOS, EOS, NAMES, SPECIAL, tokenizer
from trainer.test_prompts import TABLE, formatted

BOS_ID, EOS_ID = SPECIAL.index(BOS), SPECIAL.index(EOS)
START = {"bytes": [], "bytes-bos": [BOS_ID], "pieces": [BOS_ID], "pieces-eos": []}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def encoder(name: str) -> Encoder:
    """The encoder over one of the families."""
    return Encoder.of(tokenizer(name), len(tokenizer(name)))


def ids_of(name: str, text: str) -> list[int]:
    """The tokens of a text and nothing else, as the tokenizer gives them."""
    found: list[int] = tokenizer(name)(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "row", "prompt", "answer"), TABLE, ids=[f"{kind} {i}" for i, (kind, *_) in enumerate(TABLE)]
)
def test_prompt_is_masked_and_answer_and_eos_are_trained(
    kind: str, row: dict[str, Any], prompt: str, answer: str, name: str
) -> None:
    """Start tokens once, the prompt's tokens, the answer's, one EOS: also if the tokenizer would add its own."""
    [tokens] = encoder(name).encode([formatted(kind, row)])
    if kind.startswith("reflection"):
        body = ids_of(name, prompt + answer)
        asked = START[name] + body[: len(ids_of(name, prompt))]
        said = [*body[len(ids_of(name, prompt)) :], EOS_ID]
    else:
        asked, said = START[name] + ids_of(name, prompt), [*ids_of(name, answer), EOS_ID]
    assert tokens.input_ids == asked + said
    assert tokens.labels == [IGNORED] * len(asked) + said


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_ends_with_eos_keeps_one(name: str) -> None:
    """EOS is appended unless it is there."""
    row = {"instruction": "Q", "output": f"A{EOS}"}
    [tokens] = encoder(name).encode([formatted("alpaca", row)])
    assert tokens.labels[-2:] == [ids_of(name, "A")[-1], EOS_ID]
    assert tokens.input_ids.count(EOS_ID) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_answer_trains_nothing(name: str) -> None:
    """Not even EOS, with any tokenizer."""
    [tokens] = encoder(name).encode([formatted("alpaca", {"instruction": "Q", "output": ""})])
    assert set(tokens.labels) == {IGNORED}


@pytest.mark.parametrize("name", NAMES)
def test_metharme_ends_with_one_eos(name: str) -> None:
    """Axolotl trains three, or none, depending on the tokenizer's BOS."""
    [tokens] = encoder(name).encode([formatted("metharme", {"prompt": "P", "generation": "G"})])
    assert tokens.input_ids == [*START[name], *ids_of(name, "P"), *ids_of(name, "G"), EOS_ID]


@pytest.mark.parametrize("name", NAMES)
def test_pygmalion_trains_each_bot_turn_and_its_eos(name: str) -> None:
    """The prefix <|model|> is masked, the words and EOS behind them are trained."""
    turns = [{"role": "human", "value": "hi"}, {"role": "bot", "value": "yo"}]
    [tokens] = encoder(name).encode([formatted("pygmalion", {"conversations": turns})])
    asked, prefix = ids_of(name, "<|user|> hi"), ids_of(name, "<|model|>")
    said = ids_of(name, "<|model|> yo")
    assert tokens.input_ids == [*START[name], *asked, *said, EOS_ID]
    assert tokens.labels == [
        *[IGNORED] * (len(START[name]) + len(asked) + len(prefix)),
        *said[len(prefix) :],
        EOS_ID,
    ]


@pytest.mark.parametrize("name", NAMES)
def test_pygmalion_begins_once_and_learns_no_silence(name: str) -> None:
    """Start tokens are not written again with a later persona, and an empty answer has no EOS."""
    said = [("human", "hi"), ("system", "You are kind."), ("bot", " ")]
    turns = [{"role": role, "value": words} for role, words in said]
    [tokens] = encoder(name).encode([formatted("pygmalion", {"conversations": turns})])
    written = [*ids_of(name, "<|user|> hi"), *ids_of(name, "<|system|>Persona: You are kind.")]
    assert tokens.input_ids == [*START[name], *written, *ids_of(name, "<|model|> ")]
    assert set(tokens.labels) == {IGNORED}


@pytest.mark.parametrize("name", NAMES)
def test_llama2_chat_has_start_and_end_around_each_exchange(name: str) -> None:
    """No padding, no row masked as a whole, no BOS behind the last answer."""
    said = [("system", "S"), ("human", "hi"), ("gpt", "yo"), ("human", "so"), ("gpt", "yes")]
    row = {"conversations": [{"from": role, "value": words} for role, words in said]}
    [tokens] = encoder(name).encode([formatted("llama2_chat", row)])
    first = ids_of(name, "[INST] <<SYS>>\nS\n<</SYS>>\n\nhi[/INST] yo ")
    second = ids_of(name, "[INST] so [/INST] yes ")
    assert tokens.input_ids == [*START[name], *first, EOS_ID, *START[name], *second, EOS_ID]
    assert tokens.labels.count(EOS_ID) == 2
    assert tokens.labels[-1] == EOS_ID
    assert BOS_ID not in tokens.labels


@pytest.mark.parametrize("name", NAMES)
def test_segments_get_no_token_of_the_tokenizers_own(name: str) -> None:
    """`input_output` is the tokens of its segments, one behind the other."""
    row = {"segments": [{"label": False, "text": f"{BOS}hi "}, {"label": True, "text": "you"}]}
    [tokens] = encoder(name).encode([formatted("input_output", row)])
    asked, said = ids_of(name, f"{BOS}hi "), ids_of(name, "you")
    assert (tokens.input_ids, tokens.labels) == (asked + said, [IGNORED] * len(asked) + said)


@pytest.mark.parametrize("name", NAMES)
def test_completion_is_cut_into_sequences_and_nothing_is_lost(name: str) -> None:
    """The chunks in a row are the whole text with its start tokens and EOS, all trained."""
    text = "Grüße, how are you? " * 9
    example = formatted("completion", {"text": text})
    made = encoder(name)
    [whole] = made.encode([example])
    assert whole.input_ids == [*START[name], *ids_of(name, text), EOS_ID]
    parts = made.divided(example, whole, 16)
    assert [token for part in parts for token in part.input_ids] == whole.input_ids
    assert all(len(part.input_ids) == 16 for part in parts[:-1])
    assert all(part.labels == part.input_ids for part in parts)


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_windows_are_the_tokenizers_own(name: str) -> None:
    """Windows are those of the tokenizer's truncation with a stride, each with an EOS of its own."""
    text, length = "Grüße, how are you today, my friend? " * 9, 24
    example = formatted("pretrain", {"text": text})
    made = encoder(name)
    [whole] = made.encode([example])
    found = [part.input_ids for part in made.divided(example, whole, length)]
    bare = deepcopy(tokenizer(name))
    if name == "pieces-eos":
        bare = deepcopy(tokenizer("pieces-eos"))
        bare.backend_tokenizer.post_processor = tokenizer("bytes").backend_tokenizer.post_processor
    expected = bare(
        text, truncation=True, max_length=length - 1, return_overflowing_tokens=True, stride=(length - 1) // 2
    )["input_ids"]
    assert found == [[*window, EOS_ID] for window in expected]
    assert len(found) > 2


def test_a_last_chunk_is_never_one_token() -> None:
    """Nothing would come before a lone EOS that could predict it: it is trained with the token before it."""
    tokens = Tokens(list(range(9)), list(range(9)))
    assert [part.input_ids for part in division.chunks(tokens, 4)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]
    assert [part.input_ids for part in division.chunks(Tokens([7], [7]), 4)] == [[7]]


def test_windows_without_room_are_refused() -> None:
    """A length that start tokens and EOS fill is an error with its numbers, not an endless loop."""
    with pytest.raises(ValueError, match="windows of 2 tokens leave no room for text: 1 start tokens and EOS"):
        division.windows([5, 6], 2, start=[1], eos=2)


def test_a_tokenizer_that_cuts_and_pads_by_itself_does_not() -> None:
    """Truncation and padding in a tokenizer's own file would silently shorten every text."""
    cutting = deepcopy(tokenizer("bytes"))
    cutting.backend_tokenizer.enable_truncation(4)
    cutting.backend_tokenizer.enable_padding(length=64)
    made = Encoder.of(cutting, len(cutting))
    [tokens] = made.encode([formatted("completion", {"text": "a long text that goes on"})])
    assert tokens.input_ids == [*ids_of("bytes", "a long text that goes on"), EOS_ID]


def spans(draw: Any, text: str) -> tuple[tuple[int, int], ...]:
    """Some spans of a text, in order and apart."""
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return tuple(zip(ends[::2], ends[1::2], strict=False))


@st.composite
def marked(draw: Any) -> Piece:
    """Any text with any spans of it trained."""
    text = draw(ANY_TEXT)
    return Piece(text, spans(draw, text))


def with_white_space(offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets with white space that trimming left without characters given back to its tokens."""
    before = [0, *(end for _, end in offsets)]
    return [
        (start, end) if start < end else (min(start, last), end)
        for (start, end), last in zip(offsets, before, strict=False)
    ]


@pytest.mark.parametrize("trimmed", [False, True], ids=["offsets", "trimmed offsets"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150)
@given(piece=marked())
def test_a_token_is_trained_if_any_of_its_characters_is(name: str, *, trimmed: bool, piece: Piece) -> None:
    """The labels are those that looking at every token's offsets gives, for any text and any spans of it."""
    from tokenizers import processors

    made = tokenizer(name)
    if trimmed:
        made = deepcopy(made)
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    [tokens] = Encoder.of(made, len(made)).encode([Text((piece,))])
    full = made(piece.text, add_special_tokens=False, return_offsets_mapping=True)
    assert tokens.input_ids == full["input_ids"]
    # A text that is trained as a whole is trained to its last token, also one that trimming has left no character.
    assert tokens.labels == [
        token if piece.whole or any(start < last and end > first for first, last in piece.trained) else IGNORED
        for token, (start, end) in zip(full["input_ids"], with_white_space(full["offset_mapping"]), strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100)
@given(parts=st.lists(st.tuples(st.booleans(), ANY_TEXT), min_size=1, max_size=6))
def test_masks_cover_exactly_the_trained_pieces(name: str, parts: list[tuple[bool, str]]) -> None:
    """Whatever the texts, each label is its token or -100, and the trained ones are the trained texts' tokens."""
    example = Text(tuple(trained(text) if keep else Piece(text) for keep, text in parts), starts=True, ends=True)
    [tokens] = encoder(name).encode([example])
    assert all(label in (token, IGNORED) for token, label in zip(tokens.input_ids, tokens.labels, strict=True))
    kept = [label for label in tokens.labels if label != IGNORED]
    start = START[name] if example.pieces[0].whole else []
    expected = start + [token for keep, text in parts if keep or not text for token in ids_of(name, text)]
    last = ids_of(name, parts[-1][1])
    assert kept == expected + ([EOS_ID] if last and last[-1] != EOS_ID else [])


@settings(max_examples=200)
@given(count=st.integers(0, 300), length=st.integers(8, 64), start=st.integers(0, 2))
def test_windows_cover_every_token_and_share_what_they_say(count: int, length: int, start: int) -> None:
    """Every token is in a window, none is longer than a sequence, neighbours share the overlap."""
    ids = list(range(10, 10 + count))
    found = division.windows(ids, length, start=[1] * start, eos=2)
    bodies = [window.input_ids[start:-1] for window in found]
    assert all(len(window.input_ids) <= length and window.input_ids[-1] == 2 for window in found)
    assert sorted({token for body in bodies for token in body}) == ids
    overlap = (length - 1) // 2
    assert all(one[-overlap:] == two[:overlap] for one, two in pairwise(bodies))


@settings(max_examples=200)
@given(count=st.integers(0, 100), length=st.integers(2, 20))
def test_chunks_are_the_whole(count: int, length: int) -> None:
    """Chunks in a row are the text, none is too long, and the last token is one that is predicted."""
    tokens = Tokens(list(range(count)), list(range(count)))
    parts = [part.input_ids for part in division.chunks(tokens, length)]
    assert [token for part in parts for token in part] == tokens.input_ids
    assert all(0 < len(part) <= length for part in parts)
    assert count < 2 or len(parts[-1]) > 1


ROWS = st.lists(st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=3), min_size=1, max_size=8)


@settings(max_examples=300)
@given(rows=ROWS, most=st.integers(1, 10), policy=st.sampled_from(["truncate", "drop", "error"]))
def test_every_row_is_kept_or_has_one_reason(rows: list[list[list[bool]]], most: int, policy: str) -> None:
    """Cuts and drops add up: what is kept is the beginning of its rows, and trains as many tokens as is counted."""
    made = [
        [Tokens(list(range(len(flags))), [i if flag else IGNORED for i, flag in enumerate(flags)]) for flags in row]
        for row in rows
    ]
    flat = Flat.of(made)
    found = shape(flat, len(rows), Limits(most, policy))
    assert found.reasons == [reason(row, most, policy) for row in rows]
    kept = [part for row, why in zip(rows, found.reasons, strict=True) if why == KEPT for part in row]
    learnt = [sum(flags[1:most]) for flags in kept]
    assert found.trained.tolist() == [count for count in learnt if count]
    assert (found.end - found.start).tolist() == [min(len(flags), most) for flags in kept if sum(flags[1:most])]
    long = [max(map(len, row)) > most for row in rows]
    assert found.cut.tolist() == [why == KEPT and is_long for why, is_long in zip(found.reasons, long, strict=True)]


def reason(row: list[list[bool]], most: int, policy: str) -> str:
    """Why a row of these labels is not trained on: one reason, the first that holds."""
    if not any(flag for flags in row for flag in flags[1:]):
        return MASKED
    if policy != "truncate" and any(len(flags) > most for flags in row):
        return TOO_LONG
    return KEPT if any(flag for flags in row for flag in flags[1:most]) else CUT_OFF
