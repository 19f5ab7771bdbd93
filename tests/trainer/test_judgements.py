"""Rows of judgements, prepared: what each method's trainer finds on the disk, and what is refused before it starts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anneal_api import ProgressReport, RLHFJob, parse_job
from anneal_trainer.data.partners import partners, spliced
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.data.reading import Judgements
from anneal_trainer.errors import DataError
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.preview.read import preview
from anneal_trainer.reporter import Reporter, silent
from trainer.training import CLAIM, context, write_jsonl


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A question with a better and a worse answer."""
    asked = [{"role": "user", "content": f"Say {number}"}]
    answers = {"chosen": f"YES {number}", "rejected": f"no {number} no"}
    said = {name: {"role": "assistant", "content": words} for name, words in answers.items()}
    return {"messages": asked, **said, **changes}


def judged(number: int, *, label: Any = None) -> dict[str, Any]:
    """An answer that is wanted, or not."""
    return {
        "prompt": f"Say {number}",
        "completion": f"YES {number}",
        "label": number % 2 == 0 if label is None else label,
    }


def steps(number: int) -> dict[str, Any]:
    """A solution of which the second step is wrong."""
    return {"prompt": f"Add {number}.", "completions": ["one", "two"], "labels": [True, False]}


def job(method: str, **spec: Any) -> RLHFJob:
    """A job over volume://runs/rows.jsonl."""
    options = {"type": "chatml.prompt_pairs"} if method == "kto" else {}
    document = {
        "apiVersion": "anneal.dev/v1alpha1",
        "kind": "RLHFJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"source": f"volume://{CLAIM}/model"},
            "method": method,
            "datasets": [{"source": f"volume://{CLAIM}/rows.jsonl", **options}],
            "storage": {"volume": {"claimName": CLAIM}},
            "training": {"sequenceLength": 96},
            **spec,
        },
    }
    made = parse_job(document)
    assert isinstance(made, RLHFJob)
    return made


def prepared(storage: Path, method: str, rows: list[Any], **spec: Any) -> Ready:
    """The rows, prepared."""
    write_jsonl(storage / "rows.jsonl", rows)
    return prepare(context(storage, job(method, **spec)), Reporter(ProgressReport(), silent))


def told(ready: Ready, row: dict[str, Any]) -> list[tuple[str, str]]:
    """What each sequence of a prepared row says, and what of it is trained."""
    tokenizer, found, at = ready.tokenizer, [], 0
    for length in row["seq_lengths"]:
        ids, labels = row["input_ids"][at : at + length], row["labels"][at : at + length]
        found.append((tokenizer.decode(ids), tokenizer.decode([label for label in labels if label != IGNORED])))
        at += length
    return found


ASKED = "<|im_start|>user\nSay 3<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("method", ["dpo", "ipo", "orpo", "simpo", "cpo"])
def test_a_pair_is_two_sequences(storage: Path, method: str) -> None:
    """The same prompt, not trained, and behind it each answer with its end of turn, the better one first."""
    ready = prepared(storage, method, [pair(number) for number in range(5)])
    row = ready.prepared.dataset("train")[3]
    assert told(ready, row) == [
        (f"{ASKED}YES 3<|im_end|>", "YES 3<|im_end|>"),
        (f"{ASKED}no 3 no<|im_end|>", "no 3 no<|im_end|>"),
    ]
    assert (ready.report.rows, ready.report.used, ready.report.sequences) == (5, 5, 5)
    assert ready.report.detected == ["datasets[0]: chat_template.default, from the columns messages, chosen, rejected"]
    assert not ready.report.packed


def test_methods_over_the_same_rows_share_them(storage: Path) -> None:
    """What a loss is told does not change the data."""
    first = prepared(storage, "dpo", [pair(number) for number in range(5)])
    second = prepare(context(storage, job("simpo")), Reporter(ProgressReport(), silent))
    assert second.reused
    assert first.prepared.path == second.prepared.path


def test_a_reward_model_knows_the_margin(storage: Path) -> None:
    """Of rows that have one; nought of the others."""
    ready = prepared(storage, "reward", [pair(0, margin=2), pair(1), pair(2, margin=None)])
    assert ready.prepared.dataset("train")["margin"][:] == [2.0, 0.0, 0.0]


def test_a_judged_answer_has_a_partner(storage: Path) -> None:
    """The same prompt with the answer of another row, drawn by the seed, for the baseline."""
    ready = prepared(storage, "kto", [judged(number) for number in range(6)])
    rows = list(ready.prepared.dataset("train"))
    assert [row["desirable"] for row in rows] == [True, False] * 3
    others = []
    for number, row in enumerate(rows):
        (own, trained), (mixed, other) = told(ready, row)
        assert trained == f"YES {number}<|im_end|>"
        assert own.removesuffix(trained) == mixed.removesuffix(other)
        others.append(int(other[4]))
    assert sorted(others) == list(range(6))
    assert all(number != other for number, other in enumerate(others))


def test_pairs_serve_where_answers_are_judged_one_by_one(storage: Path) -> None:
    """Each pair is two answers, one of each kind, and counts as two."""
    rows = [pair(number) for number in range(4)]
    source = [{"source": f"volume://{CLAIM}/rows.jsonl", "type": "chat_template.default"}]
    ready = prepared(storage, "kto", rows, datasets=source)
    assert (ready.report.rows, ready.report.used) == (8, 8)
    assert sum(ready.prepared.dataset("train")["desirable"][:]) == 4


def test_steps_are_labelled_where_they_end(storage: Path) -> None:
    """1 for a right step and 0 for a wrong one, on the separator behind it."""
    ready = prepared(storage, "prm", [steps(number) for number in range(3)])
    row = ready.prepared.dataset("train")[0]
    places = [(at, label) for at, label in enumerate(row["labels"]) if label != IGNORED]
    assert [label for _, label in places] == [1, 0]
    assert [ready.tokenizer.decode(row["input_ids"][at]) for at, _ in places] == ["\n", "\n"]


def test_both_answers_of_a_long_pair_are_cut_alike(storage: Path) -> None:
    """Counted once; a pair of which nothing would be left to tell apart is dropped."""
    long, same = "word " * 200, "tail " * 200
    rows = [
        pair(0),
        pair(1, rejected={"role": "assistant", "content": f"no {long}"}),
        pair(
            2,
            chosen={"role": "assistant", "content": f"{same} a"},
            rejected={"role": "assistant", "content": f"{same} b"},
        ),
    ]
    ready = prepared(storage, "dpo", rows)
    assert (ready.report.used, ready.report.truncated) == (2, 1)
    assert {entry.reason: entry.rows for entry in ready.report.dropped} == {"answerCutOff": 1}
    assert ready.report.longest <= 96


BAD = [
    pytest.param("dpo", [pair(0), pair(1, chosen={"role": "assistant", "content": "no 1 no"})],
                 "line 2: chosen and rejected are the same", id="equal-sides"),
    pytest.param("dpo", [pair(0), pair(1, chosen={"role": "assistant", "content": ""})],
                 "line 2: chosen and rejected must have words", id="empty-side"),
    pytest.param("dpo", [{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}],
                          "rejected": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "y"}]}],
                 "must be conversations that differ in their last turn alone", id="no-prompt"),
    pytest.param("dpo", [{"prompt": "a", "chosen": "b", "rejected": "c"}],
                 "its columns (prompt, chosen, rejected) can be worded in several ways: set datasets[0].type to one of chatml.default",
                 id="wordings"),
    pytest.param("dpo", [{"prompt": "a", "system": "s", "chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]}],
                 "can be worded in several ways", id="turns-beside-a-system-text"),
    pytest.param("kto", [judged(0, label=True), judged(1, label=True)],
                 "all labels are true, of 2 rows: method kto learns from answers that are wanted and from such as are not",
                 id="one-class"),
    pytest.param("kto", [judged(0), judged(1, label="yes")], "line 2: label must be true or false, or 1 or 0", id="label"),
    pytest.param("dpo", [pair(0), pair(1, rejected={"role": "assistant", "content": " \n"})],
                 "line 2: chosen and rejected must have words", id="blank-side"),
    pytest.param("prm", [{**steps(n), "labels": [True, True]} for n in range(3)],
                 "all labels are true, of 3 rows: method prm learns from steps that are right", id="one-class-of-steps"),
    pytest.param("reward", [pair(0), pair(1, margin="big")], "line 2: margin must be a number", id="margin"),
    pytest.param("prm", [steps(0), {**steps(1), "labels": [True]}], "line 2: each step has one label", id="steps"),
    pytest.param("dpo", [judged(0)], "no type fits its columns (prompt, completion, label); a type needs prompt or", id="kind"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rows", "message"), BAD)
def test_what_cannot_be_learnt_from_is_told(storage: Path, method: str, rows: list[Any], message: str) -> None:
    """With the row, before a trainer is started."""
    with pytest.raises(DataError) as caught:
        prepared(storage, method, rows)
    assert message in str(caught.value)


def test_judged_answers_are_told_the_types_that_fit() -> None:
    """Those that the method reads with all their columns there, the most telling ones."""
    dataset = job("kto").spec.datasets[0].model_copy(update={"type": None})
    fit = Judgements("kto").choices(["prompt", "completion", "label"], dataset)
    assert fit == "chatml.prompt_pairs, chatml.ultra, llama3.prompt_pairs, llama3.ultra, user_defined"


QUESTION, BETTER, WORSE = (
    {"role": who, "content": said} for who, said in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": [QUESTION], "chosen": [BETTER], "rejected": [WORSE]}, "chat_template.default"),
        ({"chosen": [QUESTION, BETTER], "rejected": [QUESTION, WORSE]}, "chat_template.argilla_chat"),
        ({"prompt": "q", "chosen": [QUESTION, BETTER], "rejected": [QUESTION, WORSE]}, "chat_template.argilla_chat"),
    ],
    ids=["explicit", "implicit", "both"],
)
def test_pairs_of_conversations_are_found_by_their_values(storage: Path, row: dict[str, Any], kind: str) -> None:
    """TRL's conversational pairs become the same two sequences whichever way they are written."""
    ready = prepared(storage, "dpo", [row])
    assert ready.report.types == [kind]
    asked = ASKED.replace("Say 3", "q")
    expected = [(f"{asked}a<|im_end|>", "a<|im_end|>"), (f"{asked}b<|im_end|>", "b<|im_end|>")]
    assert told(ready, ready.prepared.dataset("train")[0]) == expected


def test_prompts_that_differ_between_the_sides_are_told(storage: Path) -> None:
    """Whole conversations must be one up to their last turns."""
    rows = [{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}],
             "rejected": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "y"}]}]  # fmt: skip
    source = [{"source": f"volume://{CLAIM}/rows.jsonl", "type": "chat_template.argilla_chat"}]
    with pytest.raises(DataError, match=r"in their last turn alone; their turns \[0\] differ: .a. and .b."):
        prepared(storage, "dpo", rows, datasets=source)


def test_rows_that_are_too_long_end_the_job_where_they_may_not_be(storage: Path) -> None:
    """With preparation.longRows: error, by number and remedy."""
    rows = [pair(0), pair(1, rejected={"role": "assistant", "content": "word " * 200})]
    with pytest.raises(DataError, match=r"line 2: has \d+ tokens, more than training.sequenceLength 96"):
        prepared(storage, "dpo", rows, preparation={"longRows": "error"})


def test_an_answer_judged_twice_and_differently_is_no_repetition(storage: Path) -> None:
    """Equal rows are those that are judged alike."""
    rows = [judged(0, label=True), judged(0, label=False), judged(0, label=True)]
    ready = prepared(storage, "kto", rows, preparation={"duplicates": "dropExact"})
    assert (ready.report.used, ready.report.duplicates) == (2, 1)


def test_labels_may_be_numbers(storage: Path) -> None:
    """As many files have them: 1 is true and 0 is false."""
    ready = prepared(storage, "kto", [judged(0, label=1), judged(1, label=0)])
    assert ready.prepared.dataset("train")["desirable"][:] == [True, False]


def test_a_rare_label_is_warned_of(storage: Path) -> None:
    """With the weight that would help."""
    rows = [judged(number, label=number == 0) for number in range(12)]
    (warning,) = [found for found in prepared(storage, "kto", rows).report.warnings if found.reason == "Unbalanced"]
    assert warning.rows == 1
    assert "kto.desirableWeight" in warning.message


def test_the_preview_shows_how_rows_are_judged(storage: Path) -> None:
    """Both answers of a pair, whether one is wanted, which steps are right."""
    write_jsonl(storage / "rows.jsonl", [pair(0, margin=3)])
    shown = preview(job("reward"), {CLAIM: storage}, rows=1, dataset=None).rows
    assert [row.place.rpartition(" ")[2] for row in shown] == ["(chosen)", "(rejected)"]
    assert shown[0].notes == ("margin 3",)
    write_jsonl(storage / "rows.jsonl", [judged(1)])
    assert preview(job("kto"), {CLAIM: storage}, rows=1, dataset=None).rows[0].notes == ("undesirable",)
    write_jsonl(storage / "rows.jsonl", [steps(1)])
    assert preview(job("prm"), {CLAIM: storage}, rows=1, dataset=None).rows[0].notes == ("steps: right, wrong",)


def test_everyone_is_somebodys_partner() -> None:
    """A circle through all rows: nobody is his own partner, and the same seed draws the same."""
    rows = np.arange(100, 137)
    found = partners(rows, 5)
    assert sorted(found) == list(rows)
    assert (found != rows).all()
    assert (found == partners(rows, 5)).all()
    assert (found != partners(rows, 6)).any()


def test_a_partners_answer_is_cut_to_the_sequence() -> None:
    """Its prompt is the row's own, whole."""
    ids, labels = np.array([1, 2, 3, 7, 8, 9]), np.array([IGNORED, IGNORED, 3, IGNORED, 8, 9])
    found, marked, lengths = spliced(ids, labels, np.array([3, 3]), 3)
    assert found.tolist() == [1, 2, 3, 1, 2, 8]
    assert marked.tolist() == [IGNORED, IGNORED, 3, IGNORED, IGNORED, 8]
    assert lengths.tolist() == [3, 3]


def test_the_report_is_whole(storage: Path) -> None:
    """The same facts as of other rows: tokens, those trained, lengths, special tokens."""
    ready = prepared(storage, "dpo", [pair(number) for number in range(4)], evaluation={"holdout": {"count": 1}})
    report = json.loads((ready.prepared.path / "report.json").read_text())
    train = ready.prepared.dataset("train")
    assert report["tokens"] == sum(map(len, train["input_ids"]))
    assert report["trainedTokens"] == sum(label != IGNORED for labels in train["labels"] for label in labels)
    assert (report["evalRows"], report["evalSequences"]) == (1, 1)
    assert report["specialTokens"] == [{"token": "<|im_end|>", "count": 6}]
