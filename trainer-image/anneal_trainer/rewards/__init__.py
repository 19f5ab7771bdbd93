"""What answers are judged by: `opened` makes the rewards of a job ready, `judge` asks them.

One module a kind. Functions, patterns, schemas and mathematics run in processes of their own (`keeper`): they can hang
or fail in ways that training must outlive. Not here: what is learnt from rewards.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from anneal_api.model import ModelSource
from anneal_api.online import (
    FunctionReward,
    HttpReward,
    LanguageReward,
    LengthReward,
    MatchReward,
    ModelReward,
    PatternReward,
    RewardSource,
    SchemaReward,
)
from anneal_trainer.errors import ConfigError, InputError, UserError
from anneal_trainer.rewards import architecture, function, http, language, length, matching, pattern, schema
from anneal_trainer.rewards.judging import Judged, judge
from anneal_trainer.rewards.keeper import Child
from anneal_trainer.rewards.scoring import CallError, Prompt, Scorer, Source, absent

__all__ = ["Judged", "Places", "Prompt", "Source", "check", "judge", "opened"]


@dataclass(frozen=True)
class Places:
    """Where this machine has what rewards name.

    `modules`: the directory of each ConfigMap. `files`: what a function's `file` is below without one. `model`: the
    directory of a reward model, fetched and merged. `device`, `bf16`: what it computes on, and how.
    """

    modules: Mapping[str, Path]
    files: Path
    model: Callable[[ModelReward], Path]
    environment: Mapping[str, str]
    device: str = "cpu"
    bf16: bool = False

    def module(self, reward: FunctionReward, name: str) -> Path:
        """The file of a function."""
        if reward.config_map is None:
            return self.files / reward.file
        if reward.config_map not in self.modules:
            raise InputError(
                f"reward {name}: no directory is given for the ConfigMap {reward.config_map}: add --config-map "
                f"{reward.config_map}=DIR"
            )
        return self.modules[reward.config_map] / reward.file


def check(rewards: Sequence[RewardSource], columns: Collection[str], places: Places) -> None:
    """UserError, by the rewards' names, for all that shows without asking: for `prepare`, before a GPU is waited for.

    `columns` are those that the data has beside its prompts. Functions are loaded and not called, models not loaded,
    servers not reached.
    """
    found: list[UserError] = []
    for reward in rewards:
        try:
            with _named(reward):
                _check(reward, columns, places)
        except UserError as error:
            found.append(error)
    if found:
        # A line each, as some have a traceback below.
        raise type(found[0])("\n".join(map(str, found))) from found[0]


def _check(reward: RewardSource, columns: Collection[str], places: Places) -> None:
    match reward:
        case RewardSource(match=MatchReward() as found):
            _check_column(reward, found.column, columns)
            matching.check(found, reward.name)
        case RewardSource(pattern=PatternReward() as found):
            pattern.check(found, reward.name)
        case RewardSource(schema_=SchemaReward() as found):
            _check_column(reward, found.column, columns)
            schema.check(found, reward.name)
        case RewardSource(language=LanguageReward() as found):
            _check_column(reward, found.column, columns)
            language.check(reward.name)
        case RewardSource(function=FunctionReward() as found):
            function.check(found, reward.name, places.module(found, reward.name), columns)
        case RewardSource(http=HttpReward() as found):
            http.server(found, reward.name, places.environment)
        case RewardSource(model=ModelReward() as found):
            architecture.check_scores(places.model(found), _source(found, reward.name))


def _check_column(reward: RewardSource, column: str | None, columns: Collection[str]) -> None:
    if column is not None and column not in columns:
        raise ConfigError(f"reward {reward.name}: {reward.kind}.column: {absent(column, columns)}")


@contextmanager
def opened(rewards: Sequence[RewardSource], places: Places) -> Iterator[list[Source]]:
    """The rewards, ready to be asked while the block runs; UserError, by the reward's name, for one that is not."""
    with ExitStack() as stack:
        sources = []
        for reward in rewards:
            with _named(reward):
                score, child = _asked(reward, places)
            if child is not None:
                stack.callback(child.close)
            sources.append(Source(reward.name, reward.weight, reward.on_error, score))
        yield sources


@contextmanager
def _named(reward: RewardSource) -> Iterator[None]:
    """What does not start is told by its name."""
    try:
        yield
    except CallError as error:
        words = f"reward {reward.name}: {reward.kind} does not start: {error.what}"
        raise ConfigError(f"{words}\n{error.trace}" if error.trace else words) from error


def _asked(reward: RewardSource, places: Places) -> tuple[Scorer, Child | None]:  # noqa: PLR0911 - a kind each
    """How one is asked, and the process that it works in, if it has one."""
    match reward:
        case RewardSource(match=MatchReward(how="math") as found):
            return matching.mathematics(found, reward.name)
        case RewardSource(match=MatchReward() as found):
            return matching.scorer(found), None
        case RewardSource(pattern=PatternReward() as found):
            return pattern.scorer(found, reward.name)
        case RewardSource(schema_=SchemaReward() as found):
            return schema.scorer(found, reward.name)
        case RewardSource(length=LengthReward() as found):
            return length.scorer(found), None
        case RewardSource(language=LanguageReward() as found):
            return language.scorer(found, reward.name), None
        case RewardSource(function=FunctionReward() as found):
            return function.scorer(found, reward.name, places.module(found, reward.name))
        case RewardSource(http=HttpReward() as found):
            return http.server(found, reward.name, places.environment).score, None
        case RewardSource(model=ModelReward() as found):
            return _classifier(found, reward.name, places), None
    raise AssertionError("the rules of RewardSource ask for one of them")


def _classifier(reward: ModelReward, name: str, places: Places) -> Scorer:
    from anneal_trainer.rewards import classifier

    named = _source(reward, name)
    return classifier.Classifier(places.model(reward), named, device=places.device, bf16=places.bf16).score


def _source(reward: ModelReward, name: str) -> ModelSource:
    return ModelSource(f"reward {name}: model.source", reward.source, reward.revision)
