"""Where models and data come from: one small grammar of URIs, parsed once, resolved to a path in one place.

`hf://ORG/NAME[/FILE]`, `volume://CLAIM/PATH`, or a local path that only `anneal run` can read. Not here: reading anything.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import WithJsonSchema

HF = r"hf://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*"
VOLUME = r"volume://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_*?][A-Za-z0-9._=+@*?-]*)+"
CLUSTER_SOURCE = rf"^({HF}|{VOLUME})$"
ACCEPTED = "hf://ORG/NAME, volume://CLAIM/PATH, or, for `anneal run` only, a local path that starts with / or ./"


@dataclass(frozen=True)
class Source:
    """A parsed source: `claim` is set for volumes only; `path` is what follows the scheme and claim."""

    scheme: Literal["hf", "volume", "local"]
    path: str
    claim: str = ""


def parse_source(text: str) -> Source:
    """Parse a source; ValueError names what is accepted."""
    if re.fullmatch(HF, text):
        return Source("hf", text.removeprefix("hf://"))
    if re.fullmatch(VOLUME, text):
        claim, _, path = text.removeprefix("volume://").partition("/")
        return Source("volume", path, claim)
    if text.startswith(("/", "./", "../")):
        return Source("local", text)
    raise ValueError(f"{text!r} is not a source; write {ACCEPTED}")


def _checked(text: str) -> str:
    parse_source(text)
    return text


# The API server accepts only what a pod can read; `anneal run` also takes local paths.
SourceText = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=1024)],
    AfterValidator(_checked),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024}),
]
CLUSTER_SOURCE_MESSAGE = (
    "must be hf://ORG/NAME or volume://CLAIM/PATH on a cluster; a local path works with `anneal run` only"
)


def is_local(text: str) -> bool:
    """Whether only `anneal run` can read this source."""
    return text.startswith(("/", "./", "../"))


class UnmappedVolumeError(LookupError):
    """A `volume://` source whose claim has no directory here."""

    def __init__(self, claim: str) -> None:
        super().__init__(f"no directory is given for the claim {claim!r}: add --volume {claim}=DIR")
        self.claim = claim


def local_path(text: str, volumes: dict[str, Path]) -> Path:
    """The path of a `volume://` or local source; `volumes` maps claims to directories.

    `..` cannot occur in a volume path (the grammar has no such segment), so the result stays in its claim.
    """
    source = parse_source(text)
    if source.scheme == "local":
        return Path(source.path).expanduser()
    if source.scheme != "volume":
        raise ValueError(f"{text!r} is not on a file system")
    if source.claim not in volumes:
        raise UnmappedVolumeError(source.claim)
    return volumes[source.claim] / PurePosixPath(source.path)
