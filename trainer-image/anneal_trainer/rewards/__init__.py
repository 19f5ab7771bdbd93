"""What answers are judged by: `opened` makes the rewards of a job ready, `judge` asks them.

One module a kind. Functions, patterns, schemas and mathematics run in processes of their own (`keeper`): they can hang
or fail in ways that training must outlive. Not here: what is learnt from rewards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from anneal_api.words import counted
from anneal_trainer.errors import ConfigError, InputError, UserError
from anneal_trainer.rewards import architecture, function, http, language, length, matching, pattern, schema
from anneal_trainer.rewards.judging import Judged, judge
from anneal_trainer.rewards.keeper import Child
from anneal_trainer.rewards.scoring import CallError, Columns, Fit, Prompt, Scorer, Source, absent

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

    def module(self, reward: FunctionReward, at: str) -> Path:
        """The file of a function."""
        if reward.config_map is None:
            return self.files / reward.file
        if reward.config_map not in self.modules:
            raise InputError(
                f"{at}.function.configMap: no directory is given for the ConfigMap {reward.config_map}: add "
                f"--config-map {reward.config_map}=DIR"
            )
        return self.modules[reward.config_map] / reward.file


def check(rewards: Sequence[RewardSource], columns: Columns, places: Places) -> None:
    """UserError, by the rewards' names, for all that shows without asking: for `prepare`, before a GPU is waited for.

    `columns` are those that the data has beside its prompts, with what they hold. Functions are loaded and not called,
    models not loaded, servers not reached.
    """
    found: list[UserError] = []
    for index, reward in enumerate(rewards):
        try:
            with _named(reward, index) as at:
                _check(reward, at, columns, places)
        except UserError as error:
            found.append(error)
    if found:
        # A line each, as some have a traceback below.
        raise type(found[0])("\n".join(map(str, found))) from found[0]


def _check(reward: RewardSource, at: str, columns: Columns, places: Places) -> None:
    match reward:
        case RewardSource(match=MatchReward() as found):
            _check_column(f"{at}.match.column", found.column, columns, matching.COLUMN)
            matching.check(found, at)
        case RewardSource(pattern=PatternReward() as found):
            pattern.check(found, at)
        case RewardSource(schema_=SchemaReward() as found):
            _check_column(f"{at}.schema.column", found.column, columns, schema.COLUMN)
            schema.check(found, at)
        case RewardSource(language=LanguageReward() as found):
            _check_column(f"{at}.language.column", found.column, columns, language.COLUMN)
            language.check(at)
        case RewardSource(function=FunctionReward() as found):
            function.check(found, at, places.module(found, at), columns)
        case RewardSource(http=HttpReward() as found):
            http.server(found, at, places.environment)
        case RewardSource(model=ModelReward() as found):
            architecture.check_scores(places.model(found), _source(found, at))


def _check_column(field: str, column: str | None, columns: Columns, fit: Fit) -> None:
    """It is there, and holds what the reward can read."""
    if column is None:
        return
    if column not in columns:
        raise ConfigError(f"{field}: {absent(column, columns)}")
    for kind, rows in columns[column].items():
        if kind not in fit.types:
            raise ConfigError(
                f"{field} {column}: in {counted(rows, 'row')} it holds {fit.not_(kind)}: name another column, or write "
                "a function that reads it"
            )


@contextmanager
def opened(rewards: Sequence[RewardSource], places: Places) -> Iterator[list[Source]]:
    """The rewards, ready to be asked while the block runs; UserError, by the reward's name, for one that is not."""
    with ExitStack() as stack:
        sources = []
        for index, reward in enumerate(rewards):
            with _named(reward, index) as at:
                score, child = _asked(reward, at, places)
            if child is not None:
                stack.callback(child.close)
            sources.append(Source(reward.name, reward.weight, reward.on_error, score))
        yield sources


@contextmanager
def _named(reward: RewardSource, index: int) -> Iterator[str]:
    """Where it stands in the manifest; what is wrong with it is told by its name."""
    at = f"spec.rewards[{index}]"
    try:
        yield at
    except UserError as error:
        raise type(error)(f"reward {reward.name}: {error}") from error
    except CallError as error:
        words = f"reward {reward.name}: {at}.{reward.kind} does not start: {error.what}"
        raise ConfigError(f"{words}\n{error.trace}" if error.trace else words) from error


def _asked(reward: RewardSource, at: str, places: Places) -> tuple[Scorer, Child | None]:  # noqa: PLR0911 - a kind each
    """How one is asked, and the process that it works in, if it has one."""
    match reward:
        case RewardSource(match=MatchReward(how="math") as found):
            return matching.mathematics(found, at)
        case RewardSource(match=MatchReward() as found):
            return matching.scorer(found, at), None
        case RewardSource(pattern=PatternReward() as found):
            return pattern.scorer(found, at)
        case RewardSource(schema_=SchemaReward() as found):
            return schema.scorer(found, at)
        case RewardSource(length=LengthReward() as found):
            return length.scorer(found), None
        case RewardSource(language=LanguageReward() as found):
            return language.scorer(found, at), None
        case RewardSource(function=FunctionReward() as found):
            return function.scorer(found, at, places.module(found, at))
        case RewardSource(http=HttpReward() as found):
            return http.server(found, at, places.environment).score, None
        case RewardSource(model=ModelReward() as found):
            return _classifier(found, at, places), None
    raise AssertionError("the rules of RewardSource ask for one of them")


def _classifier(reward: ModelReward, at: str, places: Places) -> Scorer:
    from anneal_trainer.rewards import classifier

    named = _source(reward, at)
    return classifier.Classifier(places.model(reward), named, device=places.device, bf16=places.bf16).score


def _source(reward: ModelReward, at: str) -> ModelSource:
    return ModelSource(f"{at}.model.source", reward.source, reward.revision)
