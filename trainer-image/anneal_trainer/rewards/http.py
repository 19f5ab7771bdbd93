"""A server that judges: POST {prompts, completions, columns}, and it answers {"rewards": [...]}.

It is asked again where it cannot be reached, is too slow, or says 429 or 5xx, after 1, 2, 4, … up to 30 seconds. The
address may hold secrets: messages have it as the manifest does, and what came from the environment is struck out of all
that the server or a library says. Not here: headers; who needs them writes a function.
"""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anneal_api.online import HttpReward
from anneal_trainer.errors import ConfigError
from anneal_trainer.rewards.scoring import Batch, CallError, Score, checked, shown

_NAMED = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_UNFIT = re.compile(r"[^!-~]")
_MOST_BYTES = 64 * 1024**2
_CHUNK = 65536
_LONGEST_PAUSE = 30.0
_CLIENT_ERRORS, _SLOW_DOWN, _SERVER_ERRORS = 400, 429, 500


class _AgainError(Exception):
    """What may go well at another time."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the answers."""

    def redirect_request(self, *_: Any) -> None:
        """Not followed."""
        return


@dataclass(frozen=True)
class Server:
    """Where to ask, and how. `secrets` are the values that no message may hold, by the names that they go by."""

    reward: HttpReward
    at: str
    url: str
    secrets: Mapping[str, str]
    sleep: Callable[[float], None] = time.sleep

    def score(self, batch: Batch) -> list[Score]:
        """The server's scores; CallError, with nothing secret in it, if it gives none."""
        question = {
            "prompts": list(batch.prompts),
            "completions": list(batch.completions),
            "columns": {name: list(values) for name, values in batch.columns.items()},
        }
        try:
            return _scores(self._asked(json.dumps(question, default=str).encode()), len(batch), self._hidden)
        except CallError as error:
            words = f"{self.reward.url} {self._hidden(error.what)}"
            raise CallError(words, temporary=error.temporary, of_answers=error.of_answers) from None

    def _asked(self, body: bytes) -> bytes:
        for attempt in range(self.reward.retries + 1):
            try:
                return self._posted(body)
            except _AgainError as error:
                if attempt == self.reward.retries:
                    raise CallError(f"{error}{self._times(attempt + 1)}", temporary=True, of_answers=False) from None
            self.sleep(_pause(attempt))
        raise AssertionError("the last attempt raises")

    def _posted(self, body: bytes) -> bytes:
        """The body of the answer, all of it within the time. Words are hidden before they are cut."""
        headers, seconds = {"Content-Type": "application/json"}, self.reward.timeout_seconds
        deadline = time.monotonic() + seconds
        try:
            request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310 - the pattern of the field
            with urllib.request.build_opener(_StayHere).open(request, timeout=seconds) as response:
                return _read(response, deadline)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except http.client.InvalidURL:
            # It says the address, secrets and all.
            words = "is not an address: what stands for its port is no number"
            raise CallError(words, of_answers=False) from None
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(self._unheard(error)) from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        more = self._elsewhere(error) or shown(self._hidden(_beginning(error)))
        said = f"answered {error.code} {error.reason}: {more}"
        if error.code == _SLOW_DOWN or error.code >= _SERVER_ERRORS:
            return _AgainError(said)
        return CallError(said, of_answers=False)

    def _elsewhere(self, error: urllib.error.HTTPError) -> str:
        place = error.headers.get("Location")
        if place is None or error.code >= _CLIENT_ERRORS:
            return ""
        return f"redirects are not followed; write into {self.at}.http.url where it leads: {shown(self._hidden(place))}"

    def _unheard(self, error: Exception) -> str:
        """Why there is no answer."""
        # What came before an early end is no reason.
        early = isinstance(error, http.client.IncompleteRead)
        reason = "its answer ends early" if early else getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"gave no answer within {self.at}.http.timeoutSeconds ({self.reward.timeout_seconds})"
        return f"cannot be reached: {reason or type(error).__name__}"

    def _times(self, tries: int) -> str:
        return f", {tries} times ({self.at}.http.retries {self.reward.retries})" if tries > 1 else ""

    def _hidden(self, text: str) -> str:
        for name, value in self.secrets.items():
            if value:
                text = text.replace(value, f"$({name})")
        return text


def _pause(attempt: int) -> float:
    return min(2.0**attempt, _LONGEST_PAUSE)


def longest_answer(reward: HttpReward) -> float:
    """Seconds that it can take with all tries.

    >>> longest_answer(HttpReward(url="http://judge", timeoutSeconds=10, retries=2))
    33.0
    """
    return reward.timeout_seconds * (reward.retries + 1) + sum(map(_pause, range(reward.retries)))


def server(reward: HttpReward, at: str, environment: Mapping[str, str]) -> Server:
    """With the address filled in; ConfigError if the environment has not what it names."""
    names = _NAMED.findall(reward.url)
    missing = [each for each in names if each not in environment]
    if missing:
        raise ConfigError(
            f"{at}.http.url names $({missing[0]}), which is not in the environment: add a Secret that has it to secrets"
        )
    # Files that Secrets are made from often end with a line end.
    secrets = {each: environment[each].strip() for each in names}
    odd = [each for each, value in secrets.items() if _UNFIT.search(value)]
    if odd:
        raise ConfigError(
            f"{at}.http.url: the value of $({odd[0]}) has a character that no address has, as a space or a "
            "line end: write it percent-encoded (%20) into the Secret"
        )
    return Server(reward, at, _NAMED.sub(lambda found: secrets[found[1]], reward.url), secrets)


def _read(response: Any, deadline: float) -> bytes:
    found = b""
    while chunk := response.read1(_CHUNK):
        found += chunk
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
        if len(found) > _MOST_BYTES:
            raise CallError(f"answered more than {_MOST_BYTES} bytes")
    # An answer that ends early is no error to the library.
    if response.length:
        raise http.client.IncompleteRead(found, response.length)
    return found


def _beginning(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(_CHUNK).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _scores(body: bytes, count: int, hide: Callable[[str], str]) -> list[Score]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise CallError(f"answered no JSON: {shown(hide(body.decode(errors='replace')))}") from None
    if not isinstance(answer, dict) or "rewards" not in answer:
        raise CallError(f'answered {shown(hide(json.dumps(answer)))}, where {{"rewards": [...]}} is expected')
    return checked(answer["rewards"], count)
