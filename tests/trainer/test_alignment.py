"""Rows of pairs, judgements, steps and prompts: what they become as text and as token ids, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from anneal_api.alignment import ALIGNMENT_DETECTED, ALIGNMENT_READS, AlignmentFields, AlignmentRows, Family
from anneal_trainer.data import alignment
from anneal_trainer.data.alignment.encode import AlignmentEncoder, check
from anneal_trainer.data.alignment.examples import (
    Aligned,
    Asked,
    AskedTokens,
    Compared,
    ComparedTokens,
    Judged,
    JudgedTokens,
    Pair,
    PairTokens,
    Prompt,
    StepTokens,
)
from anneal_trainer.data.alignment.fit import fit
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import IGNORED, RowError
from anneal_trainer.data.shape import Limits
from anneal_trainer.errors import ConfigError
from trainer.families import EOS, NAMES, SPECIAL, tokenizer
from trainer.test_tokens import ANY_TEXT, EOS_ID, START, ids_of

ROW = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
CHATML_Q = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
LLAMA3_Q = "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
SYSTEMS = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>",
}
ASKED = {"chatml": CHATML_Q, "llama3": LLAMA3_Q}
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}
USER, GOOD, BAD = (
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": " good "},
    {"role": "assistant", "content": "bad"},
)
TRIMMING = TEMPLATES["llama3"].replace("{{ bos_token }}", "")


def rendering(jinja: str) -> Any:
    """A chat template as the formatter asks for it."""
    from copy import deepcopy

    made = deepcopy(tokenizer("bytes"))
    made.chat_template = jinja

    def template(messages: Any, *, generate: bool) -> str:
        text: str = made.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate)
        return text

    return template


def formatted(
    family: Family, kind: str, row: dict[str, Any], jinja: str = TEMPLATES["chatml"], **options: Any
) -> Aligned:
    """A row through a type."""
    if kind == "user_defined":
        options.setdefault("format", {})
    rows = AlignmentRows.model_validate({"type": kind, **options})
    return alignment.formatter(rows, family, template=lambda: rendering(jinja))(row)


def tokens(name: str, example: Aligned) -> Any:
    """The token ids of one example."""
    made = tokenizer(name)
    [found] = AlignmentEncoder(Encoder.of(made, len(made))).encode([example])
    return found


@pytest.mark.parametrize("style", ["chatml", "llama3"])
@pytest.mark.parametrize(
    ("variant", "row"),
    [
        ("", ROW),
        (".default", {"prompt": "Q", "chosen_response": "good", "rejected_response": "bad"}),
        (".default", {"input": "Q", "chosen": "good", "rejected": "bad"}),
        (".default", {"question": "Q", "chosen": "good", "rejected": "bad"}),
        (".default", {"instruction": "Q", "chosen": "good", "rejected": "bad"}),
        (".icr", {"input": "Q", "chosen": "good", "rejected": "bad"}),
        (".intel", {"question": "Q", "chosen": "good", "rejected": "bad"}),
        (".prompt_pairs", ROW),
        (".ultra", {"prompt": "Q", "chosen": [USER, {**GOOD, "content": "good"}], "rejected": [USER, BAD]}),
        (".argilla_chat", {"chosen": [USER, {**GOOD, "content": "good"}], "rejected": [USER, BAD]}),
    ],
)
def test_pairs_are_worded_as_ever(style: str, variant: str, row: dict[str, Any]) -> None:
    """The prompt has no BOS of its own, answers end with the style's end of turn; a null system is none."""
    expected = Pair(Prompt(ASKED[style], starts=True), f"good{ENDS[style]}", f"bad{ENDS[style]}")
    assert formatted("preference", style + variant, row) == expected
    if variant == ".argilla_chat":
        return
    assert formatted("preference", style + variant, {**row, "system": None}) == expected
    pair = formatted("preference", style + variant, {**row, "system": "S"})
    assert isinstance(pair, Pair)
    assert pair.prompt.text == SYSTEMS[style] + ASKED[style]


@pytest.mark.parametrize("style", ["chatml", "llama3"])
@pytest.mark.parametrize(
    ("variant", "column"), [(".argilla", "instruction"), (".intel", "question"), (".prompt_pairs", "prompt"), (".ultra", "prompt")]
)  # fmt: skip
def test_judged_answers_are_worded_as_ever(style: str, variant: str, column: str) -> None:
    """A KTO row has one answer and a label."""
    row = {column: "Q", "completion": "good", "label": True, "system": "S"}
    expected = Judged(Prompt(SYSTEMS[style] + ASKED[style], starts=True), f"good{ENDS[style]}", label=True)
    assert formatted("unpaired", style + variant, row) == expected


def test_a_judged_conversation_keeps_all_its_turns() -> None:
    """`argilla_chat` for KTO: every turn but the last is the prompt."""
    said = [USER, BAD, USER, {**GOOD, "content": "good"}]
    judged = formatted("unpaired", "chatml.argilla_chat", {"completion": said, "label": False})
    assert isinstance(judged, Judged)
    assert judged.prompt.text == f"<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nbad<|im_end|>\n{CHATML_Q}"
    assert (judged.completion, judged.label) == ("good<|im_end|>", False)


def test_nectar_chooses_the_best_rank() -> None:
    """Rank 1 is the best answer; Axolotl takes the worst one as chosen."""
    answers = [{"answer": text, "rank": rank} for text, rank in (("third", 3), ("first", 1), ("second", 2))]
    pair = formatted("preference", "zephyr.nectar", {"prompt": "Q", "answers": answers})
    prompt = Prompt("<|system|>\n</s>\n<|user|>\nQ</s>\n<|assistant|>\n", starts=True)
    assert pair == Pair(prompt, "first", "second")


@pytest.mark.parametrize(
    ("messages", "chosen"),
    [
        ("Q", " good "),
        ([USER], GOOD),
        ([USER], [GOOD]),
        ([{"from": "human", "value": "Q"}], {"from": "gpt", "value": " good "}),
    ],
    ids=["texts", "turns", "list", "sharegpt"],
)
def test_a_templated_pair_is_read_in_every_shape(messages: Any, chosen: Any) -> None:
    """Text, turn or list of turns; the template's end of turn is kept, its line break behind it is not."""
    row = {"messages": messages, "chosen": chosen, "rejected": "bad"}
    expected = Pair(Prompt(CHATML_Q, starts=False), " good <|im_end|>", "bad<|im_end|>")
    assert formatted("preference", "chat_template", row) == expected
    assert formatted("preference", "chat_template.default", row) == expected


def test_lists_may_be_json_text_and_answers_may_be_json() -> None:
    """A CSV file's turns are read from their JSON; an answer that happens to be a list stays the text that it is."""
    row = {"messages": '[{"role": "user", "content": "Q"}]', "chosen": "[1, 2]", "rejected": "[" * 9999}
    pair = formatted("preference", "chat_template", row)
    assert isinstance(pair, Pair)
    assert (pair.prompt.text, pair.chosen) == (CHATML_Q, "[1, 2]<|im_end|>")


def test_a_template_that_trims_leaves_the_answer_whole() -> None:
    """Axolotl would look for ' good ' in the text, not find it, and train a fragment of the template."""
    row = {"messages": [USER], "chosen": GOOD, "rejected": BAD}
    pair = formatted("preference", "chat_template.default", row, TRIMMING)
    assert pair == Pair(Prompt(LLAMA3_Q, starts=False), "good<|eot_id|>", "bad<|eot_id|>")


def test_whole_conversations_share_all_but_the_last_turn() -> None:
    """`argilla_chat` takes the prompt from the conversation; `argilla` adds the system and keeps the line break."""
    row = {"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD, USER, BAD], "system": "S"}
    before = f"{CHATML_Q}bad<|im_end|>\n{CHATML_Q}"
    pair = formatted("preference", "chat_template.argilla_chat", row)
    assert pair == Pair(Prompt(before, starts=False), " good <|im_end|>", "bad<|im_end|>")
    pair = formatted("preference", "chat_template.argilla", row)
    system = "<|im_start|>system\nS<|im_end|>\n"
    assert pair == Pair(Prompt(system + before, starts=False), " good <|im_end|>\n", "bad<|im_end|>\n")


def test_user_defined_pairs_are_worded_by_the_manifest() -> None:
    """Texts and columns are the manifest's."""
    row = {"q": "Q", "chosen": "good", "rejected": "bad", "completion": "c", "label": True}
    words = {"promptFormat": "[{system}|{prompt}]", "chosenFormat": "+{chosen}", "completionFormat": "={completion}"}
    options: dict[str, Any] = {"format": words, "fields": {"prompt": "q"}}
    asked = Prompt("[|Q]", starts=True)
    assert formatted("preference", "user_defined", row, **options) == Pair(asked, "+good", "bad")
    assert formatted("unpaired", "user_defined", row, **options) == Judged(asked, "=c", label=True)
    assert formatted("preference", "passthrough", ROW) == Pair(Prompt("Q", starts=True), "good", "bad")


def test_a_reward_row_is_two_conversations() -> None:
    """An absent or null system is none; Axolotl raises KeyError."""
    row = {"input": "Q", "chosen": "good", "rejected": "bad", "system": None}
    end = "<|im_end|>\n"
    compared = formatted("reward", "bradley_terry.chat_template", row)
    assert compared == Compared(f"{CHATML_Q}good{end}", f"{CHATML_Q}bad{end}")
    found = tokens("bytes-bos", compared)
    assert found == ComparedTokens(
        ids_of("bytes-bos", f"{CHATML_Q}good{end}"), ids_of("bytes-bos", f"{CHATML_Q}bad{end}")
    )


def test_a_prompt_keeps_the_rows_other_columns() -> None:
    """Text is taken as it is, turns are rendered up to the answer; the rest is for the reward functions."""
    asked = formatted("prompt", "prompt", {"prompt": "Q", "truth": 4})
    assert asked == Asked(Prompt("Q", starts=True), {"truth": 4}, "Q")
    assert formatted("prompt", "prompt", {"prompt": [USER]}) == Asked(Prompt(CHATML_Q, starts=False), {}, [USER])
    assert formatted("prompt", "chat_template", {"messages": "Q"}) == Asked(Prompt(CHATML_Q, starts=False), {}, [USER])
    assert tokens("pieces", asked) == AskedTokens([*START["pieces"], *ids_of("pieces", "Q")], {"truth": 4}, "Q")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "kept", "longest"),
    [
        ({}, [1, 0], None),
        ({"trainOnLastStepOnly": True}, [IGNORED, 0], None),
        ({"stepSeparator": "\n\n"}, [1, 0], None),
        ({"maxCompletionLength": 8}, [1, 0], 8),
    ],
    ids=["plain", "last", "separator", "longest"],
)
def test_steps_are_labelled_at_their_separators(
    options: dict[str, Any], kept: list[int], longest: int | None, name: str
) -> None:
    """BOS, the prompt, and behind each step the separator, on whose last token the label is. Every option acts."""
    row = {"prompt": "Why?", "completions": ["one", "two 東"], "labels": [True, 0]}
    separator = ids_of(name, options.get("stepSeparator", "\n"))
    ids: list[int] = []
    labels: list[int] = []
    for step, label in zip(row["completions"], kept, strict=True):
        part = ids_of(name, str(step)) + separator
        ids += part
        labels += [IGNORED] * (len(part) - 1) + [label]
    bos = [SPECIAL.index("<s>")] if START[name] else []
    asked = [*bos, *ids_of(name, "Why?")]
    found = tokens(name, formatted("stepwise", "stepwise_supervised", row, **options))
    assert found == StepTokens(asked + ids[:longest], [IGNORED] * len(asked) + labels[:longest])
    check(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_is_tokenized_as_the_model_reads_it(name: str) -> None:
    """Prompt and answer as one text, with start tokens in front and EOS behind each answer."""
    found = tokens(name, formatted("preference", "chatml", ROW))
    start = START[name]
    assert isinstance(found, PairTokens)
    assert found.prompt_ids + found.chosen_ids == [*start, *ids_of(name, f"{CHATML_Q}good<|im_end|>"), EOS_ID]
    assert found.prompt_ids + found.rejected_ids == [*start, *ids_of(name, f"{CHATML_Q}bad<|im_end|>"), EOS_ID]
    assert len(found.prompt_ids) + found.lost == len(start) + len(ids_of(name, CHATML_Q))
    check(found)


def test_start_tokens_and_eos_of_the_text_are_not_doubled() -> None:
    """A prompt that brings its BOS and an answer that brings its EOS keep one of each."""
    row = {"prompt": "<s>Q", "chosen": f"good{EOS}", "rejected": "bad"}
    found = tokens("bytes-bos", formatted("preference", "passthrough", row))
    assert found.prompt_ids == ids_of("bytes-bos", "<s>Q")
    assert found.chosen_ids == ids_of("bytes-bos", f"good{EOS}")
    assert found.rejected_ids == [*ids_of("bytes-bos", "bad"), EOS_ID]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80)
@given(asked=ANY_TEXT, said=ANY_TEXT, other=ANY_TEXT, label=st.booleans())
def test_prompt_and_answer_are_the_whole(name: str, *, asked: str, said: str, other: str, label: bool) -> None:
    """For any unicode nothing is lost or twice: prompt and answer in a row are the whole text's tokens."""
    example = Pair(Prompt(asked, starts=True), said, other)
    found = tokens(name, example)
    for text, ids in ((said, found.chosen_ids), (other, found.rejected_ids)):
        whole = START[name] + ids_of(name, asked + text)
        assert found.prompt_ids + ids in (whole, [*whole, EOS_ID])
    judged = tokens(name, Judged(example.prompt, said, label))
    assert isinstance(judged, JudgedTokens)
    assert judged.label == label
    assert len(judged.prompt_ids) >= len(found.prompt_ids)


@pytest.mark.parametrize(
    ("family", "kind", "row", "words"),
    [
        pytest.param("preference", "chatml", {**ROW, "rejected": "good"}, 'are the same, "good"', id="equal"),
        pytest.param("preference", "passthrough", {**ROW, "rejected": ""}, "must have words", id="empty"),
        pytest.param("preference", "chatml", {**ROW, "chosen": 3}, "chosen must be text, got 3", id="type"),
        pytest.param("preference", "chatml.argilla_chat", {"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD]}, "longer conversations are for chat_template.argilla_chat", id="long"),
        pytest.param("preference", "chat_template.argilla_chat", {"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "differ in their last turn alone", id="other prompt"),
        pytest.param("preference", "chat_template", {"messages": [USER], "chosen": USER, "rejected": BAD}, "chosen must end with an assistant turn, got one of user", id="no answer"),
        pytest.param("preference", "chat_template", {"messages": [], "chosen": GOOD, "rejected": BAD}, "messages must be a list of turns", id="no turns"),
        pytest.param("preference", "chat_template", {"messages": [{"role": "bot", "content": "a"}], "chosen": GOOD, "rejected": BAD}, 'messages[0].role is "bot"; write one of', id="role"),
        pytest.param("preference", "chat_template", {"chosen": GOOD, "rejected": BAD}, "'messages' is missing or null", id="missing"),
        pytest.param("preference", "zephyr.nectar", {"prompt": "Q", "answers": [{"answer": "a", "rank": "1"}]}, 'answers[0].rank must be a number, 1 the best, got "1"', id="rank"),
        pytest.param("preference", "zephyr.nectar", {"prompt": "Q", "answers": [{"answer": "a", "rank": 1}]}, "two answers or more, got 1", id="alone"),
        pytest.param("preference", "zephyr.nectar", {"prompt": "Q", "answers": ["a"]}, "answers[0] must be a mapping of answer", id="answer"),
        pytest.param("unpaired", "chatml.intel", {"question": "Q", "completion": "a", "label": "yes"}, 'label must be true or false, or 1 or 0, got "yes"', id="label"),
        pytest.param("unpaired", "chatml.intel", {"question": "Q", "completion": "", "label": True}, "completion must have words", id="nothing"),
        pytest.param("stepwise", "stepwise_supervised", {"prompt": "Q", "completions": ["a"], "labels": [True, True]}, "got 1 completion and 2 labels", id="counts"),
        pytest.param("stepwise", "stepwise_supervised", {"prompt": "Q", "completions": ["a"], "labels": [2]}, "labels must be a list of true or false, got 2 in it", id="step label"),
        pytest.param("stepwise", "stepwise_supervised", {"prompt": "Q", "completions": [1], "labels": [True]}, "completions must be a list of texts, got 1 in it", id="step"),
        pytest.param("reward", "bradley_terry.chat_template", {"input": "Q", "chosen": "a", "rejected": "a"}, "are the same", id="same reward"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_explained(family: Family, kind: str, row: dict[str, Any], words: str) -> None:
    """Every refusal names the column, what was found and what is accepted."""
    with pytest.raises(RowError) as raised:
        formatted(family, kind, row)
    assert words in str(raised.value)


def test_a_template_that_refuses_or_contradicts_itself_is_a_row_error() -> None:
    """What a template raises is told in its words; a prompt that changes once an answer follows has no boundary."""
    row = {"messages": [USER], "chosen": GOOD, "rejected": BAD}
    with pytest.raises(RowError, match="the chat template refuses these messages: no answers"):
        formatted("preference", "chat_template", row, "{{ raise_exception('no answers') }}")
    with pytest.raises(RowError, match="renders the prompt differently once an answer follows"):
        formatted("preference", "chat_template", row, "{{ messages | length }}{{ messages[-1].content }}")


def test_answers_that_are_the_same_tokens_are_refused() -> None:
    """Texts can differ where the tokenizer sees no difference; steps without a label are nothing to learn from."""
    with pytest.raises(RowError, match="the same to the tokenizer"):
        check(PairTokens([1], [2], [2]))
    with pytest.raises(RowError, match="no step has a label to train"):
        check(StepTokens([1, 2], [IGNORED, IGNORED]))


START_IDS = (1,)
PROMPT = [1, *range(10, 40)]


@pytest.mark.parametrize(
    ("given", "expected", "reason"),
    [
        pytest.param(PairTokens([1], [2] * 19, [3]), PairTokens([1], [2] * 19, [3]), "", id="fits"),
        pytest.param(
            PairTokens(PROMPT, [2] * 9, [3] * 4),
            PairTokens([1, *PROMPT[-10:]], [2] * 9, [3] * 4),
            "",
            id="prompt first",
        ),
        pytest.param(
            PairTokens(PROMPT, [2] * 90, [3] * 4),
            PairTokens([1, *PROMPT[-4:]], [2] * 15, [3] * 4),
            "",
            id="then answers",
        ),
        pytest.param(
            PairTokens([1], [2] * 30 + [4], [2] * 30 + [5]), None, "answerCutOff", id="alike once they are cut"
        ),
        pytest.param(
            JudgedTokens(PROMPT, [2] * 30, True), JudgedTokens([1, *PROMPT[-4:]], [2] * 15, True), "", id="judged"
        ),
        pytest.param(
            ComparedTokens([*PROMPT, 2, 2, 2], [*PROMPT, 3]),
            ComparedTokens([1, *PROMPT[-16:], 2, 2, 2], [1, *PROMPT[-16:], 3]),
            "",
            id="what both begin with is the prompt",
        ),
        pytest.param(StepTokens([1] * 30, [IGNORED] * 29 + [1]), None, "answerCutOff", id="the only label is cut"),
        pytest.param(
            StepTokens([1] * 30, [0] + [IGNORED] * 29), StepTokens([1] * 20, [0] + [IGNORED] * 19), "", id="steps"
        ),
        pytest.param(AskedTokens(PROMPT, {}), AskedTokens([1, *PROMPT[-19:]], {}), "", id="asked"),
    ],
)
def test_long_rows_are_cut_where_they_can_spare_it(given: Any, expected: Any, reason: str) -> None:
    """The prompt from its left, then both answers at one place, and never all that is to be learnt."""
    found = fit(given, Limits(20, "truncate"), START_IDS)
    assert found.reason == reason
    if expected is not None:
        assert (found.tokens, found.cut) == (expected, given != expected)


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_long_pairs_are_left_out_where_that_is_asked_for(policy: str) -> None:
    """Whichever of the two answers is too long."""
    for chosen, rejected in (([2] * 30, [3]), ([2], [3] * 30)):
        assert fit(PairTokens([1], chosen, rejected), Limits(20, policy), START_IDS).reason == "tooLong"
    assert fit(PairTokens([1], [2], [3]), Limits(20, policy), START_IDS).reason == ""


@given(
    st.lists(st.integers(5, 9), max_size=40),
    st.lists(st.integers(5, 9), min_size=1, max_size=40),
    st.lists(st.integers(5, 9), min_size=1, max_size=40),
    st.integers(8, 30),
)
def test_a_cut_pair_fits_and_keeps_a_part_of_each(
    prompt: list[int], chosen: list[int], rejected: list[int], most: int
) -> None:
    """Whatever the lengths are: the end of the prompt and the beginning of each answer."""
    found = fit(PairTokens([1, *prompt], chosen, rejected), Limits(most, "truncate"), START_IDS)
    kept = found.tokens
    assert isinstance(kept, PairTokens)
    if not found.reason:
        assert len(kept.prompt_ids) + max(len(kept.chosen_ids), len(kept.rejected_ids)) <= most
        assert [1, *prompt][-len(kept.prompt_ids) + 1 :][1:] == kept.prompt_ids[2:]
        assert (kept.chosen_ids, kept.rejected_ids) == (
            chosen[: len(kept.chosen_ids)],
            rejected[: len(kept.rejected_ids)],
        )
        assert kept.chosen_ids
        assert kept.rejected_ids
        assert kept.chosen_ids != kept.rejected_ids or found.tokens == PairTokens([1, *prompt], chosen, rejected)


@pytest.mark.parametrize(
    ("family", "columns", "kind"),
    [
        ("preference", ["messages", "chosen", "rejected"], "chat_template.default"),
        ("preference", ["prompt", "answers"], "zephyr.nectar"),
        ("preference", ["prompt", "chosen", "rejected"], None),
        ("reward", ["input", "chosen", "rejected"], "bradley_terry.chat_template"),
        ("stepwise", ["prompt", "completions", "labels"], "stepwise_supervised"),
        ("prompt", ["prompt", "answer"], "prompt"),
        ("unpaired", ["prompt", "completion", "label"], None),
    ],
)
def test_only_what_is_certain_is_detected(family: Family, columns: list[str], kind: str | None) -> None:
    """A wording is never guessed for a prompt that is text."""
    assert alignment.detect(columns, None, family) == kind


def test_every_type_has_a_reader_and_reads_its_columns() -> None:
    """Whatever the tables name, a row can be formatted as, and a type of another family is refused."""
    for family, kinds in ALIGNMENT_READS.items():
        assert set(ALIGNMENT_DETECTED[family]) <= set(kinds)
        for kind in kinds:
            assert alignment.needed(kind, None, family)
            with pytest.raises(RowError, match=r"missing|must be"):
                formatted(family, kind, {"other": 1})
    with pytest.raises(
        ConfigError, match=r"type prompt is not for rows of kind unpaired; write one of: chatml.argilla"
    ):
        formatted("unpaired", "prompt", {})
    with pytest.raises(ConfigError, match=r"type prompt does not read fields.label; it reads prompt"):
        formatted("prompt", "prompt", {}, fields={"label": "a"})
    assert alignment.detect(["prompt"], AlignmentFields(label="a"), "prompt") is None


@pytest.mark.parametrize(
    "options",
    [
        {"type": "prompt", "stepSeparator": "x"},
        {"type": "chatml", "format": {}},
        {"type": "user_defined"},
        {"type": "user_defined", "format": {"promptFormat": "{chosen}"}},
    ],
    ids=["step options", "format", "no format", "placeholder"],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any]) -> None:
    """No option of a type is accepted on another."""
    with pytest.raises(ValidationError):
        AlignmentRows.model_validate(options)
