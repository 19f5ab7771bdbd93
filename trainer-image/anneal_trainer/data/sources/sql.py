"""Rows of a query: SQLAlchemy connects, the data base keeps the cursor, a few thousand rows are here at a time.

A password is never part of a source: `$(NAME)` in its place stands for an environment variable, put in after the URL is
taken apart, so that it may hold any character. What a data base says is told without the URL. Not here: drivers; the
image has those of PostgreSQL, MySQL and SQLite.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anneal_api.datasource import DataSource
from anneal_api.sources import local_path, parse_source
from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.sources.placed import Row
from anneal_trainer.data.sources.streams import expanded
from anneal_trainer.errors import InputError, TemporaryError

_AT_ONCE = 2000
# Bare names of the dialects whose default driver is one that must be compiled.
_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def rows(dataset: DataSource, volumes: dict[str, Path]) -> Iterator[tuple[int, Row]]:
    """Every row of the result with its number."""
    from sqlalchemy import text

    assert dataset.query is not None, "a rule of the entry"
    # `:name` would be a parameter that nobody gives.
    query = text(dataset.query.replace(":", r"\:"))
    with _told(dataset.source, dataset.query), _engine(dataset, volumes).connect() as connection:
        result = connection.execution_options(stream_results=True, yield_per=_AT_ONCE).execute(query)
        if not result.returns_rows:
            raise InputError(f"{dataset.source}: query gives no rows: write a SELECT")
        for number, row in enumerate(result.mappings(), start=1):
            yield number, dict(row)


def content_digest(dataset: DataSource, volumes: dict[str, Path]) -> str:
    """sha256 over all rows: a data base has no other sign of change."""
    total = hashlib.sha256()
    for _, row in rows(dataset, volumes):
        total.update(json.dumps(row, sort_keys=True, default=str).encode())
    return total.hexdigest()


def _engine(dataset: DataSource, volumes: dict[str, Path]) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        return create_engine(_url(dataset.source, volumes), poolclass=NullPool)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InputError(
            f"{dataset.source}: there is no driver for it here ({error}); "
            "there is one for postgresql://, mysql:// and sqlite://"
        ) from error
    except ArgumentError as error:
        raise InputError(f"{dataset.source}: what stands for $(NAME) in it is no SQLAlchemy URL") from error


def _url(text: str, volumes: dict[str, Path]) -> Any:
    from sqlalchemy import make_url

    source = parse_source(text)
    if source.scheme in ("volume", "local"):
        return _file(text, local_path(text, volumes).absolute())
    if text.startswith("sql://"):
        url = make_url(expanded(text.removeprefix("sql://"), text))
    else:
        url = make_url(text)
        url = url.set(
            username=url.username and expanded(url.username, text),
            password=url.password and expanded(str(url.password), text),
            host=url.host and expanded(url.host, text),
            database=url.database and expanded(url.database, text),
        )
    if url.get_backend_name() == "sqlite" and url.database and not url.query:
        return _file(text, Path(url.database))
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _file(text: str, path: Path) -> Any:
    from sqlalchemy import URL

    if not path.is_file():
        raise InputError(f"{text}: there is no such file")
    # Read only: a query that writes is refused, and no journal is left beside the file.
    return URL.create("sqlite", database=f"file:{path}", query={"mode": "ro", "uri": "true"})


@contextmanager
def _told(source: str, query: str) -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

    try:
        yield
    except OperationalError as error:
        # Without a statement it is the connection that failed.
        place = f"query {shown(query)}: " if error.statement else ""
        message = f"{source}: {place}{_words(error)}"
        raise (TemporaryError if _may_pass(error) else InputError)(message) from error
    except DBAPIError as error:
        raise InputError(f"{source}: query {shown(query)}: {_words(error)}") from error
    except SQLAlchemyError as error:
        raise InputError(f"{source}: {type(error).__name__}: {str(error).splitlines()[0]}") from error


def _may_pass(error: Any) -> bool:
    """Whether the connection failed, and not for its password, rather than the query."""
    words = str(error.orig).lower()
    passing = (
        "connection refused",
        "could not connect",
        "can't connect",
        "timed out",
        "timeout",
        "closed the connection",
    )
    return error.connection_invalidated or any(word in words for word in (*passing, "starting up", "too many"))


def _words(error: Any) -> str:
    return " ".join(str(error.orig).split())[:400]
