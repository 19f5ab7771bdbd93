"""Sources elsewhere, each from a server on loopback that speaks the real protocol: web, S3, the hub."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anneal_api import FineTuneJob
from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import identity, sources
from anneal_trainer.data.problems import Problems
from anneal_trainer.errors import InputError, TemporaryError, TrainerError
from trainer import servers
from trainer.reading import ROWS, read

JSONL = "\n".join(json.dumps(row) for row in ROWS).encode()


def parquet_bytes() -> bytes:
    """ROWS as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


FILES = {
    "d.jsonl": JSONL,
    "d.jsonl.gz": gzip.compress(JSONL),
    "d.jsonl.bz2": bz2.compress(JSONL),
    "d.json": json.dumps(ROWS).encode(),
    "d.csv": "text\none\ntwo ü\nthree\n".encode(),
    "d.parquet": parquet_bytes(),
    "signed/d.jsonl": JSONL,
}


@pytest.fixture
def web() -> Iterator[Callable[..., str]]:
    """Starts a web server with FILES; its options are those of `servers.Web`."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            servers.serving(type("Handler", (servers.Web,), {"files": FILES, **options}))
        )


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_a_file_of_a_web_server_gives_its_rows(web: Callable[..., str], name: str, ranges: bool) -> None:  # noqa: FBT001
    """Whether or not the server can send parts of files."""
    found = read(f"{web(ranges=ranges)}/{name}")
    assert (found.rows, found.problems) == (ROWS, [])
    assert all(f"/{name}, " in place for place in found.places)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        pytest.param("absent.jsonl", InputError, "there is no such file", id="404"),
        pytest.param("403.jsonl", InputError, "access is denied", id="403"),
        pytest.param("401.jsonl", InputError, r"write it in the source's query as \$\(NAME\)", id="401"),
        pytest.param("503.jsonl", TemporaryError, "cannot be reached", id="503"),
        pytest.param("429.jsonl", TemporaryError, "cannot be reached", id="429"),
    ],
)
def test_a_refusal_of_a_web_server_says_what_helps(
    web: Callable[..., str], path: str, error: type[TrainerError], words: str
) -> None:
    """What only a person can mend ends the job; what may pass is tried again."""
    with pytest.raises(error, match=words) as raised:
        read(f"{web()}/{path}")
    assert path in str(raised.value)


def test_a_connection_that_breaks_is_no_end_of_the_data(web: Callable[..., str]) -> None:
    """Half a file is never taken for a whole one."""
    with pytest.raises(TemporaryError, match="cannot be reached"):
        read(f"{web(cut=True)}/d.jsonl")


def test_a_server_that_is_not_there_is_tried_again(web: Callable[..., str]) -> None:
    """Nobody listens: exit code 75."""
    address = web().rsplit(":", 1)[0] + ":1"
    with pytest.raises(TemporaryError, match="cannot be reached"):
        read(f"{address}/d.jsonl")


def test_a_signed_query_comes_from_the_environment(web: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value is in no place, share or error."""
    source = f"{web()}/signed/d.jsonl?token=$(DATA_TOKEN)"
    with pytest.raises(InputError, match="the environment has no DATA_TOKEN: name a Secret"):
        read(source)
    monkeypatch.setenv("DATA_TOKEN", "hunter2")
    found = read(source)
    assert found.rows == ROWS
    assert found.places[0] == f"{source}, line 1"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server with the bucket `data`; the environment is that of a pod with a Secret."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    patch = pytest.MonkeyPatch()
    for name, value in values.items():
        patch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    for name, body in FILES.items():
        client.put_object(Bucket="data", Key=name, Body=body)
    for part, row in enumerate(ROWS):
        client.put_object(Bucket="data", Key=f"parts/part-{part}.jsonl", Body=json.dumps(row).encode())
    client.put_object(Bucket="data", Key="parts/_SUCCESS", Body=b"")
    yield values["AWS_ENDPOINT_URL"]
    patch.undo()
    server.stop()


@pytest.mark.parametrize("name", [*FILES, "parts", "parts/part-*.jsonl", "**/part-?.jsonl"])
@pytest.mark.usefixtures("bucket")
def test_objects_of_a_bucket_give_their_rows(name: str) -> None:
    """One object, a prefix, a glob."""
    found = read(f"s3://data/{name}")
    assert (found.rows, found.problems) == (ROWS, [])
    assert all(place.startswith("s3://data/") for place in found.places)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.usefixtures("bucket")
def test_a_worker_process_reads_its_share_of_an_object(start: str) -> None:
    """Though the parent has connections and threads of its own by then."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    dataset, problems = DatasetSpec.model_validate({"source": "s3://data/d.parquet"}), Problems()
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as pool:
        [share] = sources.chunks(dataset, {}, problems)
        assert pool.submit(rows_of, share).result(timeout=60) == ROWS


def rows_of(share: sources.Chunk) -> list[dict[str, Any]]:
    """What a worker gives back."""
    return [placed.row for placed in share.read(Problems())]


@pytest.mark.usefixtures("bucket")
def test_data_files_are_below_the_prefix() -> None:
    """Only these, in this order."""
    found = read("s3://data/parts", dataFiles=["part-2.jsonl", "part-0.jsonl"])
    assert found.rows == [ROWS[2], ROWS[0]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://data/parts/absent.jsonl", "there is no such file; s3://data/parts holds _SUCCESS, part-0.jsonl"),
        ("s3://nobody/d.jsonl", "there is no such file"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_an_object_that_is_not_there_is_named(source: str, words: str) -> None:
    """With what is beside it."""
    with pytest.raises(InputError, match=words) as raised:
        read(source)
    assert source in str(raised.value)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_without_permission_names_the_secret() -> None:
    """A server that answers 403 to everything, as S3 does with wrong keys."""

    class Denied(servers.Quiet):
        def do_GET(self) -> None:  # noqa: N802
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

    with servers.serving(Denied) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        fresh()
        with pytest.raises(
            InputError, match=r"access is denied.*name a Secret in spec.secrets that has AWS_ACCESS_KEY"
        ):
            read("s3://data/d.jsonl")
    fresh()


def fresh() -> None:
    """Forget file systems that were made with another environment."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


def signs(source: str, **options: Any) -> list[list[Any]]:
    """The identity of one source."""
    job = FineTuneJob.model_validate(
        {
            "metadata": {"name": "a"},
            "spec": {"model": {"source": "volume://m/model"}, "datasets": [{"source": source, **options}]},
        }
    )
    return identity.sources_identity(job.spec, {}, Path("/nowhere"))


@pytest.mark.usefixtures("bucket")
def test_an_object_that_is_written_again_is_other_data() -> None:
    """Same name and size, other content: another ETag."""
    import boto3

    client = boto3.client("s3")
    client.put_object(Bucket="data", Key="changing.jsonl", Body=b'{"text": "a"}')
    first, same = signs("s3://data/changing.jsonl"), signs("s3://data/changing.jsonl")
    client.put_object(Bucket="data", Key="changing.jsonl", Body=b'{"text": "b"}')
    assert first == same != signs("s3://data/changing.jsonl")


@pytest.mark.parametrize("etag", [True, False], ids=["etag", "content"])
def test_a_web_file_that_changes_is_other_data(web: Callable[..., str], etag: bool) -> None:  # noqa: FBT001
    """By its ETag, or by its content where the server sends none."""
    files = {"d.jsonl": b'{"text": "a"}'}
    address = web(files=files, etag=etag)
    first, same = signs(f"{address}/d.jsonl"), signs(f"{address}/d.jsonl")
    files["d.jsonl"] = b'{"text": "b"}'
    assert first == same != signs(f"{address}/d.jsonl")


_HUB_SCRIPT = """
import json, sys
from pathlib import Path
from anneal_trainer.errors import TrainerError
from trainer.reading import read
from trainer.test_remote_sources import signs
for line in sys.stdin:
    request = json.loads(line)
    try:
        found = read(**request)
        answer = {"rows": found.rows, "places": found.places, "identity": signs(**request)}
    except TrainerError as error:
        answer = {"error": str(error), "code": error.exit_code}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Reads in another process: the hub's address is fixed when its library is imported."""
    files = {
        "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        b"  - split: test\n    path: data/test.jsonl\n---\n# rows\n",
        "data/train-0.jsonl": b"\n".join(json.dumps(row).encode() for row in ROWS[:2]),
        "data/train-1.jsonl": json.dumps(ROWS[2]).encode(),
        "data/test.jsonl": b'{"text": "test"}',
        "broken.jsonl": b'{"text": "fine"}\n{"text": \n',
    }
    home = tmp_path_factory.mktemp("hub")
    handler = type("Handler", (servers.Hub,), {"repo": "org/rows", "files": files})

    with servers.serving(handler) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", _HUB_SCRIPT]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            asks, answers = reader.stdin, reader.stdout

            def ask(**request: Any) -> dict[str, Any]:
                print(json.dumps(request), file=asks, flush=True)
                answer: dict[str, Any] = json.loads(answers.readline())
                return answer

            yield ask
            asks.close()


def test_a_data_set_of_the_hub_is_its_split(hub: Callable[..., dict[str, Any]]) -> None:
    """As its card says; known by its commit."""
    found = hub(source="hf://org/rows")
    assert found["rows"] == ROWS
    assert found["places"][2] == "hf://org/rows, row 3"
    assert found["identity"] == [["hf://org/rows", servers.COMMIT]]
    assert hub(source="hf://org/rows", split="test")["rows"] == [{"text": "test"}]


def test_files_of_the_hub_are_read_like_any_others(hub: Callable[..., dict[str, Any]]) -> None:
    """With the line of each row."""
    assert hub(source="hf://org/rows/data/train-*.jsonl")["rows"] == ROWS
    found = hub(source="hf://org/rows", dataFiles=["data/train-1.jsonl"])
    assert (found["rows"], found["places"]) == ([ROWS[2]], ["hf://org/rows/data/train-1.jsonl, line 1"])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"source": "hf://org/absent"}, "name a Secret in spec.secrets that has HF_TOKEN"),
        ({"source": "hf://org/gated"}, "name a Secret in spec.secrets that has HF_TOKEN"),
        ({"source": "hf://org/rows", "split": "valid"}, "train"),
        ({"source": "hf://org/rows", "split": "train[:2]"}, "a part of a split is written with limit"),
        ({"source": "hf://org/rows", "revision": "v9"}, "hf://org/rows: there is no such"),
        ({"source": "hf://org/rows/data/absent.jsonl"}, "there is no such file; hf://org/rows/data holds test.jsonl"),
    ],
    ids=["absent", "gated", "split", "slice", "revision", "file"],
)
def test_what_the_hub_does_not_have_is_named(
    hub: Callable[..., dict[str, Any]], request_: dict[str, Any], words: str
) -> None:
    """Exit code 66, with what helps."""
    found = hub(**request_)
    assert found.get("code") == 66, found
    assert request_["source"] in found["error"]
    assert words in found["error"]


def test_the_secret_of_a_source_is_not_in_its_manifest() -> None:
    """The grammar has no place for it."""
    with pytest.raises(ValueError, match="is not a source"):
        DatasetSpec.model_validate({"source": "https://user:word@host/d.jsonl"})
