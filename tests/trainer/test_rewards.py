"""Rewards that compute alone: expected answers, patterns, schemas, lengths; and how several become one number."""

import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import ValidationError

from anneal_api.online import KINDS, MatchReward, PatternReward, RewardSource
from anneal_api.online_rules import MOST_REWARDS
from anneal_api.rewardtexts import LANGUAGES
from anneal_trainer.errors import ConfigError, InputError, RewardError
from anneal_trainer.methods.asked import spread
from anneal_trainer.methods.online_losses import group_advantages
from anneal_trainer.rewards import Source, check, language, pattern
from anneal_trainer.rewards.matching import mathematics
from anneal_trainer.rewards.scoring import Batch, Fault, checked
from trainer.judges import ask, asking, module, places, reward


def one(folder: Path, source: RewardSource, text: str, /, **columns: Any) -> float | None:
    """The score of a single answer."""
    with asking(folder, source) as sources:
        return ask(sources, [text], **{name: [value] for name, value in columns.items()}).scores["mine"][0]


@pytest.mark.parametrize(
    ("fields", "expected", "answer", "score"),
    [
        ({}, "yes", "yes", 1.0),
        ({}, "yes", "  yes\n", 1.0),
        ({}, "yes", "Yes", 0.0),
        ({"ignoreCase": True}, "yes", "YES", 1.0),
        ({"ignoreCase": True}, "Straße", "STRASSE", 1.0),
        ({}, "yes", "yes!", 0.0),
        ({}, 7, "7", 1.0),
        ({}, True, "true", 1.0),
        ({}, 0.5, "0.5", 1.0),
        ({}, None, "anything", None),
        ({"how": "contains"}, "yes", "I say yes to that", 1.0),
        ({"how": "contains"}, "yes", "I say YES to that", 0.0),
        ({"how": "contains", "ignoreCase": True}, "yes", "I say YES to that", 1.0),
        ({"how": "contains"}, "yes", "no", 0.0),
        ({"how": "contains"}, None, "no", None),
    ],
)
def test_an_expected_answer_is_found(
    tmp_path: Path, fields: dict[str, Any], expected: Any, answer: str, score: float | None
) -> None:
    """1 where it is as asked for, 0 where not, and nothing where the row expects nothing."""
    assert one(tmp_path, reward("match", **fields), answer, answer=expected) == score


def test_the_expected_answer_may_be_in_another_column(tmp_path: Path) -> None:
    """By the column's name; one that is not there is an error that no policy hides."""
    assert one(tmp_path, reward("match", column="gold"), "yes", gold="yes") == 1
    with pytest.raises(ConfigError, match="reward mine: the data has no column gold; beside its prompts it has answer"):
        one(tmp_path, reward("match", column="gold", onError="skip"), "yes", answer="yes")


def test_an_expected_answer_that_is_no_text_is_told(tmp_path: Path) -> None:
    """With its type and the field."""
    words = r"cannot compare with spec.rewards\[0\].match.column answer: it holds a list, where text, a number, true or"
    with pytest.raises(RewardError, match=words):
        one(tmp_path, reward("match"), "yes", answer=["yes"])


MATHS = [
    ("1/2", r"so it is \boxed{\frac{1}{2}}.", 1),
    ("1/2", "so it is 0.5", 1),
    (r"\frac{1}{2}", "#### 0.5", 1),
    ("72", "3 + 4 is 7\n#### 72\n", 1),
    ("72", "#### 73", 0),
    ("a whole solution\n#### 72", r"\boxed{72}", 1),
    ("1,000", "It is 1000.", 1),
    ("x^2+2x+1", r"\boxed{(x+1)^2}", 1),
    ("x^2+2x+1", r"\boxed{(x+2)^2}", 0),
    ("(1,2)", r"\boxed{(1, 2)}", 1),
    (r"\{1,2\}", r"\boxed{\{2,1\}}", 1),
    ("x>3", r"\boxed{x > 3}", 1),
    ("$1{,}000$", "1000 dollars", 1),
    ("12 cm", r"\boxed{12\text{ cm}}", 1),
    ("A", r"\boxed{A}", 1),
    ("A", r"\boxed{B}", 0),
    (r"\sqrt{8}", r"first \boxed{1}, no: \boxed{2\sqrt{2}}", 1),
    ("3.14", r"\boxed{\pi}", 0),
    ("5", "I do not know", 0),
    ("5", "", 0),
    ("5", r"\boxed{5", 0),
    ("5", r"\boxed{", 0),
    (5, r"\boxed{5.0}", 1),
    (None, r"\boxed{5}", None),
]


def test_answers_are_compared_as_mathematics(tmp_path: Path) -> None:
    """Numbers, expressions, intervals, sets and units, wherever the answer is given."""
    with asking(tmp_path, reward("match", how="math")) as sources:
        found = ask(sources, [answer for _, answer, _ in MATHS], answer=[wanted for wanted, _, _ in MATHS])
    wrong = [(case, score) for case, score in zip(MATHS, found.scores["mine"], strict=True) if score != case[2]]
    assert wrong == []


def test_mathematics_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with what to install, before a GPU is waited for and when training begins."""
    monkeypatch.setitem(sys.modules, "math_verify", None)
    source = reward("match", how="math")
    words = r"reward mine: spec.rewards\[0\].match.how: math needs the Python package math-verify, .*: install math-verify\[antlr4_13_2\]"
    with pytest.raises(ConfigError, match=words):
        check([source], {"answer": {str: 1}}, places(tmp_path))
    with pytest.raises(ConfigError, match=words), asking(tmp_path, source):
        pass


ENDLESS = [
    r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}",
    r"\boxed{100000000!}",
    r"\boxed{" + "(" * 3000 + ")" * 3000 + "}",
]


def test_what_cannot_be_computed_is_not_equal() -> None:
    """Within seconds, whatever the model writes; the next answer is judged as ever."""
    score, child = mathematics(MatchReward(how="math"), "mine", seconds=2.0)
    try:
        begun = time.monotonic()
        found = score(Batch(["q"] * 4, [*ENDLESS, r"\boxed{7}"], {"answer": ["7"] * 4}, [1] * 4))
    finally:
        child.close()
    assert found == [0, 0, 0, 1]
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("regex", "whole", "answer", "score"),
    [
        (r"<think>.*</think>.+", True, "<think>a\nb</think>\n7", 1),
        (r"<think>.*</think>.+", True, " <think>a</think>7\n", 1),
        (r"<think>.*</think>.+", True, "well <think>a</think>7", 0),
        (r"<think>.*</think>", False, "well <think>a</think>7", 1),
        (r"\d+", True, "", 0),
        (r"(?i)yes", True, "YES", 1),
    ],
)
def test_a_pattern_matches(tmp_path: Path, *, regex: str, whole: bool, answer: str, score: float) -> None:
    """All of the answer or a part of it; the dot is any character."""
    assert one(tmp_path, reward("pattern", pattern=regex, whole=whole), answer) == score


def test_a_pattern_that_takes_for_ever_is_stopped() -> None:
    """Its answer is a fault that says how long it took and what to do, and the next one is matched."""
    score, child = pattern.scorer(PatternReward(pattern=r"(a+)+b"), "spec.rewards[0]", seconds=0.5)
    try:
        found = score(Batch(["q"] * 2, ["a" * 40, "aab"], {}, [1, 1]))
    finally:
        child.close()
    words = (
        "took longer than 0.5 s (the most for one answer: simplify spec.rewards[0].pattern.pattern), and was stopped"
    )
    assert found == [Fault(words), 1.0]


SCHEMA = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}'


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"n": 1}', 1),
        (' {"n": 1, "more": []}\n', 1),
        ('{"n": "1"}', 0.5),
        ("7", 0.5),
        ("{n: 1}", 0),
        ("", 0),
        ('{"n": NaN}', 0),
        ("[" * 200_000, 0),
        ("9" * 10_000, 0),
    ],
    ids=["accepted", "spaces", "type", "number", "no-json", "nothing", "nan", "deep", "long-number"],
)
def test_json_of_a_schema(tmp_path: Path, answer: str, score: float) -> None:
    """1 where the schema accepts it, 0.5 for other JSON, else 0."""
    assert one(tmp_path, reward("schema", jsonSchema=SCHEMA), answer) == score


def test_each_row_may_have_its_schema(tmp_path: Path) -> None:
    """As text or as it stands; a row without one is not judged."""
    # As Parquet has rows of different keys.
    nulls = {"anyOf": [{"type": "integer", "required": None}, {"const": None}], "properties": {"n": None}, "type": None}
    schemas = [SCHEMA, {"type": "integer"}, None, nulls, nulls, nulls]
    with asking(tmp_path, reward("schema", column="shape")) as sources:
        found = ask(sources, ["1", "1", "1", "1", "null", "true"], shape=schemas)
    assert found.scores["mine"] == [0.5, 1.0, None, 1.0, 1.0, 0.5]


def test_a_schema_fetches_nothing(tmp_path: Path) -> None:
    """What it refers to elsewhere cannot be resolved, and that is told."""
    with pytest.raises(RewardError, match="Unresolvable"):
        one(tmp_path, reward("schema", column="shape"), "{}", shape='{"$ref": "http://127.0.0.1:9/schema.json"}')


@pytest.mark.parametrize(
    ("length", "score"),
    [(0, 0), (5, 0.5), (10, 1), (15, 1), (20, 1), (30, 0.5), (40, 0), (400, 0)],
)
def test_lengths_are_judged_by_a_trapezoid(tmp_path: Path, length: int, score: float) -> None:
    """1 between the bounds, in a straight line to 0 outside."""
    with asking(tmp_path, reward("length", least=10, most=20)) as sources:
        assert ask(sources, ["text"], lengths=[length]).rewards == [pytest.approx(score)]


@pytest.mark.parametrize(
    ("bounds", "scores"), [({"most": 4}, [1, 0.5]), ({"least": 0, "most": 4}, [1, 0.5]), ({"least": 8}, [0, 0.75])]
)
def test_a_length_may_have_one_bound(tmp_path: Path, bounds: dict[str, int], scores: list[float]) -> None:
    """Beyond the other end every length is good, none at all too."""
    with asking(tmp_path, reward("length", **bounds)) as sources:
        assert ask(sources, ["", "a"], lengths=[0, 6]).rewards == scores


def test_rewards_are_weighted_and_summed(tmp_path: Path) -> None:
    """What says nothing of an answer has no part in it; where nothing is said, there is no reward."""
    sources = (
        reward("match", "right", weight=2.0),
        reward("match", "near", how="contains", column="part", weight=-0.5),
    )
    with asking(tmp_path, *sources) as made:
        found = ask(made, ["yes", "yes", "yes", "yes"], answer=["yes", "no", None, None], part=["y", None, "e", None])
    assert found.rewards[:3] == [1.5, 0.0, -0.5]
    assert math.isnan(found.rewards[3])
    assert found.scores == {"right": [1, 0, None, None], "near": [1, None, 1, None]}
    metrics = found.metrics
    assert (metrics["rewards/right"], metrics["rewards/near"], metrics["rewards/unjudged"]) == (0.5, 1.0, 1.0)
    assert metrics["rewards/right/failures"] == 0
    assert 0 <= metrics["rewards/right/seconds"] < 60


def test_the_largest_rewards_can_be_told_apart() -> None:
    """With the largest weight of the most rewards, over more answers than a step has: means and spreads are numbers."""
    values = [1e12, -1e12] * 32768
    sources = [Source(f"r{n}", 1000.0, "fail", lambda _: checked(values, len(values))) for n in range(MOST_REWARDS)]
    found = ask(sources, [""] * len(values))
    assert spread(found.rewards) == pytest.approx(16e15, rel=1e-4)
    advantages = group_advantages(torch.tensor(found.rewards), size=8, scale="batch")
    assert advantages.tolist() == pytest.approx([1.0, -1.0] * 32768, rel=1e-3)


def test_no_answers_have_no_rewards(tmp_path: Path) -> None:
    """And nothing is asked."""
    module(tmp_path, "def reward(**_): raise ValueError")
    with asking(tmp_path, reward("function")) as sources:
        found = ask(sources, [])
    assert (found.rewards, found.scores) == ([], {})


def test_rewards_that_wait_do_so_together(tmp_path: Path) -> None:
    """Two that take half a second each take less than a second."""
    module(tmp_path, "import time\ndef reward(completions): time.sleep(0.5); return [1.0] * len(completions)")
    with asking(tmp_path, reward("function", "one"), reward("function", "two")) as sources:
        begun = time.monotonic()
        found = ask(sources, ["a"])
        took = time.monotonic() - begun
    assert found.rewards == [2]
    assert took < 0.95
    assert min(found.seconds.values()) >= 0.5


SAID = [
    ("en", "Hello there"), ("en", "Yes, I think so."), ("en", "The answer is 42."), ("en", "Thank you!"),
    ("de", "Guten Tag"), ("de", "Ja, das stimmt."), ("de", "Nein."), ("de", "Die Antwort ist 42."),
    ("fr", "Merci beaucoup"), ("fr", "Oui, bien sûr."), ("es", "Gracias"), ("it", "Ciao, come stai?"),
    ("pt", "Obrigado, tudo bem."), ("nl", "Dank je wel."), ("zh", "答案是42。"), ("ja", "こんにちは"), ("ko", "안녕하세요"),
    ("ru", "Привет, как дела?"), ("uk", "Добрий день"), ("pl", "Dziękuję bardzo."), ("ar", "مرحبا بالعالم"),
    ("hi", "नमस्ते दुनिया"), ("id", "Selamat pagi"), ("tr", "Teşekkür ederim."), ("vi", "Xin chào các bạn"),
    ("sw", "Habari za asubuhi, rafiki yangu."),
]  # fmt: skip


def test_languages_are_told_apart_also_in_short_answers(tmp_path: Path) -> None:
    """By the spec's code or by the row's, with the same score; no other language passes for the one that is wanted."""
    codes, texts = zip(*SAID, strict=True)
    with asking(tmp_path, reward("language", column="to")) as sources:
        wrong = [
            (said, score)
            for said, score in zip(SAID, ask(sources, texts, to=codes).scores["mine"], strict=True)
            if score != 1
        ]
    assert wrong == []
    with asking(tmp_path, reward("language", code="de")) as sources:
        assert ask(sources, texts).scores["mine"] == [float(code == "de") for code in codes]


@pytest.mark.parametrize("text", ["", "42", "3 + 4 = 7", "OK"], ids=["empty", "number", "sum", "word"])
def test_a_text_that_tells_no_language_is_not_judged(tmp_path: Path, text: str) -> None:
    """Neither rewarded nor punished; nor is a row without a language."""
    assert one(tmp_path, reward("language", code="en"), text) is None
    assert one(tmp_path, reward("language", column="to"), "Thank you!", to=None) is None


def test_what_is_told_apart_can_be_chosen(tmp_path: Path) -> None:
    """A language that is rarely written is thought of where it is named."""
    said = "Ndi a ni lumelisa vhathu vhothe"
    fewer = one(tmp_path, reward("language", code="en", among=["fr", "de"]), "Danke!")
    assert (fewer, one(tmp_path, reward("language", code="de", among=["en"]), "Danke!")) == (0, 1)
    assert one(tmp_path, reward("language", code="st", among=["en"]), said) == 1


def test_a_row_with_an_unknown_language_is_a_failure(tmp_path: Path) -> None:
    """With the value, and what is known."""
    words = r"reward mine: cannot judge: 'German' is not the code of a language that is known: ace, af, .* \(1 of 1"
    with pytest.raises(RewardError, match=words):
        one(tmp_path, reward("language", column="to"), "Ja", to="German")


def test_the_languages_that_manifests_may_name_are_those_that_are_told_apart() -> None:
    """No more and no less, and those that are thought of by themselves are among them."""
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    assert sorted(model.labels) == list(LANGUAGES)
    assert set(language.USUAL) < set(LANGUAGES)


OLDER = "http://json-schema.org/draft-07/schema#"
# More than is tried where other jobs wait.
WIDE = "[à-ÿ]" * 40


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            reward("match", column="gold"),
            r"reward mine: spec.rewards\[0\].match.column: the data has no column gold; .* it has answer",
        ),
        (
            reward("schema", column="shape"),
            r"reward mine: spec.rewards\[0\].schema.column: the data has no column shape",
        ),
        (reward("language", column="to"), r"reward mine: spec.rewards\[0\].language.column: the data has no column to"),
        (
            reward("pattern", pattern=f"{WIDE}("),
            r"pattern.pattern '.*\(' is not a regular expression of Python: missing",
        ),
        (reward("schema", jsonSchema='{"required": [1]}'), "schema.jsonSchema is not a JSON schema: 1 is not of type"),
        (
            reward("schema", jsonSchema=f'{{"$schema": "{OLDER}", "type": "int"}}'),
            "not a JSON schema: 'int' is not valid",
        ),
        (reward("schema", jsonSchema=f'{{"$schema": "{OLDER}", "pattern": "(a"}}'), r"schema: '\(a' is not a 'regex'"),
    ],
    ids=["column", "schema-column", "language-column", "pattern", "schema", "older-schema", "older-pattern"],
)
def test_mistakes_are_told_before_anything_starts(tmp_path: Path, source: RewardSource, words: str) -> None:
    """By the reward's name and the field."""
    with pytest.raises(ConfigError, match=words):
        check([source], {"answer": {str: 1}}, places(tmp_path))


@pytest.mark.parametrize(
    ("source", "holds", "words"),
    [
        (
            reward("match", column="tags"),
            list,
            "match.column tags: in 3 rows it holds a list, where text, a number, true",
        ),
        (reward("match", column="tags"), dict, "match.column tags: in 3 rows it holds an object, where"),
        (reward("schema", column="tags"), list, "schema.column tags: in 3 rows it holds a list, where a schema"),
        (
            reward("language", column="tags"),
            int,
            "language.column tags: in 3 rows it holds a number, where a language's",
        ),
    ],
    ids=["list", "object", "schema", "language"],
)
def test_a_column_that_cannot_be_read_is_told_before_anything_starts(
    tmp_path: Path, source: RewardSource, holds: type, words: str
) -> None:
    """By reward and column, with what it holds and what is expected."""
    with pytest.raises(ConfigError, match=f"reward mine: {re.escape(f'spec.rewards[0].{words}')}"):
        check([source], {"tags": {str: 2, holds: 3}}, places(tmp_path))


def test_the_mistakes_of_all_rewards_are_told_at_once(tmp_path: Path) -> None:
    """Each by the name of its reward, and what failed first says what kind of failure it is."""
    module(tmp_path, "import no_such_module")
    sources = (
        reward("function", "lost", file="none.py"),
        reward("match", "right", column="gold"),
        reward("match", "fine"),
        reward("function", "own"),
    )
    with pytest.raises(InputError) as caught:
        check(sources, {"answer": {str: 1}}, places(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("reward lost: spec.rewards[0].function.file none.py is not in")
    assert lines[1].startswith("reward right: spec.rewards[1].match.column: the data has no column gold")
    assert lines[2].startswith(
        "reward own: spec.rewards[3].function does not start: raised ModuleNotFoundError: No module named"
    )
    assert "import no_such_module" in lines[-2]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "model"])
def test_what_is_right_is_let_through(tmp_path: Path, kind: str) -> None:
    """Of each kind; no server is reached. Of models: test_reward_models."""
    module(tmp_path, "def reward(completions, answer): pass")
    needed = {
        "match": {"how": "math"},
        "pattern": {"pattern": "a"},
        "length": {"most": 9},
        "schema": {"jsonSchema": SCHEMA},
        "language": {"code": "de"},
        "http": {"url": "http://judge/$(KEY)"},
    }
    check([reward(kind, **needed.get(kind, {}))], {"answer": {str: 1}}, places(tmp_path, {"KEY": "1"}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "write exactly one of match, pattern, schema, length, language, function, http and model"),
        ({"match": {}, "length": {"most": 9}}, "write exactly one of"),
        ({"match": {}, "onError": "ignore"}, "'fail', 'zero' or 'skip'"),
        ({"schema": {}}, "write the schema as jsonSchema, or the column that has it"),
        ({"language": {}}, "write the language as code, or the column that has it"),
        ({"function": {"configMap": "mine", "file": "a/b.py"}}, "file is one of its keys"),
        ({"function": {"file": "../b.py"}}, "pattern"),
        ({"function": {"file": "a/../b.py"}}, "pattern"),
        ({"http": {"url": "ftp://judge"}}, "pattern"),
    ],
)
def test_manifests_that_cannot_be_meant_are_refused(fields: dict[str, Any], words: str) -> None:
    """With what to write."""
    with pytest.raises(ValidationError) as caught:
        RewardSource.model_validate({"name": "mine", **fields})
    error = caught.value.errors()[0]
    assert words in f"{error['type']} {error['msg']} {error.get('ctx')}"
