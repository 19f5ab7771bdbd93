"""Where models and data come from: one small grammar of URIs, parsed once, resolved to a path in one place.

A model is `hf://ORG/NAME`, `volume://CLAIM/PATH`, or a local path that only `anneal run` can read. Data may also be an
object in S3, Google or Azure storage, a file on a web server, or the rows of an SQL query. No source holds a
credential: the grammar has no place for a password, but for `$(NAME)`, which stands for an environment variable that
a Secret fills. Not here: reading anything.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import WithJsonSchema

# Written without a backslash: the patterns go into CEL string literals as they are.
HF = r"hf://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*"
HF_FILE = r"hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_*?][A-Za-z0-9._=+@*?-]*)+"
# The result of another job of the namespace.
JOB = r"job://(finetunejob|rlhfjob)/[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
VOLUME = r"volume://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_*?][A-Za-z0-9._=+@*?-]*)+"
BUCKET = r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_*?][A-Za-z0-9._=+@*?,%-]*)+"
# A host and no user: credentials in a URL would be in the spec. A signed query is written $(NAME).
WEB = r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._~%+=@,:-]+)+([?]([A-Za-z0-9._~%+=,:/&-]|[$][(][A-Z_][A-Z0-9_]*[)])+)?"
DIALECTS = ("postgresql", "mysql", "mariadb", "mssql", "oracle", "sqlite")
_ENV = "[$][(][A-Z_][A-Z0-9_]*[)]"
# The password is a variable or absent; an `@` can only be the one after it.
SQL = rf"({'|'.join(DIALECTS)})([+][a-z0-9_]+)?://(([A-Za-z0-9._-]+|{_ENV})(:{_ENV})?@)?([A-Za-z0-9._:/?=&%-]|{_ENV})+"
SQL_URL = rf"sql://{_ENV}"
# Of a volume or here: SQLite reads no other place.
DATABASE_FILE = "^(volume:|[./]).*[.](sqlite|sqlite3|db)$"
CLUSTER_SOURCE = rf"^({HF}|{VOLUME}|{JOB})$"
CLUSTER_DATA_SOURCE = rf"^({HF}|{HF_FILE}|{VOLUME}|{BUCKET}|{WEB}|{SQL}|{SQL_URL})$"
ACCEPTED = "hf://ORG/NAME, volume://CLAIM/PATH, job://KIND/NAME, or, for `anneal run` only, a local path that starts with / or ./"
ACCEPTED_DATA = (
    "hf://ORG/NAME[/FILE], volume://CLAIM/PATH, s3://, gs:// or az://BUCKET/PATH, https://HOST/FILE, "
    "an SQLAlchemy URL whose password is $(NAME), sql://$(NAME), "
    "or, for `anneal run` only, a local path that starts with / or ./"
)

Scheme = Literal["hf", "volume", "local", "job", "s3", "gs", "az", "http", "sql"]
MODEL_SCHEMES: tuple[Scheme, ...] = ("hf", "volume", "local", "job")


@dataclass(frozen=True)
class Source:
    """A parsed source: `claim` is set for volumes only; `path` is what follows the scheme and claim.

    The `path` of a job is KIND/NAME, the kind in lower case. For data of an object store, a web server or a data base, `path` is the whole URL: the library wants it so.
    """

    scheme: Scheme
    path: str
    claim: str = ""


def parse_source(text: str) -> Source:
    """Parse a source of a model or of data; ValueError names what is accepted."""
    if re.fullmatch(f"{HF}|{HF_FILE}", text):
        return Source("hf", text.removeprefix("hf://"))
    if re.fullmatch(VOLUME, text):
        claim, _, path = text.removeprefix("volume://").partition("/")
        return Source("volume", path, claim)
    if text.startswith(("/", "./", "../")):
        return Source("local", text)
    if re.fullmatch(JOB, text):
        return Source("job", text.removeprefix("job://"))
    for pattern, scheme in _URLS:
        if re.fullmatch(pattern, text):
            return Source(scheme or _BUCKETS[text[:2]], text)
    raise ValueError(f"{text!r} is not a source; write {ACCEPTED_DATA}")


_BUCKETS: dict[str, Scheme] = {"s3": "s3", "gs": "gs", "az": "az"}
_URLS: tuple[tuple[str, Scheme | None], ...] = ((BUCKET, None), (WEB, "http"), (f"{SQL}|{SQL_URL}", "sql"))


def _checked(text: str) -> str:
    try:
        known = text_scheme(text) in MODEL_SCHEMES
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{text!r} is not a source of a model; write {ACCEPTED}")
    return text


def _checked_data(text: str) -> str:
    if text_scheme(text) == "job":
        raise ValueError(f"{text!r} is a model, not data; write {ACCEPTED_DATA}")
    return text


def text_scheme(text: str) -> Scheme:
    """What kind of place a source names."""
    return parse_source(text).scheme


def is_database(text: str) -> bool:
    """Whether a source's rows are those of a query: a data base server, or a file of SQLite."""
    return bool(re.fullmatch(f"{SQL}|{SQL_URL}", text) or re.search(DATABASE_FILE, text))


def is_whole_hub_dataset(text: str) -> bool:
    """Whether the hub's own description of the data set says which files are read, and how."""
    return bool(re.fullmatch(r"hf://[^/]+(/[^/]+)?", text))


# The API server accepts only what a pod can read; `anneal run` also takes local paths.
SourceText = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=1024)],
    AfterValidator(_checked),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024}),
]
DataSourceText = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=1024)],
    AfterValidator(_checked_data),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1024}),
]
CLUSTER_DATA_SOURCE_MESSAGE = (
    "must be hf://ORG/NAME[/FILE], volume://CLAIM/PATH, s3://, gs:// or az://BUCKET/PATH, https://HOST/FILE, "
    "or an SQLAlchemy URL whose password is $(NAME), on a cluster; a local path works with `anneal run` only"
)
CLUSTER_SOURCE_MESSAGE = "must be hf://ORG/NAME, volume://CLAIM/PATH or job://KIND/NAME (finetunejob or rlhfjob) on a cluster; a local path works with `anneal run` only"


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
