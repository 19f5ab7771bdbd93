"""How a reward's failure is told: from a person's function to the words that the operator reads."""

import json
import re
from pathlib import Path

import pytest

from anneal_api import Outcome, ProgressReport, TerminationMessage
from anneal_api.exitcodes import DATA, TEMPORARY
from anneal_api.meta import TERMINATION_MESSAGE_LIMIT
from anneal_trainer import lastwords, launcher
from anneal_trainer.errors import RewardError
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.rewards.scoring import last_lines, shown
from trainer.aligning import alignment_context
from trainer.judges import ask, asking, module, reward
from trainer.prompting import online_job, prepared
from trainer.test_launcher import free_port

DEEP = """
    def checked(word, depth):
        if depth:
            return checked(word, depth - 1) or word
        raise ValueError("no such word: " + word * 50)

    async def reward(completions, **columns):
        return [len(checked(text, 40)) for text in completions]
"""


def told(error: RewardError) -> TerminationMessage:
    """What the operator reads of it, beside all that a long run has measured."""
    report = ProgressReport(
        step=9, total_steps=20, metrics={f"rewards/some-name-{n}/failures": 1 / 3 for n in range(60)}
    )
    text = lastwords.of_error(error, Reporter(report, silent)).encode()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    found = TerminationMessage.decode(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "answer", ["red ", "紅色的月亮", "🌙", '"\\', "\x00"], ids=["ascii", "cjk", "emoji", "quotes", "control"]
)
def test_the_longest_failure_is_told_to_its_last_line(tmp_path: Path, answer: str) -> None:
    """Name, exception, answer, prompt and the lines where it was raised fit, whatever they are written in."""
    module(tmp_path, DEEP)
    with asking(tmp_path, reward("function")) as sources, pytest.raises(RewardError) as caught:
        ask(sources, [answer * 2000], prompts=[answer * 2000])
    words = told(caught.value)
    assert (words.outcome, words.exit_code) == (Outcome.USER_ERROR, DATA)
    first, *trace = words.message.splitlines()
    start = re.escape(repr(answer * 2)[1:-1])
    assert re.match(rf"reward mine: raised ValueError: no such word: {re.escape(answer)}", first) or answer == "\x00"
    assert re.search(rf"\(1 of 1 answers; the first is ['\"]{start}.*to the prompt ['\"]{start}", first)
    assert first.endswith("write onError: zero or skip to go on without it")
    assert f'  File "{tmp_path}/rewards.py", line 5, in checked' in trace
    assert trace[-1].startswith("ValueError: no such word")


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\nb\n", "a\nb"), ("x\n" * 2000, f"…{chr(10)}{'x' + chr(10)}"), ("y" * 4000, "yyy"), ("月" * 4000, "月月")],
    ids=["short", "many-lines", "one-line", "one-line-cjk"],
)
def test_a_traceback_keeps_its_end(text: str, kept: str) -> None:
    """Its last lines, and never more than it may take."""
    found = last_lines(text)
    assert found.startswith(kept)
    assert len(json.dumps(found)) <= 1610


def test_what_is_short_is_shown_whole() -> None:
    """And what is long ends with a sign that it goes on."""
    assert shown("月" * 80) == "月" * 80
    assert shown("月" * 90) == f"{'月' * 83}…"
    assert shown("x" * 301) == f"{'x' * 300}…"


def test_a_pod_ends_with_the_reward_that_failed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's error, with the exit code that is never retried; a server that cannot be reached may come back."""
    monkeypatch.chdir(storage)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (storage / "judge.py").write_text("def reward(completions, answer):\n    return [answer[99]]\n")
    bug = {"name": "judge", "function": {"file": "judge.py"}}
    away = {"name": "server", "http": {"url": f"http://127.0.0.1:{free_port()}/v1", "retries": 0}}
    words = []
    for name, source in (("bug", bug), ("away", away)):
        made = online_job(name=name, rewards=[source], rollout={"mode": "generate"})
        prepared(storage, made)
        words.append(launcher.launch("train", alignment_context(storage, made), port=free_port()))
    assert (words[0].outcome, words[0].exit_code) == (Outcome.USER_ERROR, DATA)
    assert words[0].message.startswith("reward judge: raised IndexError: list index out of range (8 of 8 answers; the")
    assert words[0].message.splitlines()[1:4] == [
        "Traceback (most recent call last):",
        f'  File "{storage}/judge.py", line 2, in reward',
        "    return [answer[99]]",
    ]
    assert (words[1].outcome, words[1].exit_code) == (Outcome.INFRASTRUCTURE, TEMPORARY)
    assert words[1].message.startswith("reward server: http://127.0.0.1:")
    assert "cannot be reached: [Errno 111] Connection refused" in words[1].message
