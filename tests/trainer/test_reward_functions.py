"""A person's functions: what they are given, and that nothing they do disturbs the trainer."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from anneal_api.exitcodes import is_user_error
from anneal_trainer.errors import ConfigError, InputError, RewardError
from anneal_trainer.rewards import check, opened
from anneal_trainer.rewards.keeper import Child
from anneal_trainer.rewards.scoring import CallError
from trainer.judges import ask, asking, module, places, reward


@pytest.mark.parametrize(
    "body",
    [
        "def reward(prompts, completions, **columns): return [len(c) + n for c, n in zip(completions, columns['n'])]",
        "def reward(completions, n, **_): return [len(c) + k for c, k in zip(completions, n)]",
        "def reward(completions, n): return tuple(len(c) + k for c, k in zip(completions, n))",
        "async def reward(completions, n, **_): return [len(c) + k for c, k in zip(completions, n)]",
        "import numpy\ndef reward(completions, n, **_): return numpy.array([len(c) for c in completions]) + n",
        "import numpy\ndef reward(completions, n, **_): return [numpy.float32(len(c) + k) for c, k in zip(completions, n)]",
        "class Judge:\n    def __call__(self, completions, n, **_): return [len(c) + k for c, k in zip(completions, n)]\nreward = Judge()",
    ],
    ids=["columns", "named", "no-rest", "async", "array", "numpy", "object"],
)
def test_functions_of_every_form(tmp_path: Path, body: str) -> None:
    """They are given prompts, completions and the columns that they take, and return one number an answer."""
    module(tmp_path, body)
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a", "bcd"], n=[1, 2], other=["x", "y"]).rewards == [2, 5]


def test_prompts_are_given_as_the_data_has_them(tmp_path: Path) -> None:
    """Text or turns."""
    module(tmp_path, "def reward(prompts, completions): return [float(len(p)) for p in prompts]")
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a", "a"], prompts=["abc", [{"role": "user", "content": "abc"}]]).rewards == [3, 1]


def test_booleans_are_numbers(tmp_path: Path) -> None:
    """As Python has it."""
    module(tmp_path, "def reward(completions): return [c == 'a' for c in completions]")
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a", "b"]).rewards == [1, 0]


FAULTS: list[tuple[str, str, str]] = [
    (
        "raises",
        "    raise KeyError('gold')",
        r"reward mine: raised KeyError: 'gold' \(2 of 2 answers; the first is 'a'",
    ),
    ("length", "    return [1.0]", "reward mine: returned 1 values for 2 answers"),
    ("nothing", "    pass", "reward mine: returned None, where a list of 2 numbers is expected"),
    ("number", "    return 1.0", "returned float 1.0, where a list of 2 numbers is expected"),
    (
        "none",
        "    return [1.0, None]",
        r"returned None: write onError: skip .* \(1 of 2 answers; the first is 'b' to the prompt 'question 1'",
    ),
    ("nan", "    return [float('nan'), 1.0]", r"returned nan, which is no reward \(1 of 2 answers; the first is 'a'"),
    (
        "infinite",
        "    return [1.0, float('-inf')]",
        r"returned -inf, which is no reward: write numbers from -1e\+12 to",
    ),
    (
        "large",
        "    return [1.0, -1e154]",
        r"returned -1e\+154, which is no reward: write numbers from -1e\+12 to 1e\+12 \(1 of 2",
    ),
    ("huge", "    return [1.0, 10 ** 400]", "returned inf, which is no reward: write numbers"),
    ("text", "    return ['1.0', 1.0]", "returned str '1.0', where a number is expected"),
    ("nested", "    return [[1.0], [2.0]]", r"returned list \[1.0\], where a number is expected"),
    ("exit", "    raise SystemExit(3)", "raised SystemExit: 3"),
    ("gone", "    import os; os._exit(3)", "gave no answer: its process ended with exit code 3"),
    ("killed", "    import os; os.kill(os.getpid(), 9)", "gave no answer: its process was killed by signal 9"),
    (
        "slow",
        "    import time; time.sleep(60)",
        r"took longer than 1 s \(spec.rewards\[0\].function.timeoutSeconds\), and was stopped",
    ),
    (
        "busy",
        "    while True: pass",
        r"took longer than 1 s \(spec.rewards\[0\].function.timeoutSeconds\), and was stopped",
    ),
]


@pytest.mark.parametrize(("body", "words"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_a_function_that_fails_stops_the_job_by_its_name(tmp_path: Path, body: str, words: str) -> None:
    """With the first answer concerned; it is the user's error, never retried."""
    module(tmp_path, f"def reward(completions, **columns):\n{body}")
    with (
        asking(tmp_path, reward("function", timeoutSeconds=1)) as sources,
        pytest.raises(RewardError, match=words) as caught,
    ):
        ask(sources, ["a", "b"])
    assert is_user_error(caught.value.exit_code)
    assert "write onError: zero or skip" in str(caught.value)


def test_the_traceback_is_of_the_persons_code(tmp_path: Path) -> None:
    """Their file and line, without the frames of ours."""
    module(tmp_path, "def inner(): return 1 / 0\ndef reward(completions):\n    return inner()")
    with asking(tmp_path, reward("function")) as sources, pytest.raises(RewardError) as caught:
        ask(sources, ["a"])
    words = str(caught.value)
    assert "ZeroDivisionError: division by zero" in words
    assert f'File "{tmp_path}/rewards.py", line 1, in inner' in words
    assert "child.py" not in words


SOME = "def reward(completions, **_): return [{'a': 1.0, 'n': None, 'x': float('nan')}[c] for c in completions]"


@pytest.mark.parametrize(
    ("policy", "scores", "failures", "words"),
    [("zero", [1, 0, 0], 2, "returned None"), ("skip", [1, None, None], 1, "returned nan")],
)
def test_a_failure_can_be_lived_with(tmp_path: Path, policy: str, scores: list[Any], failures: int, words: str) -> None:
    """It counts as 0 or not at all, for the answers concerned alone, and is told and counted."""
    module(tmp_path, SOME)
    said: list[str] = []
    with asking(tmp_path, reward("function", onError=policy)) as sources:
        found = ask(sources, ["a", "n", "x"], said=said)
    assert (found.scores["mine"], found.failures["mine"]) == (scores, failures)
    assert found.metrics["rewards/mine/failures"] == failures
    assert len(said) == 1
    assert said[0].startswith(f"reward mine: {words}")
    assert f"onError is {policy}" in said[0]


def test_a_failure_of_every_step_is_told_whole_once(tmp_path: Path) -> None:
    """With its traceback; then in a line, now and then, with the answers since the last one."""
    module(tmp_path, "def reward(completions):\n    return [1 / len(text) for text in completions]")
    said: list[str] = []
    with asking(tmp_path, reward("function", onError="zero")) as sources:
        for _ in range(3):
            ask(sources, ["", "b"], said=said)
        assert ['rewards.py", line 2, in reward' in words for words in said] == [True]
        sources[0].failures.every = 0.0
        for _ in range(2):
            ask(sources, ["", "b"], said=said)
    error = "raised ZeroDivisionError: division by zero; onError is zero"
    assert said[1:] == [f"reward mine: failed for {number} more answers, now: {error}" for number in (6, 2)]


def test_none_is_no_failure_where_it_may_be_skipped(tmp_path: Path) -> None:
    """A function that judges some rows only says nothing of the others."""
    module(tmp_path, SOME)
    said: list[str] = []
    with asking(tmp_path, reward("function", onError="skip")) as sources:
        found = ask(sources, ["a", "n"], said=said)
    assert (found.scores["mine"], found.failures["mine"], said) == ([1, None], 0, [])


def test_a_function_goes_on_after_a_time_out(tmp_path: Path) -> None:
    """In a new process; what the old one had started is gone with it."""
    module(
        tmp_path,
        """
        import pathlib, subprocess, time
        def reward(completions, **_):
            if completions == ["slow"]:
                started = subprocess.Popen(["sleep", "600"])
                pathlib.Path(__file__).with_name("pid").write_text(str(started.pid))
                time.sleep(600)
            return [1.0] * len(completions)
        """,
    )
    with asking(tmp_path, reward("function", timeoutSeconds=2, onError="zero")) as sources:
        assert ask(sources, ["slow"]).rewards == [0]
        assert ask(sources, ["a"]).rewards == [1]
    assert ended(int((tmp_path / "pid").read_text()))


def ended(process: int) -> bool:
    """Whether a process has gone, or is only waited for by whoever inherited it, within seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            threads = list(Path(f"/proc/{process}/task").iterdir())
        except OSError:
            return True
        # A process is a zombie before its other threads have gone, and its files with them.
        if state == "Z" and len(threads) == 1:
            return True
        time.sleep(0.05)
    return False


def test_a_process_is_kept_between_calls(tmp_path: Path) -> None:
    """So that what a module loads is loaded once; one that was killed meanwhile is started again."""
    module(
        tmp_path,
        "import os\ncalls = 0\ndef reward(completions):\n    global calls; calls += 1; return [calls, os.getpid()]",
    )
    with asking(tmp_path, reward("function")) as sources:
        first, second = (ask(sources, ["a", "b"]).rewards for _ in range(2))
        assert (first[0], second[0]) == (1, 2)
        assert first[1] == second[1] != os.getpid()
        os.kill(int(first[1]), signal.SIGKILL)
        assert ended(int(first[1]))
        third = ask(sources, ["a", "b"]).rewards
    assert third[0] == 1
    assert ended(int(third[1]))


def test_a_process_ends_with_its_trainer(tmp_path: Path) -> None:
    """Even while the function runs: nobody is left to wait for it."""
    from multiprocessing.connection import Connection

    path = module(tmp_path, "import os, time\ndef reward(go): return [os.getpid()] if not go else time.sleep(600)")
    child = Child(str(path), "reward")
    (process,) = child.call(10, go=False)
    connection = child._connection
    assert isinstance(connection, Connection)
    connection.send(((), {"go": True}))
    connection.close()
    assert ended(int(process))
    child._connection = None
    child.close()


def test_what_a_function_prints_is_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And does not disturb what is said to the trainer, nor does reading input."""
    module(
        tmp_path,
        "import sys\ndef reward(completions):\n    print('hello'); sys.stderr.write('there')\n    return [float(sys.stdin.read() == '')]",
    )
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a"]).rewards == [1]
    out, err = capfd.readouterr()
    assert (out, err) == ("hello\n", "there")


def test_a_function_sees_no_gpu(tmp_path: Path) -> None:
    """Their memory is counted for training."""
    module(tmp_path, "import os\ndef reward(completions): return [float(os.environ['CUDA_VISIBLE_DEVICES'] == '')]")
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a"]).rewards == [1]


def test_values_of_any_type_reach_a_function(tmp_path: Path) -> None:
    """Dates and bytes too, as the data has them."""
    from datetime import UTC, datetime

    module(tmp_path, "def reward(completions, day, raw): return [day[0].year + raw[0][0]]")
    with asking(tmp_path, reward("function")) as sources:
        assert ask(sources, ["a"], day=[datetime(2026, 1, 2, tzinfo=UTC)], raw=[b"\x01"]).rewards == [2027]


def test_a_module_may_import_its_neighbours(tmp_path: Path) -> None:
    """As the keys of one ConfigMap."""
    (tmp_path / "mine").mkdir()
    module(tmp_path / "mine", "def points(): return 3.0", "helper.py")
    module(tmp_path / "mine", "from helper import points\ndef judge(completions): return [points()]", "json.py")
    source = reward("function", configMap="mine", file="json.py", name_="judge")
    with opened([source], places(tmp_path, modules={"mine": tmp_path / "mine"})) as sources:
        assert ask(sources, ["a"]).rewards == [3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def reward(:", r"reward mine: spec.rewards\[0\].function does not start: raised SyntaxError"),
        (
            "def reward(prompts, completions, /, **columns): pass",
            "takes prompts, completions by position only: remove the /",
        ),
        ("import nothing_of_that_name", "raised ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        (
            "def score(): pass\ndef other(): pass",
            "there is no function reward in rewards.py; its functions are: score, other$",
        ),
        ("reward = 3", "there is no function reward in rewards.py; its functions are: none$"),
        ("import os; os._exit(4)", "its process ended with exit code 4"),
    ],
    ids=["syntax", "by-position", "import", "name", "value", "exit"],
)
def test_a_module_that_does_not_load_is_told_at_the_beginning(tmp_path: Path, text: str, words: str) -> None:
    """Before a GPU is waited for, and before anything is generated."""
    module(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        check([reward("function")], {}, places(tmp_path))
    with pytest.raises(ConfigError, match=words), asking(tmp_path, reward("function")):
        pass


def test_the_traceback_of_a_module_is_of_its_own_code(tmp_path: Path) -> None:
    """Without the frames of whoever imports it."""
    module(tmp_path, "\n\nTABLE = {}\nTABLE['gold']\n")
    with pytest.raises(ConfigError) as caught:
        check([reward("function")], {}, places(tmp_path))
    assert str(caught.value).splitlines()[1:] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/rewards.py", line 4, in <module>',
        "    TABLE['gold']",
        "    ~~~~~^^^^^^^^",
        "KeyError: 'gold'",
    ]


@pytest.mark.parametrize(
    ("parameters", "lacking"),
    [
        ("prompts, completions, gold, topic, n=1, **columns", "gold, topic"),
        ("completions, *, topic", "topic"),
        ("prompts, completions, answer", ""),
        ("**columns", ""),
    ],
)
def test_columns_that_a_function_asks_for_are_looked_for_before_a_gpu(
    tmp_path: Path, parameters: str, lacking: str
) -> None:
    """It is not called for that: that may cost something."""
    module(tmp_path, f"def reward({parameters}): open('called', 'w')")
    source = reward("function")
    if not lacking:
        check([source], {"answer": {str: 1}}, places(tmp_path))
        return
    words = rf"reward mine: spec.rewards\[0\].function.name reward asks for {lacking}: the data has no column .* it has answer"
    with pytest.raises(ConfigError, match=words):
        check([source], {"answer": {str: 1}}, places(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rewards.py"]


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the ConfigMap, if it should be in one, and what there is."""
    module(tmp_path, "", "reward.py")
    source = reward("function", configMap="mine")
    words = (
        r"reward mine: spec.rewards\[0\].function.file rewards.py is not in ConfigMap mine; its modules are: reward.py"
    )
    with pytest.raises(InputError, match=words):
        check([source], {}, places(tmp_path, modules={"mine": tmp_path}))
    apart = reward("function", file="below/rewards.py")
    words = rf"reward mine: spec.rewards\[0\].function.file below/rewards.py is not in {tmp_path}; the modules in {tmp_path}/below are: none"
    with pytest.raises(InputError, match=words):
        check([apart], {}, places(tmp_path))
    with pytest.raises(InputError, match=r"no directory is given for the ConfigMap mine: add --config-map mine=DIR"):
        check([source], {}, places(tmp_path))


def test_one_that_does_not_start_leaves_no_other_running(tmp_path: Path) -> None:
    """What was opened before it is closed."""
    module(
        tmp_path,
        "import os, pathlib\npathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\ndef reward(): pass",
    )
    with pytest.raises(InputError), asking(tmp_path, reward("function"), reward("function", "other", file="b.py")):
        pass
    assert ended(int((tmp_path / "pid").read_text()))


def test_a_question_that_cannot_be_read_is_an_error_and_no_wait(tmp_path: Path) -> None:
    """A value that does not come out as it went in."""
    module(tmp_path, "def reward(completions, **_): return [1.0]")
    child = Child(str(tmp_path / "rewards.py"), "reward")
    with pytest.raises(CallError, match="raised ValueError: invalid literal"):
        child.call(10, completions=[Broken()])
    child.close()


class Broken:
    """Cannot be read back."""

    def __reduce__(self) -> Any:
        return int, ("no number",)
