"""What draws the answers of an online method: the model that is trained itself, or vLLM servers with its adapter.

Each is told which draw it is and the place of its first prompt, from which all chance comes. So a draw does not depend
on processes or on what was drawn before: exactly with the library's generate, and as far as vLLM repeats itself with
servers. Imported late: it needs torch. Not here: what is learnt from answers (`online`), and servers (`rollout`).
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import Any, Protocol

import numpy as np
from numpy.random import RandomState

from anneal_api.online import SamplingSpec
from anneal_trainer.errors import RolloutError, StoppedError
from anneal_trainer.methods import rounds
from anneal_trainer.methods.generating import Drawn, Generator, ends_of, numbers
from anneal_trainer.rollout.nccl import Weights
from anneal_trainer.rollout.pool import Completion, Endpoint, Request
from anneal_trainer.rollout.where import Rollout

_SEEDS = 2**62
# Prompts of a holdout that servers are asked together; between such parts a run can be stopped.
_ASKED_TOGETHER = 256


@dataclass(frozen=True)
class Chance:
    """What an answer is drawn by: the run's seed, the number of the draw, and the place there of the first prompt."""

    seed: int
    draw: int
    first: int


class Sampler(Protocol):
    """What draws."""

    @property
    def at_once(self) -> int:
        """Prompts that are best answered together."""

    @property
    def apart(self) -> bool:
        """Whether it computes for itself, and so may differ from what learns."""

    def follow(self, step: int, *, behind: int) -> None:
        """Have the weights of at most `behind` steps before; every rank calls it, at the same step."""

    def draw(self, prompts: Sequence[list[int]], *, answers: int, chance: Chance) -> list[Drawn]:
        """So many answers to each prompt, those to one after another."""

    def best(self, prompts: Sequence[list[int]]) -> list[Drawn]:
        """The most likely answer to each, as far as each next token is the most likely one."""

    def told(self, step: int, answers: int) -> dict[str, float]:
        """What is measured of the latest draw, of so many answers at that step, on the first rank."""

    def version(self, step: int) -> int:
        """The step whose weights it has."""


@dataclass(frozen=True)
class OwnModel:
    """The trained model's own `generate`: always of the weights as they are."""

    generator: Generator
    apart: bool = False

    @property
    def at_once(self) -> int:
        """What fits."""
        return self.generator.at_once

    def follow(self, step: int, *, behind: int) -> None:
        """It is the model."""

    def draw(self, prompts: Sequence[list[int]], *, answers: int, chance: Chance) -> list[Drawn]:
        """By numbers of each answer's own stream."""
        tokens = self.generator.sampling.max_tokens
        streams = [
            numbers(chance.seed, chance.draw, chance.first + index, answers=answers, tokens=tokens)
            for index in range(len(prompts))
        ]
        repeated = [prompt for prompt in prompts for _ in range(answers)]
        return self.generator.answers(repeated, np.concatenate(streams))

    def best(self, prompts: Sequence[list[int]]) -> list[Drawn]:
        """Greedily."""
        return self.generator.answers(prompts)

    def told(self, step: int, answers: int) -> dict[str, float]:
        """There is nothing to tell of itself."""
        del step, answers
        return {}

    def version(self, step: int) -> int:
        """That step's."""
        return step


class Servers:
    """vLLM, which is handed what was learnt at some steps: the adapter, whose base the servers have, or all weights."""

    apart = True
    at_once = _ASKED_TOGETHER

    def __init__(
        self, rollout: Rollout, model: Any, tokenizer: Any, sampling: SamplingSpec, *, world: int, rank: int
    ) -> None:
        self._rollout, self._model, self._tokenizer, self._sampling = rollout, model, tokenizer, sampling
        self._world, self._rank = world, rank
        self._version: int | None = None
        self._handed: dict[str, float] = {}
        self._groups: Weights | None = None
        # With whole weights: the servers that have them, and when the process of each began.
        self._sent: dict[Endpoint, float | None] = {}

    def follow(self, step: int, *, behind: int) -> None:
        """Hand the adapter over where what the servers have is older than that."""
        if self._version is not None and step - self._version <= behind:
            return
        pool = self._rollout.pool
        self._handed, self._sent, name = rounds.on_first(self._world, self._rank, lambda: self._hand_over(step))
        pool.sent(self._sent)
        pool.expects(name)
        self._version = step

    def draw(self, prompts: Sequence[list[int]], *, answers: int, chance: Chance) -> list[Drawn]:
        """By a seed of each prompt's own."""
        requests = [
            Request(prompt, answers, int(RandomState([chance.seed, chance.draw, chance.first + index]).randint(_SEEDS)))
            for index, prompt in enumerate(prompts)
        ]
        return self._asked(requests, greedy=False)

    def best(self, prompts: Sequence[list[int]]) -> list[Drawn]:
        """At temperature 0."""
        return self._asked([Request(prompt, 1, None) for prompt in prompts], greedy=True)

    def told(self, step: int, answers: int) -> dict[str, float]:
        """Which weights drew, what handing them over took since the last time, and what went wrong."""
        behind = step - self.version(step)
        measured, self._handed = self._handed, {}
        pool = self._rollout.pool.measures()
        return {
            "rollout/version": float(self.version(step)),
            "rollout/staleness": float(behind),
            "rollout/stale_answers": float(answers if behind else 0),
            "rollout/sync_seconds": 0.0,
            "rollout/sync_bytes": 0.0,
            **measured,
            **{f"rollout/{name}": pool[name] for name in ("retries", "lost")},
            "rollout/wait_seconds": pool["seconds_waited"],
        }

    def version(self, step: int) -> int:
        """Of the latest hand-over."""
        del step
        assert self._version is not None, "follow() comes first"
        return self._version

    def _hand_over(self, step: int) -> tuple[dict[str, float], dict[Endpoint, float | None], str | None]:
        """What is measured of it, which servers have whole weights, and what the adapter is called."""
        seconds, size, replicas = self._adapter(step) if self._rollout.adapters else self._weights()
        measured = {
            "rollout/sync_seconds": seconds,
            "rollout/sync_bytes": float(size),
            "rollout/replicas": float(replicas),
        }
        return measured, self._sent, self._rollout.pool.name

    def _adapter(self, step: int) -> tuple[float, int, int]:
        directory = Path(mkdtemp(prefix="anneal-adapter-"))
        try:
            self._model.save_pretrained(directory)
            handed = self._rollout.pool.load(step, directory)
        finally:
            # The pool has links of its own.
            shutil.rmtree(directory, ignore_errors=True)
        return handed.seconds, handed.bytes, handed.replicas

    def _weights(self) -> tuple[float, int, int]:
        if self._groups is None:
            found = self._all_servers()
            self._sent = self._rollout.pool.processes(found)
            self._groups = Weights(found, self._model.device)
        return (*self._groups.send(self._model), self._rollout.replicas)

    def _all_servers(self) -> Sequence[Endpoint]:
        """Once all are there: a group is made with each."""
        end = monotonic() + self._rollout.patience
        while len(found := self._present()) < self._rollout.replicas:
            if self._rollout.stop():
                raise StoppedError("asked to stop while waiting for all servers; the last checkpoint stands")
            if monotonic() > end:
                raise RolloutError(f"{len(found)} of {self._rollout.replicas} servers are ready (rollout.replicas)")
            sleep(1)
        return found

    def _present(self) -> Sequence[Endpoint]:
        try:
            return self._rollout.find()
        except OSError:
            # A Service without a ready pod has no address at all.
            return []

    def _asked(self, requests: Sequence[Request], *, greedy: bool) -> list[Drawn]:
        assert self._version is not None, "follow() comes first"
        if not requests:
            return []
        ends = ends_of(self._model, self._tokenizer)
        found = self._rollout.pool.draw(requests, self._sampling, version=self._version, ends=ends, greedy=greedy)
        return [self._drawn(each) for group in found for each in group]

    def _drawn(self, said: Completion) -> Drawn:
        text = self._tokenizer.decode(said.ids, skip_special_tokens=True)
        return Drawn(said.ids, text, said.cut_off, logprobs=said.logprobs)
