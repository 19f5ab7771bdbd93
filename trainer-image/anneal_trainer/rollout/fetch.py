"""Fetching an adapter from rank 0: each file is bounded, checked by its digest, and there as a whole or not at all.

Little more than Python's own library: the loader runs in the operator's image. Not here: what is done with it
(`loader`).
"""

import errno
import http.client
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

import xxhash

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PATH: Final = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_MOST_FILES: Final = 8
_MOST_BYTES: Final = 64 * 1024**3
_SILENCE: Final = 30.0
_CHUNK: Final = 1024**2
_LAST_PORT: Final = 65535
_OK: Final = 200


class AskError(Exception):
    """What was asked for is not done; the answer says why, with a status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Wanted:
    """What a file must be."""

    size: int
    xxh128: str


@dataclass(frozen=True)
class Order:
    """An adapter that somebody wants loaded, and where on the asking host it is."""

    name: str
    port: int
    path: str
    files: Mapping[str, Wanted]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Order":
        """What the request says; AskError if it is not what a loader takes."""
        name, port, path, files = (body.get(key) for key in ("name", "port", "path", "files"))
        _check(isinstance(name, str) and NAME.fullmatch(name), "name", name, "small letters, digits and hyphens")
        _check(isinstance(port, int) and 0 < port <= _LAST_PORT, "port", port, "1 to 65535")
        _check(isinstance(path, str) and _PATH.fullmatch(path), "path", path, "/parts/of/letters")
        _check(isinstance(files, dict) and 0 < len(files) <= _MOST_FILES, "files", files, f"1 to {_MOST_FILES} files")
        assert isinstance(files, dict), "checked"
        return cls(str(name), int(port or 0), str(path), {file: _wanted(file, each) for file, each in files.items()})


def fetch(order: Order, peer: str, target: Path) -> int:
    """All files into `target`, which appears when they are whole; the bytes that travelled (0 if it is there)."""
    if target.is_dir():
        # Renamed only when it was whole, and its name is that of its content.
        return 0
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        with closing(http.client.HTTPConnection(peer, order.port, timeout=_SILENCE)) as connection:
            for file, wanted in order.files.items():
                _file(connection, f"{order.path}/{file}", wanted, part / file)
        part.rename(target)
    except OSError as error:
        status = 507 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 500
        raise AskError(status, f"{order.name} cannot be written below {target.parent}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sum(wanted.size for wanted in order.files.values())


def _file(connection: http.client.HTTPConnection, path: str, wanted: Wanted, target: Path) -> None:
    url = f"http://{connection.host}:{connection.port}{path}"
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != _OK:
            raise AskError(502, f"{url} answered {response.status}")
        digest = _copied(response, wanted, target, url)
    except _DiskError as error:
        raise error.cause from None
    except (OSError, http.client.HTTPException) as error:
        raise AskError(502, f"{url} cannot be fetched: {error or type(error).__name__}") from None
    if digest != wanted.xxh128:
        raise AskError(502, f"{url} is not what was announced: its xxh128 is {digest}, not {wanted.xxh128}")


def _copied(response: http.client.HTTPResponse, wanted: Wanted, target: Path, url: str) -> str:
    """The digest of what was read, all of it at a pace that ends."""
    digest, size, deadline = xxhash.xxh128(), 0, time.monotonic() + _SILENCE + wanted.size / 1024**2
    buffer = memoryview(bytearray(_CHUNK))
    with _opened(target) as file:
        while read := response.readinto(buffer):
            chunk = buffer[:read]
            size += read
            if size > wanted.size:
                raise AskError(502, f"{url} is larger than the {wanted.size} bytes that were announced")
            if time.monotonic() > deadline:
                raise AskError(504, f"{url} was too slow: {size} of {wanted.size} bytes")
            digest.update(chunk)
            with _disk():
                _write(file, chunk)
    if size != wanted.size:
        raise AskError(502, f"{url} ended after {size} of {wanted.size} bytes")
    return digest.hexdigest()


def _write(file: FileIO, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[file.write(chunk) :]


def _opened(target: Path) -> FileIO:
    with _disk():
        return FileIO(target, "wb")


class _DiskError(Exception):
    """An OSError of this machine's disk, to be told from one of the network."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from None


def _wanted(file: Any, each: Any) -> Wanted:
    _check(isinstance(file, str) and _FILE.fullmatch(file), "files", file, "names of files")
    size, xxh128 = (each.get("size"), each.get("xxh128")) if isinstance(each, dict) else (None, None)
    _check(isinstance(size, int) and 0 <= size <= _MOST_BYTES, f"files.{file}.size", size, f"up to {_MOST_BYTES}")
    _check(isinstance(xxh128, str) and _DIGEST.fullmatch(xxh128), f"files.{file}.xxh128", xxh128, "32 hex digits")
    return Wanted(int(size or 0), str(xxh128))


def _check(holds: object, field: str, value: Any, accepted: str) -> None:
    if not holds:
        raise AskError(400, f"{field} is {str(value)[:100]!r}, where {accepted} is expected")
