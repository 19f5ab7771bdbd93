"""Rewards of a server: real requests to one on loopback, its failures, and secrets that no message holds."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anneal_api.online import HttpReward
from anneal_trainer.errors import ConfigError, RewardError, TemporaryError
from anneal_trainer.rewards import check, judge, opened
from anneal_trainer.rewards.http import server
from anneal_trainer.rewards.scoring import Batch, CallError
from trainer.judges import ask, asking, places, reward
from trainer.servers import Quiet, serving

SECRET = "s3cr3t"
AT = "spec.rewards[0]"


class Judge(Quiet):
    """Answers with what `script` has next: a status and a body; the last one again and again."""

    script: list[tuple[int, Any]]
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        """The next entry."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "type": self.headers["Content-Type"], **body})
        status, said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        text = said if isinstance(said, str) else json.dumps(said)
        self.answer(status, text.encode(), **({"Location": "/there"} if status == 302 else {}))


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Judge]]]:
    """A server and its script."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Scripted", (Judge,), {"script": [(200, {"rewards": [1.0, 0.5]})], "seen": []})
    with serving(handler) as url:
        yield url, handler


def asked(url: str, *, retries: int = 0, seconds: int = 5, pauses: list[float] | None = None) -> list[Any]:
    """The scores of two answers, without waiting between tries."""
    found = server(HttpReward(url=url, retries=retries, timeoutSeconds=seconds), AT, {"KEY": f"{SECRET}\n"})
    quick = replace(found, sleep=(pauses if pauses is not None else []).append)
    return quick.score(Batch(["p", "q"], ["a", "b"], {"n": [1, 2]}, [1, 1]))


def test_a_server_is_given_what_a_function_is(tmp_path: Path, judge_server: Any) -> None:
    """Prompts, completions and columns as JSON, at an address with a name from the environment."""
    url, handler = judge_server
    with opened([reward("http", url=f"{url}/v1?key=$(KEY)")], places(tmp_path, {"KEY": SECRET})) as sources:
        turns = [{"role": "user", "content": "q"}]
        found = judge(sources, ["p", turns], ["a", "b"], {"n": [1, None]}, [1, 1])
    assert found.rewards == [1.0, 0.5]
    assert handler.seen == [
        {
            "path": f"/v1?key={SECRET}",
            "type": "application/json",
            "prompts": ["p", turns],
            "completions": ["a", "b"],
            "columns": {"n": [1, None]},
        }
    ]


def test_a_busy_server_is_asked_again(judge_server: Any) -> None:
    """After longer and longer pauses."""
    url, handler = judge_server
    handler.script[:] = [(503, "busy"), (500, "oops"), (429, "slowly"), (200, {"rewards": [0, 1]})]
    pauses: list[float] = []
    assert asked(url, retries=3, pauses=pauses) == [0, 1]
    assert pauses == [1, 2, 4]


def test_pauses_do_not_grow_without_end(judge_server: Any) -> None:
    """Up to half a minute."""
    url, handler = judge_server
    handler.script[:] = [(503, "busy")]
    pauses: list[float] = []
    with pytest.raises(
        CallError, match=r"answered 503 Service Unavailable: busy, 8 times \(spec.rewards\[0\].http.retries 7\)$"
    ):
        asked(url, retries=7, pauses=pauses)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, "no such model", "answered 400 Bad Request: no such model"),
        (
            302,
            "moved",
            r"answered 302 Found: redirects are not followed; write into spec.rewards\[0\].http.url where it leads: /there$",
        ),
        (200, "<html>", "answered no JSON: <html>"),
        (200, [1, 2], r'answered \[1, 2\], where {"rewards": \[...\]} is expected'),
        (200, {"scores": [1, 2]}, "where {"),
        (200, {"rewards": None}, "returned None, where a list of 2 numbers is expected"),
        (200, {"rewards": [1]}, "returned 1 values for 2 answers"),
        (200, "[" * 100_000, "answered no JSON"),
    ],
)
def test_an_answer_that_is_none_is_told_at_once(judge_server: Any, status: int, body: Any, words: str) -> None:
    """Asking again would not help."""
    url, handler = judge_server
    handler.script[:] = [(status, body)]
    with pytest.raises(CallError, match=words) as caught:
        asked(url, retries=3)
    assert len(handler.seen) == 1
    assert not caught.value.temporary


def test_what_has_nothing_to_do_with_answers_quotes_none(tmp_path: Path, judge_server: Any) -> None:
    """A key that is refused is no fault of what the model said."""
    url, handler = judge_server
    handler.script[:] = [(401, "who are you?")]
    with asking(tmp_path, reward("http", url=url)) as sources, pytest.raises(RewardError) as caught:
        ask(sources, ["an answer", "b"])
    said = f"reward mine: {url} answered 401 Unauthorized: who are you? (2 of 2 answers); repair the reward"
    assert str(caught.value).startswith(said)


def test_a_number_beyond_all_bounds_is_told_without_its_digits(tmp_path: Path, judge_server: Any) -> None:
    """JSON may have as many of them as it likes."""
    url, handler = judge_server
    handler.script[:] = [(200, f'{{"rewards": [1{"0" * 400}]}}')]
    with (
        asking(tmp_path, reward("http", url=url)) as sources,
        pytest.raises(RewardError, match=r"reward mine: returned inf, which is no reward: write numbers from -1e\+12"),
    ):
        ask(sources, ["a"])


def test_single_answers_can_lack_a_score(tmp_path: Path, judge_server: Any) -> None:
    """Null and NaN are told as those of a function are."""
    url, handler = judge_server
    handler.script[:] = [(200, '{"rewards": [null, NaN]}')]
    with (
        asking(tmp_path, reward("http", url=url)) as sources,
        pytest.raises(RewardError, match=r"reward mine: returned None.* \(2 of 2 answers; the first is 'a'"),
    ):
        ask(sources, ["a", "b"])


def test_a_server_that_cannot_be_reached_is_a_failure_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt ends as temporary, so that another one can go on from the last checkpoint."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    with (
        asking(tmp_path, reward("http", url=url, retries=0)) as sources,
        pytest.raises(
            TemporaryError, match=r"reward mine: .* cannot be reached: .*Connection refused \(1 of 1 answers\);"
        ),
    ):
        ask(sources, ["a"])
    with asking(tmp_path, reward("http", url=url, retries=0, onError="skip")) as sources:
        assert ask(sources, ["a"]).scores["mine"] == [None]


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "slow"])
def test_a_server_that_is_too_slow_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, *, drip: bool) -> None:
    """Neither one that says nothing nor one that says a byte now and then."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    done = threading.Event()

    class Slow(Quiet):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not done.wait(0.3):
                if drip:
                    self.wfile.write(b" ")

    with serving(Slow) as url:
        begun = time.monotonic()
        with pytest.raises(CallError, match=r" gave no answer within spec.rewards\[0\].http.timeoutSeconds \(1\)$"):
            asked(url, seconds=1)
        done.set()
    assert time.monotonic() - begun < 4


def test_secrets_are_in_no_message(judge_server: Any) -> None:
    """Neither from the server's own words nor from an address that cannot be."""
    url, handler = judge_server
    handler.script[:] = [(403, f"key {SECRET} is not known")]
    with pytest.raises(CallError) as caught:
        asked(f"{url}/?key=$(KEY)")
    assert str(caught.value) == f"{url}/?key=$(KEY) answered 403 Forbidden: key $(KEY) is not known"
    with pytest.raises(CallError, match="is not an address: what stands for its port is no number") as caught:
        asked("http://127.0.0.1:$(KEY)/")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "said"), [(403, "{}"), (200, "{}"), (200, '{{"echo": "{}"}}')], ids=["error", "no-json", "no-rewards"]
)
def test_no_half_of_a_secret_is_in_a_message(judge_server: Any, status: int, said: str) -> None:
    """Where what the server says is cut, too."""
    url, handler = judge_server
    for start in range(260, 310):
        handler.script[:] = [(status, said.format("x" * start + SECRET))]
        with pytest.raises(CallError) as caught:
            asked(f"{url}/?key=$(KEY)")
        assert "s3c" not in str(caught.value)


@pytest.mark.parametrize("value", ["two words", "two\nlines", "schlüssel", "a\x7fb"])
def test_a_secret_that_fits_into_no_address_is_told_before_it_is_used(tmp_path: Path, value: str) -> None:
    """By its name alone; the library would repeat the whole address."""
    source = reward("http", url="http://judge/$(TOKEN)")
    words = r"reward mine: spec.rewards\[0\].http.url: the value of \$\(TOKEN\) has a character that no address has, .* percent-encoded"
    with pytest.raises(ConfigError, match=words) as caught:
        check([source], {}, places(tmp_path, {"TOKEN": value}))
    assert value not in str(caught.value)


def test_an_answer_that_ends_early_may_come_whole_at_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is ended while it speaks is asked again."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    whole = b'{"rewards": [1, 2]}'
    sent = [whole[:9], whole]

    class Ending(Quiet):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(sent.pop(0))

    with serving(Ending) as url:
        assert asked(url, retries=1) == [1, 2]
        sent.append(whole[:9])
        with pytest.raises(CallError, match=r"cannot be reached: its answer ends early$") as caught:
            asked(url)
    assert caught.value.temporary


def test_a_name_that_is_not_in_the_environment_is_told(tmp_path: Path) -> None:
    """With where it comes from."""
    source = reward("http", url="http://judge/$(TOKEN)")
    with (
        pytest.raises(
            ConfigError,
            match=r"reward mine: spec.rewards\[0\].http.url names \$\(TOKEN\), .*: add a Secret that has it",
        ),
        opened([source], places(tmp_path, {})),
    ):
        pass
