"""Writing so that a reader, or a process that dies half-way, never leaves or sees half of anything."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anneal_trainer.errors import ConfigError

_DRAFT, _OWNER = ".draft", "owner"
_REST_SECONDS = 3600


def replace_text(path: Path, text: str) -> None:
    """`text` at `path`, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON at `path`, all of it or nothing."""
    replace_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """The JSON at `path`, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def new_directory(target: Path, stays: Callable[[Path], bool] = Path.exists) -> Iterator[Path]:
    """A directory to fill that becomes `target` at the end of the block, and goes away if the block fails.

    If `target` appeared meanwhile (another job made the same), that one stays and ours goes. What is there and is not
    to stay is moved out of the way, and goes at the end.
    """
    with draft_beside(target) as draft:
        yield draft
        if not stays(target):
            with suppress(FileNotFoundError):
                target.rename(draft.with_name("replaced"))
            _appear(draft, target)


def _appear(draft: Path, target: Path) -> None:
    """Put `draft` at `target`. What another job put there since we looked is as new as ours, and stays."""
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def sync(paths: Iterable[Path]) -> None:
    """Have the contents of these files on the disk, so that no rename after this outlives them."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


@contextmanager
def draft_beside(target: Path) -> Iterator[Path]:
    """A directory beside `target`, on the same file system, which goes away at the end of the block.

    Drafts that a killed process left there go first: those whose lock the kernel gave back, if they were made on this
    machine or have rested for an hour. The hour is for shared storage whose locks other machines do not see.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_DRAFT, dir=target.parent))
    draft = place / "draft"
    try:
        with (place / _OWNER).open("w+") as owner:
            # Storage that knows no locks has nobody clear up after the dead, and loses nothing else.
            with suppress(OSError):
                fcntl.flock(owner, fcntl.LOCK_EX)
            owner.write(socket.gethostname())
            owner.flush()
            draft.mkdir()
            _clear(target.parent, now=place.stat().st_mtime)
            yield draft
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _clear(parent: Path, *, now: float) -> None:
    """Remove the drafts in `parent` that nobody writes any more; `now` is by the clock of the file system."""
    for place in parent.glob(f".*{_DRAFT}"):
        with suppress(OSError), (place / _OWNER).open("r+") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if owner.read() == socket.gethostname() or now - _last_change(place) > _REST_SECONDS:
                shutil.rmtree(place, ignore_errors=True)


def _last_change(place: Path) -> float:
    return max(path.stat().st_mtime for path in (place, *place.rglob("*")))


def replace_directory(draft: Path, target: Path) -> None:
    """Put `draft` at `target`, over what is there; at every moment one whole version can be found beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def full_disk_told(place: Path) -> Iterator[None]:
    """A disk that is full stays so: the user has to make room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ConfigError(
            f"the storage is full: prepared data is written below {place.name}/, and needs about 8 bytes a token twice "
            "while it is made; enlarge the volume or free space on it"
        ) from error


def digest_of(directory: Path) -> str:
    """sha256 over the names and contents of all files below `directory`."""
    total = hashlib.sha256()
    for path in sorted(file for file in directory.rglob("*") if file.is_file()):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(directory)}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"


def digest_of_files(directory: Path, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """sha256 of those of the named files that are there."""
    present = [name for name in names if (directory / name).is_file()]
    return [(name, hashlib.sha256((directory / name).read_bytes()).hexdigest()) for name in present]
