"""Bytes of a file, wherever it is and whatever it is compressed with.

Local files are opened; all others come through fsspec, whose libraries read the credentials that a Secret puts into the
environment. Decompression is that of the standard library, and pyarrow's for .zst. Not here: which files (`files`).
"""

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from anneal_trainer.data.sources.failures import told
from anneal_trainer.errors import InputError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """A file: its name for people, where it is (a local path, or a URL that fsspec opens), and what it holds."""

    shown: str
    url: str
    scheme: str
    kind: str
    compression: str = ""

    @property
    def local(self) -> Path | None:
        """Its path, if it is on a file system here."""
        return Path(self.url) if self.scheme in ("local", "volume") else None

    @property
    def mappable(self) -> bool:
        """Whether parts of it can be read by another process without reading what is before them."""
        return self.local is not None and not self.compression


def expanded(text: str, source: str) -> str:
    """`text`, a part of `source`, with each $(NAME) replaced by the environment's; InputError if it has none."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise InputError(f"{source}: the environment has no {name}: name a Secret with this key in spec.secrets")
        return os.environ[name]

    return re.sub(r"\$\(([A-Z_][A-Z0-9_]*)\)", value, text)


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, by fsspec, and the path on it."""
    from fsspec.core import url_to_fs

    # Asking by gRPC for a bucket's layout hangs behind proxies, and reading does not need it. Nothing set is changed.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # The web client asks for no proxy by itself; the others' libraries do.
    options = {"client_kwargs": {"trust_env": True}} if url.startswith("http") else {}
    system, path = url_to_fs(expanded(url, url), **options)
    return system, path


class _Raw(io.RawIOBase):
    """The plain reading side of a file object that has only `read`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()


@contextmanager
def opened(file: DataFile) -> Iterator[IO[bytes]]:
    """The decompressed bytes from the beginning, failures told by the file's name."""
    with (
        told(file.shown, file.scheme),
        _undone(file),
        _raw(file) as raw,
        _decompressed(raw, file.compression) as stream,
    ):
        yield stream


@contextmanager
def _undone(file: DataFile) -> Iterator[None]:
    """What a decompressor raises, as an error that names the file."""
    import lzma
    import zlib

    try:
        yield
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(_broken(file, error)) from error
    except OSError as error:
        if file.compression and error.errno is None and type(error).__module__ in ("builtins", "gzip"):
            raise InputError(_broken(file, error)) from error
        raise


def _broken(file: DataFile, error: Exception) -> str:
    return f"{file.shown}: is not a whole {file.compression} file ({error}): copy it again, or rename it"


def _raw(file: DataFile) -> IO[bytes]:
    if file.local is not None:
        return file.local.open("rb")
    system, path = filesystem(file.url)
    # One request from the beginning to the end: a web server need not know ranges.
    options = {"block_size": 0} if file.scheme == "http" else {}
    return io.BufferedReader(_Raw(system.open(path, "rb", **options)), _BLOCK)


def _decompressed(raw: IO[bytes], compression: str) -> Any:
    match compression:
        case ".gz":
            import gzip

            return gzip.GzipFile(fileobj=raw, mode="rb")
        case ".bz2":
            import bz2

            return bz2.BZ2File(raw)
        case ".xz":
            import lzma

            return lzma.LZMAFile(raw)
        case ".zst":
            import pyarrow as pa

            return io.BufferedReader(_Raw(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")), _BLOCK)
        case _:
            return raw


@contextmanager
def seekable(file: DataFile) -> Iterator[IO[bytes]]:
    """A file object that can be read anywhere.

    A compressed file, and one of a server that knows no ranges, is copied to temporary storage first, and removed.
    """
    if file.local is not None and not file.compression:
        with told(file.shown, file.scheme), file.local.open("rb") as stream:
            yield stream
    elif not file.compression and _has_ranges(file):
        system, path = filesystem(file.url)
        with told(file.shown, file.scheme), system.open(path, "rb") as stream:
            yield stream
    else:
        with tempfile.TemporaryFile() as copy:
            with opened(file) as stream:
                shutil.copyfileobj(stream, copy, _BLOCK)
            copy.seek(0)
            yield copy


def _has_ranges(file: DataFile) -> bool:
    if file.scheme != "http":
        return True
    with told(file.shown, file.scheme):
        system, path = filesystem(file.url)
        return bool(system.info(path).get("partial"))
