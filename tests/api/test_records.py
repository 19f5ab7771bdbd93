"""Names, paths and termination messages hold for every input people bring."""

import re

import pytest

from anneal_api import Outcome, TerminationMessage
from anneal_api.base import quantity_value
from anneal_api.datasetreport import DatasetReport, DataWarning, LengthBin
from anneal_api.model import ModelSpec
from anneal_api.modelrecord import record_of
from anneal_api.names import attempt_name, base_name, owner_label, prepare_name, run_directory, sanitized
from anneal_api.sources import CLUSTER_DATA_SOURCE, local_path, parse_source
from api.llama import shape

DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


@pytest.mark.parametrize("name", ["a", "llama.3.1-8b", "8b", "x" * 253, "a." * 100 + "b", "---"], ids=lambda n: n[:12])
def test_child_names_are_legal_whatever_the_job_is_called(name: str) -> None:
    """Dots, digits in front and 253 characters all give DNS-1035 labels short enough for pod suffixes."""
    for child in (base_name(name, "uid"), attempt_name(name, "uid", 128), prepare_name(name, "uid", "abcdef0123")):
        assert DNS_1035.match(child)
        assert len(f"{child}-worker-999") <= 63
    assert len(owner_label(name)) <= 63
    assert DNS_1035.match(sanitized(name))


def test_a_job_created_again_shares_nothing() -> None:
    """Another UID gives another name and run directory."""
    assert base_name("a", "uid-1") != base_name("a", "uid-2")
    assert run_directory("a", "uid-1") != run_directory("a", "uid-2")


@pytest.mark.parametrize(
    "text",
    [
        "volume://runs/../etc/passwd",
        "volume://runs/",
        "volume://runs",
        "hf://",
        "hf://a//b",
        "s3://b",
        "s3://b/../k",
        "https://user:pw@host/d.jsonl",
        "postgresql://user:pw@host/db",
        "data.jsonl",
        "",
    ],
)
def test_sources_that_leave_their_place_are_refused(text: str) -> None:
    """The grammar has no `..`, so a manifest cannot read beside its claim."""
    with pytest.raises(ValueError, match="is not a source"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("hf://squad", "hf"),
        ("hf://org/rows/data/*.parquet", "hf"),
        ("volume://runs/a/**/x-?.jsonl.gz", "volume"),
        ("s3://my.bucket/a/b=1/part-*.jsonl", "s3"),
        ("gs://bucket/a", "gs"),
        ("az://container/a/b.csv", "az"),
        ("https://host:8443/a%20b/d.jsonl?sig=$(SIGNATURE)&x=1", "http"),
        ("http://files.data.svc/d.jsonl", "http"),
        ("postgresql://reader:$(DB_PASSWORD)@db.prod:5432/chats", "sql"),
        ("mysql+pymysql://$(DB_USER):$(DB_PASSWORD)@db/chats?charset=utf8mb4", "sql"),
        ("sql://$(CHATS_URL)", "sql"),
        ("./data.jsonl", "local"),
    ],
)
def test_every_kind_of_place_has_its_grammar(text: str, scheme: str) -> None:
    """Data may come from any of them; what the API server matches is the same, but for local paths."""
    assert parse_source(text).scheme == scheme
    assert bool(re.match(CLUSTER_DATA_SOURCE, text)) == (scheme != "local")


@pytest.mark.parametrize("text", ["s3://bucket/model", "https://host/model", "sql://$(URL)", "az://c/model"])
def test_a_model_comes_from_the_hub_or_a_volume(text: str) -> None:
    """What is trained must be there before a pod that takes a GPU, as files."""
    with pytest.raises(ValueError, match="is not a source of a model; write hf://"):
        ModelSpec.model_validate({"source": text})


def test_a_volume_source_is_a_path_below_its_claim(tmp_path: object) -> None:
    """The same manifest reads a claim in a pod and a directory here."""
    assert str(local_path("volume://runs/a/b.jsonl", {"runs": tmp_path})) == f"{tmp_path}/a/b.jsonl"  # type: ignore[dict-item]
    with pytest.raises(LookupError, match="add --volume other=DIR"):
        local_path("volume://other/a", {})


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("500m", 0.5), ("2Gi", 2**31), ("1.5G", 1.5e9), ("3Ki", 3072)])
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: float) -> None:
    """Suffixes are decimal without and binary with an i."""
    assert quantity_value(text) == pytest.approx(value)


@pytest.mark.parametrize("filler", ["x", "é", "\u4e16", "\n", '"'], ids=["ascii", "latin", "cjk", "newline", "quote"])
def test_a_termination_message_always_fits(filler: str) -> None:
    """The kubelet cuts at 4096 bytes, which would leave no JSON at all; the start of the sentence survives."""
    report = DatasetReport(rows=5, warnings=[DataWarning(reason="X", message=filler * 500)] * 10)
    text = TerminationMessage(outcome=Outcome.USER_ERROR, message="row 7: " + filler * 9000, dataset=report).encode()
    assert len(text.encode()) <= 4096
    decoded = TerminationMessage.decode(text)
    assert decoded is not None
    assert decoded.message.startswith(f"row 7: {filler}")
    assert decoded.dataset is not None
    assert decoded.dataset.rows == 5


def test_the_models_survive_where_the_report_is_long() -> None:
    """Without them nobody knows the memory; what the report has in lists is in report.json too."""
    record = record_of(shape())
    warnings = [DataWarning(reason="RowsTruncated", message=f"rows that are cut: {n} " + "x" * 200) for n in range(20)]
    report = DatasetReport(
        rows=5, lengths=[LengthBin(up_to=n, rows=n) for n in range(32)], types=["chat_template"] * 64, warnings=warnings
    )
    assert record is not None
    text = TerminationMessage(
        outcome=Outcome.SUCCEEDED, message="ready", dataset=report, models=[record, record]
    ).encode()
    assert len(text.encode()) <= 4096
    told = TerminationMessage.decode(text)
    assert told is not None
    assert told.dataset is not None
    assert told.models == [record, record]
    assert told.message == "ready"
    assert told.dataset.warnings == warnings[: len(told.dataset.warnings)] != []


def test_garbage_is_not_a_termination_message() -> None:
    """A container that died without a word has none."""
    assert TerminationMessage.decode("Killed") is None
    assert TerminationMessage.decode("") is None
