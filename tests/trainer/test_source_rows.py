"""Which rows an entry takes (limit, shuffle, shards), rows of data bases, and what changes their identity."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import sources
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.sources import sql
from anneal_trainer.errors import InputError, TemporaryError
from trainer.reading import ROWS, read


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Two files with the rows 0 to 99, a blank line and a broken one."""
    for name, part in (("a", range(50)), ("b", range(50, 100))):
        lines = [json.dumps({"n": number}) for number in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*lines[:20], "", *lines[20:]]))
    return tmp_path


def taken(path: Path, **options: Any) -> list[int]:
    """The rows that are taken."""
    return [row["n"] for row in read(str(path), **options).rows]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"limit": 3}, [0, 1, 2]),
        ({"limit": 60}, list(range(60))),
        ({"limit": 1000}, list(range(100))),
        ({"shards": 30}, [0, 30, 60, 90]),
        ({"shards": 30, "shardsIdx": 29}, [29, 59, 89]),
        ({"shards": 10, "shardsIdx": 1, "limit": 2}, [1, 11]),
    ],
)
def test_rows_are_counted_over_all_files(numbers: Path, options: dict[str, Any], expected: list[int]) -> None:
    """Whatever they are spread over."""
    assert taken(numbers, **options) == expected


def test_shards_are_all_rows_once(numbers: Path) -> None:
    """No row is in two of them or in none."""
    shards = [taken(numbers, shards=7, shardsIdx=index) for index in range(7)]
    assert sorted(number for shard in shards for number in shard) == list(range(100))


def test_shuffle_takes_rows_from_all_over(numbers: Path) -> None:
    """As many as `limit`, each once, in the order of the source, the same for the same seed."""
    dataset = DatasetSpec.model_validate({"source": str(numbers), "limit": 20, "shuffle": True})
    first, again, other = (
        [placed.row["n"] for placed in sources.rows(dataset, {}, Problems(), seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again == sorted(set(first)) != other
    assert len(first) == 20
    assert first[-1] > 50


def test_a_limit_reads_no_further(numbers: Path) -> None:
    """A broken row beyond it is nobody's problem; one before it is."""
    with (numbers / "a.jsonl").open("a") as stream:
        stream.write("\nbroken")
    assert read(str(numbers), limit=10).problems == []
    assert len(read(str(numbers), limit=60).problems) == 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A claim with chats.db: a table of ROWS."""
    with sqlite3.connect(tmp_path / "chats.db") as connection:
        connection.execute("create table rows (n integer, text text)")
        connection.executemany("insert into rows values (?, ?)", enumerate(row["text"] for row in ROWS))
    connection.close()
    return tmp_path


QUERY = "select text from rows order by n"


def test_a_file_of_sqlite_gives_the_rows_of_a_query(database: Path) -> None:
    """With their numbers; a colon in the SQL is one."""
    found = read("volume://claim/chats.db", {"claim": database}, query=QUERY)
    assert (found.rows, found.places[2]) == (ROWS, "volume://claim/chats.db, row 3")
    timed = read("volume://claim/chats.db", {"claim": database}, query="select '10:30 :x' as text")
    assert timed.rows == [{"text": "10:30 :x"}]


@pytest.mark.parametrize("source", ["sql://$(CHATS_URL)", "sqlite:///$(CHATS_PATH)"])
def test_a_url_comes_from_the_environment(database: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """The whole of it, or a part; it is in no place."""
    monkeypatch.setenv("CHATS_URL", f"sqlite:///{database}/chats.db")
    monkeypatch.setenv("CHATS_PATH", f"{database}/chats.db")
    found = read(source, query=QUERY)
    assert (found.rows, found.places[0]) == (ROWS, f"{source}, row 1")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select absent from rows", "no such column: absent"),
        ("select 1 from absent", "no such table: absent"),
        ("selec", "syntax error"),
        ("delete from rows", "readonly database"),
    ],
)
def test_a_query_that_fails_is_told_in_the_data_bases_words(database: Path, query: str, words: str) -> None:
    """Exit code 66; the data base is read only."""
    with pytest.raises(InputError, match=words) as raised:
        read("volume://claim/chats.db", {"claim": database}, query=query)
    assert str(raised.value).startswith(f'volume://claim/chats.db: query "{query}": ')


def test_a_data_base_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """SQLite would open an empty one in its place."""
    with pytest.raises(InputError, match="there is no such file"):
        read(f"sqlite:///{tmp_path}/absent.db", query=QUERY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("postgresql://u:$(DB_PASSWORD)@127.0.0.1:1/chats", TemporaryError, "refused"),
        ("mysql://u:$(DB_PASSWORD)@127.0.0.1:1/chats", TemporaryError, "refused"),
        ("mssql://u:$(DB_PASSWORD)@127.0.0.1:1/chats", InputError, "there is no driver for it here"),
        ("sql://$(NO_URL)", InputError, "is no SQLAlchemy URL"),
        ("sql://$(ABSENT)", InputError, "the environment has no ABSENT"),
    ],
)
def test_a_server_that_cannot_be_asked_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], words: str
) -> None:
    """Nobody listens: tried again. No driver, no variable: not."""
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word:1")
    monkeypatch.setenv("NO_URL", "hunter2")
    with pytest.raises(error, match=words) as raised:
        read(source, query="select 1")
    assert source in str(raised.value)
    assert "p@ss" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_other_rows_of_a_query_are_other_data(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data base says nothing of its age: its rows are the sign."""
    monkeypatch.setenv("CHATS_URL", f"sqlite:///{database}/chats.db")
    dataset = DatasetSpec.model_validate({"source": "sql://$(CHATS_URL)", "query": QUERY})
    first, same = (sql.content_digest(dataset, {}) for _ in range(2))
    with sqlite3.connect(database / "chats.db") as connection:
        connection.execute("update rows set text = 'other' where n = 1")
    connection.close()
    assert first == same != sql.content_digest(dataset, {})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"source": "./d.jsonl", "query": "select 1"}, "query is the SQL of a data base"),
        ({"source": "./d.db"}, "query is the SQL of a data base"),
        ({"source": "s3://data/d.db", "query": "select 1"}, "query is the SQL of a data base"),
        ({"source": "./d.jsonl", "subset": "en"}, "subset is the configuration"),
        ({"source": "hf://org/rows", "dsType": "csv"}, "this source is no file"),
        ({"source": "https://host/d.csv", "dataFiles": ["d.csv"]}, "this source has nothing below it"),
        ({"source": "hf://org/rows", "subset": "en", "dataFiles": ["d.csv"]}, "write one of them"),
        ({"source": "./d", "shuffle": True}, "write limit too"),
        ({"source": "./d", "shards": 3, "shardsIdx": 3}, "it must be less than shards"),
        ({"source": "./d", "shardsIdx": 0}, "it must be less than shards"),
        ({"source": "./d", "dataFiles": ["../e"]}, "String should match pattern"),
    ],
)
def test_an_option_that_would_not_act_is_refused(entry: dict[str, Any], words: str) -> None:
    """None is silently ignored."""
    with pytest.raises(ValueError, match="validation error") as raised:
        DatasetSpec.model_validate(entry)
    assert words in repr(raised.value.errors())  # type: ignore[attr-defined]
