"""Google's and Azure's storage (a URL, a listing, a range and a refusal each), and preparing from elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from anneal_api import ProgressReport
from anneal_trainer.errors import DataError, InputError, StaleDataError
from anneal_trainer.prepare import prepare
from anneal_trainer.reporter import Reporter, silent
from anneal_trainer.train import find_ready
from trainer import clouds, servers
from trainer.reading import ROWS, read
from trainer.test_remote_sources import FILES, signs
from trainer.training import alpaca_rows, context, job, write_jsonl

PARTS = {f"parts/part-{index}.jsonl": json.dumps(row).encode() for index, row in enumerate(ROWS)}


@pytest.fixture(params=["gs", "az"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """`gs://data` or `az://data`, with the environment of a pod that has its Secret."""
    kind = clouds.Google if request.param == "gs" else clouds.Azure
    handler = type("Handler", (kind,), {"files": {**FILES, **PARTS}})
    with servers.serving(handler) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", _connection(address))
        _read_environment()
        yield f"{request.param}://{clouds.BUCKET}"
        _forget(request.param)


def _connection(address: str) -> str:
    return f"DefaultEndpointsProtocol=http;AccountName=acc;AccountKey=a2V5;BlobEndpoint={address}/acc;"


def _forget(protocol: str) -> None:
    """The next test has another address."""
    from fsspec import get_filesystem_class

    get_filesystem_class(protocol).clear_instance_cache()


def _read_environment() -> None:
    """As a process does when it starts."""
    from fsspec import config

    config.set_conf_env(config.conf)


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.parquet", "parts", "parts/part-*.jsonl"])
def test_objects_of_a_store_give_their_rows(store: str, name: str) -> None:
    """One object, compressed, read in ranges, a prefix, a glob."""
    found = read(f"{store}/{name}")
    assert (found.rows, found.problems) == (ROWS, [])
    assert found.places[0].startswith(f"{store}/{name.split('part-', maxsplit=1)[0]}")


def test_an_absent_object_is_named(store: str) -> None:
    """Exit code 66."""
    with pytest.raises(InputError, match="there is no such file") as raised:
        read(f"{store}/parts/absent.jsonl")
    assert f"{store}/parts/absent.jsonl" in str(raised.value)


def test_an_object_is_known_by_what_the_store_says_of_its_content(store: str) -> None:
    """A sign of the content, and no date."""
    [[shown, size, sign]] = signs(f"{store}/d.jsonl")
    assert (shown, size) == (f"{store}/d.jsonl", len(FILES["d.jsonl"]))
    assert sign.split(" ", 1)[0].lower() in ("etag", "md5hash", "content_md5")


def test_training_asks_no_server_for_what_was_prepared(storage: Path) -> None:
    """Data of a web server is prepared once, used again while it is the same, and trained on when the server is gone."""
    files = {"d.jsonl": "".join(f"{json.dumps(row)}\n" for row in alpaca_rows()).encode()}
    with servers.serving(type("Handler", (servers.Web,), {"files": files})) as address:
        made = job(datasets=[{"source": f"{address}/d.jsonl"}])
        first, again = (prepare(context(storage, made), Reporter(ProgressReport(), silent)) for _ in range(2))
        files["d.jsonl"] = files["d.jsonl"].replace(b"red", b"tea")
        other = prepare(context(storage, made), Reporter(ProgressReport(), silent))
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert find_ready(context(storage, made)).prepared == other.prepared
    (storage / "model/tokenizer.json").touch()
    with pytest.raises(StaleDataError, match=r"tokenizer\.json"):
        find_ready(context(storage, made))


def test_mixed_columns_are_told_by_file(storage: Path) -> None:
    """A shard with other columns does not pass for the rows of the first."""
    for name, row in (("a", {"text": "red"}), ("b", {"content": "red"})):
        write_jsonl(storage / f"mixed/{name}.jsonl", [row])
    made = job(datasets=[{"source": "volume://runs/mixed"}])
    with pytest.raises(DataError, match=r"mixed/b\.jsonl, line 1: .*text"):
        prepare(context(storage, made), Reporter(ProgressReport(), silent))
