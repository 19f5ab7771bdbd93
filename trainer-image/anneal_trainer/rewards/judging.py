"""Answers in, rewards out: every source is asked, what failed is dealt with by its `onError`, and the rest is summed.

Sources are asked at the same time, since most of them wait: for a server, or for a process of their own.
Not here: how one is asked (a module a kind), and what is learnt from rewards.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from anneal_api.words import counted
from anneal_trainer.errors import ConfigError, RewardError, TemporaryError
from anneal_trainer.rewards.scoring import Batch, CallError, Fault, Prompt, Score, Source, shown


@dataclass(frozen=True)
class Judged:
    """What came of a batch of answers.

    `rewards`: the weighted sum of each answer, NaN where no source said anything of it. `scores`: of each source, None
    where it said nothing. `failures`: for how many answers a source failed. `seconds`: how long it took.
    """

    rewards: list[float]
    scores: dict[str, list[float | None]]
    failures: dict[str, int]
    seconds: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each source over what it judged, its failures and seconds, and the answers without a reward."""
        means = {name: _mean(scores) for name, scores in self.scores.items()}
        found = {f"rewards/{name}": mean for name, mean in means.items() if mean is not None}
        failed = {f"rewards/{name}/failures": float(count) for name, count in self.failures.items()}
        took = {f"rewards/{name}/seconds": seconds for name, seconds in self.seconds.items()}
        missing = float(sum(math.isnan(reward) for reward in self.rewards))
        return {**found, **failed, **took, "rewards/unjudged": missing}


@dataclass(frozen=True)
class _Said:
    """One source's answer; `trace`, `temporary` and `of_answers` are of a call that failed as a whole."""

    scores: list[Score]
    seconds: float
    trace: str = ""
    temporary: bool = False
    of_answers: bool = True

    @property
    def faults(self) -> list[tuple[int, Fault]]:
        return [(index, score) for index, score in enumerate(self.scores) if isinstance(score, Fault)]


def warn(text: str) -> None:
    """Where a failure is told that does not end the job: the log."""
    print(f"warning: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log of the pod


def judge(
    sources: Sequence[Source],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    lengths: Sequence[int],
    *,
    say: Callable[[str], None] = warn,
) -> Judged:
    """The reward of each answer; RewardError, by the reward's name, where one failed that must not."""
    batch = Batch(prompts, completions, columns, lengths)
    asked = sources if completions else ()
    with ThreadPoolExecutor(max(1, len(asked)), thread_name_prefix="reward") as pool:
        said = list(pool.map(lambda source: _ask(source, batch), asked))
    pairs = list(zip(asked, said, strict=True))
    scores = {source.name: _settled(source, answer, batch, say) for source, answer in pairs}
    return Judged(
        rewards=[_sum(asked, scores, index) for index in range(len(batch))],
        scores=scores,
        failures={source.name: _counted(source, answer) for source, answer in pairs},
        seconds={source.name: answer.seconds for source, answer in pairs},
    )


def _ask(source: Source, batch: Batch) -> _Said:
    begun = time.monotonic()
    try:
        scores = source.score(batch)
    except CallError as error:
        faults: list[Score] = [Fault(error.what)] * len(batch)
        return _Said(faults, time.monotonic() - begun, error.trace, error.temporary, error.of_answers)
    except ConfigError as error:
        raise ConfigError(f"reward {source.name}: {error}") from error
    return _Said(scores, time.monotonic() - begun)


def _settled(source: Source, said: _Said, batch: Batch, say: Callable[[str], None]) -> list[float | None]:
    """The scores, with what `onError` puts in place of those that failed."""
    told = [(index, fault) for index, fault in said.faults if not _expected(source, fault)]
    if told:
        words = _report(source, told, batch, of_answers=said.of_answers)
        if source.on_error == "fail":
            remedy = "repair the reward, or write onError: zero or skip to go on without it"
            kind = TemporaryError if said.temporary else RewardError
            raise kind(f"{words}; {remedy}" + (f"\n{said.trace}" if said.trace else ""))
        if due := source.failures.add(len(told)):
            more, first = due
            say(_in_whole(source, words, said.trace) if first else _in_short(source, more, told[0][1]))
    instead = 0.0 if source.on_error == "zero" else None
    return [instead if isinstance(score, Fault) else score for score in said.scores]


def _in_whole(source: Source, words: str, trace: str) -> str:
    return f"{words}; onError is {source.on_error}" + (f"\n{trace}" if trace else "")


def _in_short(source: Source, more: int, now: Fault) -> str:
    """One line: the same failure of every step would hide all else."""
    what = now.what.partition("\n")[0]
    return f"reward {source.name}: failed for {counted(more, 'more answer')}, now: {what}; onError is {source.on_error}"


def _expected(source: Source, fault: Fault) -> bool:
    return fault.silent and source.on_error == "skip"


def _counted(source: Source, said: _Said) -> int:
    return sum(not _expected(source, fault) for _, fault in said.faults)


def _report(source: Source, faults: list[tuple[int, Fault]], batch: Batch, *, of_answers: bool) -> str:
    index, first = faults[0]
    concerned = f"reward {source.name}: {first.what} ({len(faults)} of {len(batch)} answers"
    if not of_answers:
        return f"{concerned})"
    answer, prompt = shown(repr(batch.completions[index])), shown(repr(batch.prompts[index]))
    return f"{concerned}; the first is {answer} to the prompt {prompt})"


def _sum(sources: Sequence[Source], scores: dict[str, list[float | None]], index: int) -> float:
    found = [(source.weight, scores[source.name][index]) for source in sources]
    terms = [weight * score for weight, score in found if score is not None]
    return math.fsum(terms) if terms else math.nan


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None
