"""Adapters as rank 0 keeps them for the servers: a directory a version, named by what is in it.

The name holds a digest of the files, so that it is never used again for other weights: vLLM keeps what it computed by
name and path. The digest is one against accidents, which is quick; forgers are kept out by the job's NetworkPolicy. Not
here: the launcher's server that serves these files (`server`), and what fetches them (`loader`).
"""

import mmap
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

from anneal_trainer.errors import RolloutError

FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
ROUTE: Final = "/adapters/"
_NAME: Final = re.compile(r"^v[0-9]+-[0-9a-f]{8}$")


@dataclass(frozen=True)
class Served:
    """Adapters in `directory` (records/adapters), served by the launcher at /adapters/NAME/FILE on `port`."""

    directory: Path
    port: int


@dataclass(frozen=True)
class Published:
    """An adapter that servers can be given. `files`: size and xxh128 of each, as a loader wants them."""

    name: str
    version: int
    directory: Path
    files: dict[str, dict[str, int | str]]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(int(each["size"]) for each in self.files.values())


def prefix(version: int) -> str:
    """What the name of a version begins with."""
    return f"v{version}-"


def publish(into: Path, version: int, adapter: Path) -> Published:
    """The adapter below `into`, under the name of its content. Its files are linked where that can be."""
    files = {name: _described(adapter / name) for name in FILES}
    digest = xxhash.xxh128_hexdigest("".join(str(each["xxh128"]) for each in files.values()).encode())
    name = f"{prefix(version)}{digest[:8]}"
    directory = into / name
    directory.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        _put(adapter / file, directory / file)
    return Published(name, version, directory, files)


def sweep(directory: Path, *, keep: str) -> None:
    """Remove every other version."""
    for each in directory.iterdir():
        if each.name != keep and _NAME.match(each.name):
            shutil.rmtree(each, ignore_errors=True)


def file_asked(path: str, directory: Path) -> Path | None:
    """The file that a request for /adapters/NAME/FILE means, if there is such a one."""
    name, _, file = path.removeprefix(ROUTE).partition("/")
    if not (path.startswith(ROUTE) and _NAME.match(name) and file in FILES):
        return None
    found = directory / name / file
    return found if found.is_file() else None


def _described(path: Path) -> dict[str, int | str]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {"size": len(content), "xxh128": xxhash.xxh128_hexdigest(content)}
    # ValueError: of a file with nothing in it.
    except (OSError, ValueError) as error:
        raise RolloutError(f"the adapter cannot be handed over: {error}") from None


def _put(source: Path, target: Path) -> None:
    if source == target:
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
