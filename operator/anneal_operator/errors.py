"""The one tree of errors that the operator raises and handles.

    OperatorError
    ├── SettingsError          the settings file is wrong: the process ends with the reason
    ├── NotPermittedError      a request outside `cluster.PERMISSIONS`: a bug, never a state of the cluster
    ├── ApiError               the API server refused; its own words are kept
    │   ├── NotFoundError ├── AlreadyExistsError ├── ConflictError
    └── RefusedError           a child cannot be made, for a reason that belongs into a condition

Network failures stay aiohttp's own: the queue retries them with back-off like any other exception.
"""

from dataclasses import dataclass

from anneal_api.conditions import Reason


class OperatorError(Exception):
    """Everything raised here."""


class SettingsError(OperatorError):
    """The settings file is missing or wrong."""


class NotPermittedError(OperatorError):
    """A request that the operator's role does not hold."""


class ApiError(OperatorError):
    """A response with status 400 or above."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(ApiError):
    """404. With an empty `reason` the server does not know the resource type at all."""

    @property
    def unknown_type(self) -> bool:
        """Whether the type itself is unknown (no such CRD), not only the object."""
        return not self.reason


class AlreadyExistsError(ApiError):
    """409 on create."""


class ConflictError(ApiError):
    """409: the object changed since it was read, or a precondition does not hold."""


@dataclass(frozen=True)
class Refusal:
    """Why a child could not be made, in the terms of a condition."""

    reason: Reason
    message: str


class RefusedError(OperatorError):
    """A child could not be made; `name` says which."""

    def __init__(self, name: str, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.name = name
        self.refusal = refusal


_BY_STATUS = {404: NotFoundError, 409: ConflictError}


def api_error(status: int, reason: str, message: str) -> ApiError:
    """The error for a status code."""
    if reason == "AlreadyExists":
        return AlreadyExistsError(status, reason, message)
    return _BY_STATUS.get(status, ApiError)(status, reason, message)
