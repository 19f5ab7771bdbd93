"""The ways a run can end other than well, each with its exit code and outcome.

    TrainerError
    ├── UserError          only a change by the user helps; never retried
    │   ├── DataError      65: rows
    │   ├── InputError     66: something named in the manifest is not there or does not load
    │   ├── ConfigError    78: the manifest asks for what cannot be done here
    │   └── RewardError    65: a reward gives no score for an answer, and its onError is fail
    ├── MemoryShortError   79: out of memory; retried with a smaller micro batch
    ├── StaleDataError     75: prepared data is missing or no longer matches its sources; prepared again
    ├── StoppedError       75: SIGTERM or SIGINT; resumed
    └── TemporaryError     75: a network or storage that may come back
        └── RolloutError   75: no server to draw answers from; resumed

    Interrupted            StoppedError where a signal raised it, in whatever code ran then; no Exception
What no class here covers is an infrastructure failure (exit code 1). Not here: how a failure is told (`lastwords`).
"""

from collections.abc import Sequence

from anneal_api import Outcome
from anneal_api.exitcodes import CONFIG, DATA, NO_INPUT, OUT_OF_MEMORY, TEMPORARY

SHOWN_PROBLEMS = 20


class TrainerError(Exception):
    """An ending that has a name."""

    exit_code = 1
    outcome = Outcome.INFRASTRUCTURE


class UserError(TrainerError):
    """Something that only the user can change."""

    exit_code = CONFIG
    outcome = Outcome.USER_ERROR


class DataError(UserError):
    """Rows that cannot be trained on."""

    exit_code = DATA


class InputError(UserError):
    """A model, file or column source that is not there or does not load."""

    exit_code = NO_INPUT


class ConfigError(UserError):
    """A manifest that asks for what cannot be done with this model, data or machine."""

    exit_code = CONFIG


class RewardError(UserError):
    """A reward that failed, where its `onError` says that this ends the job."""

    exit_code = DATA


class MemoryShortError(TrainerError):
    """The device or the container has too little memory for the micro batch."""

    exit_code = OUT_OF_MEMORY
    outcome = Outcome.OUT_OF_MEMORY


class StaleDataError(TrainerError):
    """What `prepare` wrote is missing, or its sources have changed since."""

    exit_code = TEMPORARY
    outcome = Outcome.PREPARED_DATA_STALE


class StoppedError(TrainerError):
    """The process was asked to stop; what could be saved is saved."""

    exit_code = TEMPORARY
    outcome = Outcome.PREEMPTED


class Interrupted(BaseException):
    """A StoppedError out of any code: libraries wrap what is an Exception, as when it comes while they import."""


class TemporaryError(TrainerError):
    """A failure outside that may pass."""

    exit_code = TEMPORARY


class RolloutError(TemporaryError):
    """The servers that answers are drawn from are gone, or cannot be given what was learnt."""


def listed(problems: Sequence[str], total: int) -> str:
    """The first problems, one a line, and how many more there are."""
    lines = list(problems[:SHOWN_PROBLEMS])
    if total > len(lines):
        lines.append(f"and {total - len(lines)} more")
    return "\n".join(lines)
