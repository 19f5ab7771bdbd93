"""What storage libraries raise, as errors that say what a person can do.

They are told apart by what they carry (an errno, an HTTP status) and by their class's name, so that no cloud library is
imported for a job that does not use it. Not here: rows (`problems`).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anneal_trainer.errors import InputError, TemporaryError, TrainerError

_SECRETS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(AWS_ENDPOINT_URL where it is not Amazon's; FSSPEC_S3_ANON=true for a public bucket)",
    "gs": "FSSPEC_GS_TOKEN (a mounted key file's path, or anon for a public bucket)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_CONNECTION_STRING)",
    "hf": "HF_TOKEN, and accept the data set's terms on the hub if it is gated",
    "http": "what the address needs, and write it in the source's query as $(NAME)",
}
_DENIED = {401, 403}
_GONE = {404, 410}
_REFUSED = {400, 405, 406, 412, 414, 416}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
    "GatedRepoError",
    "RefreshError",
}
_ABSENT = {
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "EntryNotFoundError",
    "DatasetNotFoundError",
    "ResourceNotFoundError",
}
_NETWORK = {
    "ClientConnectorError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ServerDisconnectedError",
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "HTTPClientError",
    "ServiceRequestError",
    "ConnectError",
    "ReadTimeout",
    "FSTimeoutError",
    "IncompleteReadError",
    "ResponseStreamingError",
    "RemoteProtocolError",
}


@contextmanager
def told(shown: str, scheme: str) -> Iterator[None]:
    """Failures of reading `shown`, each as the error that says whether it may pass and what helps."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        named = _named(shown, scheme, error)
        if named is None:
            raise
        raise named from error


def _named(shown: str, scheme: str, error: BaseException) -> TrainerError | None:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec says so of every web address that it cannot read; why is in the cause.
        error = error.__cause__
    status, names = _status(error), {cls.__name__ for cls in type(error).__mro__}
    kind: type[TrainerError] = InputError
    if names & _NETWORK:
        kind, words = TemporaryError, f"cannot be reached{_detail(error)}"
    elif status in _GONE or isinstance(error, FileNotFoundError) or names & _ABSENT:
        words = f"there is no such file{_detail(error)}{_private(scheme)}"
    elif status in _DENIED or isinstance(error, PermissionError) or names & _NO_CREDENTIALS or _keyless(error):
        words = f"access is denied{_detail(error)}{_remedy(scheme)}"
    elif status in _REFUSED:
        words = f"the server refuses the request{_detail(error)}"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        kind, words = TemporaryError, f"the disk is full{_detail(error)}"
    elif status is not None or isinstance(error, (ConnectionError, TimeoutError)):
        kind, words = TemporaryError, f"cannot be reached{_detail(error)}"
    elif isinstance(error, (OSError, EOFError)):
        words = f"cannot be read{_detail(error)}"
    else:
        return None
    return kind(f"{shown}: {words}")


def _status(error: BaseException) -> int | None:
    """The HTTP status that it, its response or its cause carries."""
    response: Any = getattr(error, "response", None)
    found: int | None
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = next(
            (
                value
                for holder in (error, response)
                for name in ("status", "status_code", "code")
                if isinstance(value := getattr(holder, name, None), int)
            ),
            None,
        )
    if found is None and error.__cause__ is not None:
        return _status(error.__cause__)
    return found


def _keyless(error: BaseException) -> bool:
    """The Azure library says so with a ValueError, before it asks anybody."""
    return isinstance(error, ValueError) and "account_name" in str(error)


def _remedy(scheme: str) -> str:
    names = _SECRETS.get(scheme)
    return f"; name a Secret in spec.secrets that has {names}" if names else ""


def _private(scheme: str) -> str:
    """The hub says of what one may not see that it is not there."""
    return f", or it is private: then{_remedy(scheme)[1:]}" if scheme == "hf" else ""


def _detail(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    first = text.splitlines()[0][:300] if text else type(error).__name__
    return f" ({first})"
