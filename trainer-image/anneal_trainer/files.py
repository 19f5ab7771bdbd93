"""Writing so that a reader, or a process that dies half-way, never leaves or sees half of anything."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill that becomes `target` at the end of the block, and goes away if the block fails.

    If `target` appeared meanwhile (another job made the same), that one stays and ours goes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    draft.chmod(0o755)
    try:
        yield draft
        if not target.exists():
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_directory(draft: Path, target: Path) -> None:
    """Put `draft` at `target`, over what is there; at every moment one whole version can be found beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


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
