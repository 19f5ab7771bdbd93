"""What the tests of rewards share: rewards of a few words, asked on this machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

from anneal_api.online import ModelReward, RewardSource
from anneal_trainer.rewards import Judged, Places, Source, judge, opened
from anneal_trainer.rewards.scoring import Prompt


def reward(kind: str, name: str = "mine", **fields: Any) -> RewardSource:
    """One source of a kind; `onError` and `weight` are its own, the rest the kind's."""
    own = {key: fields.pop(key) for key in ("onError", "weight") if key in fields}
    fields = {key.rstrip("_"): value for key, value in fields.items()}
    return RewardSource.model_validate({"name": name, kind: fields, **own})


def places(
    folder: Path, environment: Mapping[str, str] | None = None, *, modules: Mapping[str, Path] | None = None
) -> Places:
    """Files and models below `folder`; a model's source is its directory there."""

    def model(found: ModelReward) -> Path:
        return folder / found.source

    return Places(modules or {}, folder, model, os.environ if environment is None else environment)


@contextmanager
def asking(folder: Path, *rewards: RewardSource) -> Iterator[list[Source]]:
    """The rewards, ready."""
    with opened(rewards, places(folder)) as sources:
        yield sources


def ask(
    sources: Sequence[Source],
    completions: Sequence[str],
    *,
    prompts: Sequence[Prompt] | None = None,
    lengths: Sequence[int] | None = None,
    said: list[str] | None = None,
    **columns: Sequence[Any],
) -> Judged:
    """What they say of the answers."""
    return judge(
        sources,
        prompts if prompts is not None else [f"question {i}" for i in range(len(completions))],
        completions,
        columns,
        lengths if lengths is not None else [len(text) for text in completions],
        say=(said if said is not None else []).append,
    )


def module(folder: Path, text: str, name: str = "rewards.py") -> Path:
    """A module of reward functions."""
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path
