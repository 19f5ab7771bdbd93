"""Bad input: a clear error, nothing lost, no trainer pod made."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anneal_api import ManifestError, parse_job
from api import test_rlhf_spec as rlhf
from api.test_spec import BAD
from e2e.harness import JOB, Kube, KubectlError, Storage, claim_manifests, condition, small_job

pytestmark = pytest.mark.e2e
# Sentences of the models about one field alone: the API server has its own, and refuses the same.
OF_ONE_FIELD = ("got", "unknown key", "is not accepted")
EXAMPLES = Path(__file__).parents[2] / "examples"


def failed(kube: Kube, name: str) -> tuple[str, str]:
    """The reason and message a job failed with, after checking that no trainer was made for it."""
    job = kube.until_phase(name, "Failed")
    assert not kube.children("pytorchjobs", job)
    assert condition(job, "Stalled")["status"] == "True"
    return condition(job, "Failed")["reason"], job["status"]["message"]


@pytest.mark.parametrize(("changes", "_expected"), BAD)
def test_the_api_server_refuses_what_the_models_refuse(
    dry: Kube, changes: dict[str, Any], _expected: list[str]
) -> None:
    """The same manifests, and for cross-field rules the same sentence."""
    manifest = small_job("refused")
    manifest["spec"] = {key: manifest["spec"][key] for key in ("model", "datasets")} | changes
    refused_alike(dry, manifest)


@pytest.mark.parametrize(("method", "changes", "_expected"), rlhf.BAD, ids=[each[2][:30] for each in rlhf.BAD])
def test_an_alignment_job_is_refused_alike(dry: Kube, method: str, changes: dict[str, Any], _expected: str) -> None:
    """The other kind, its methods and their blocks."""
    refused_alike(dry, rlhf.manifest(method, **changes))


@pytest.mark.parametrize("changes", rlhf.GOOD.values(), ids=rlhf.GOOD)
def test_the_api_server_accepts_what_the_models_accept(dry: Kube, changes: dict[str, Any]) -> None:
    """A rule in CEL that is stricter than its twin would keep a right job out."""
    dry.apply(rlhf.manifest("grpo", **changes), flags=("--dry-run=server",))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_accepted(dry: Kube, path: Path) -> None:
    """As they are, by the API server; nothing is made."""
    said = dry.run("apply", "--dry-run=server", "-f", str(path)).stdout
    assert said.count("created") == path.read_text().count("kind: FineTuneJob") + path.read_text().count(
        "kind: RLHFJob"
    )


def refused_alike(dry: Kube, manifest: dict[str, Any]) -> None:
    """By the models and by the API server, in the same words."""
    with pytest.raises(ManifestError) as problems:
        parse_job(copy.deepcopy(manifest))
    with pytest.raises(KubectlError) as refused:
        dry.apply(manifest, flags=("--dry-run=server",))
    text = str(refused.value)
    for problem in problems.value.problems:
        leaf = problem.path.rsplit(".", maxsplit=1)[-1]
        # The values of this manifest are told by the models alone.
        message = problem.message.partition(" (here ")[0]
        assert leaf in text or message in text
        if message[0].islower() and not any(word in message for word in OF_ONE_FIELD):
            assert message in text or "should have at least" in message


def test_a_local_path_is_refused_on_a_cluster(dry: Kube) -> None:
    """No pod could read it; the message says what can."""
    with pytest.raises(KubectlError, match="a local path works with `anneal run` only"):
        dry.apply(small_job("local", model={"source": "./model"}))


def test_unknown_keys_are_refused_or_pruned(kube: Kube) -> None:
    """Kubectl and server-side apply refuse them; a client that does not ask for validation gets them pruned."""
    manifest = small_job("typo")
    manifest["spec"]["training"]["learningrate"] = 1e-5
    with pytest.raises(KubectlError, match=r'unknown field "(spec\.training\.)?learningrate"'):
        kube.apply(manifest)
    with pytest.raises(KubectlError, match="learningrate"):
        kube.apply(manifest, flags=("--server-side",))
    kube.run("create", "--validate=false", "-f", "-", stdin=json.dumps(manifest))
    assert "learningrate" not in kube.job("typo")["spec"]["training"]


def edit_line(storage: Storage, text: str) -> str:
    """A data file with a broken fourth line; its name."""
    rows = [json.dumps({"instruction": "a", "input": "", "output": "b"})] * 3
    path = storage.directory / "broken.jsonl"
    path.write_text("\n".join([*rows, text, rows[0]]) + "\n")
    return path.name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"instruction": "a", "output": ', ("broken.jsonl", "line 4")),
        ('{"instruction": "a", "output": 3}', ("broken.jsonl", "4", "output")),
    ],
    ids=["broken-json", "number-for-text"],
)
def test_a_broken_row_names_file_and_line(kube: Kube, runs: Storage, line: str, expected: tuple[str, ...]) -> None:
    """The condition says where to look, and there is no second try."""
    name = edit_line(runs, line)
    kube.apply(small_job("rows", datasets=[{"source": f"volume://runs/{name}", "type": "alpaca"}]))
    reason, message = failed(kube, "rows")
    assert reason == "UserError"
    for part in expected:
        assert part in message


DATA_ERRORS = [
    pytest.param(
        {"datasets": [{"source": "volume://runs/tiny/train.jsonl", "type": "completion"}]},
        ("text", "instruction, input, output"),
        id="missing-column",
    ),
    pytest.param(
        {"datasets": [{"source": "volume://runs/none.jsonl", "type": "alpaca"}]}, ("none.jsonl",), id="missing-file"
    ),
    pytest.param({"model": {"source": "volume://runs/tiny"}}, ("tiny", "config.json"), id="no-model"),
    pytest.param(
        {
            "model": {"source": "volume://runs/plain"},
            "datasets": [{"source": "volume://runs/chat.jsonl", "type": "chat_template"}],
        },
        ("chat template", "chatTemplate"),
        id="no-template",
    ),
    pytest.param(
        {"datasets": [{"source": "volume://runs/masked.jsonl", "type": "tokenized"}]},
        ("labels", "-100"),
        id="all-masked",
    ),
]


@pytest.fixture
def odd_files(runs: Storage) -> None:
    """Files that look right at first sight."""
    masked = {"input_ids": [5, 6, 7], "labels": [-100, -100, -100]}
    (runs.directory / "masked.jsonl").write_text((json.dumps(masked) + "\n") * 3)
    chat = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    (runs.directory / "chat.jsonl").write_text((json.dumps(chat) + "\n") * 3)
    plain = runs.directory / "plain"
    plain.mkdir()
    for path in (runs.directory / "tiny/model").iterdir():
        if path.name == "chat_template.jinja":
            continue
        (plain / path.name).write_bytes(path.read_bytes())
    config = plain / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("chat_template", None)
    config.write_text(json.dumps(settings))


@pytest.mark.usefixtures("odd_files")
@pytest.mark.parametrize(("changes", "expected"), DATA_ERRORS)
def test_what_cannot_be_prepared_fails_before_a_trainer(
    kube: Kube, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """The trainer's own sentence is in the condition."""
    kube.apply(small_job("unready", **changes))
    _reason, message = failed(kube, "unready")
    for part in expected:
        assert part in message


def test_a_user_error_while_training_is_not_retried(kube: Kube, runs: Storage) -> None:
    """The weights broke after they were checked: one attempt, the trainer's sentence, no retry."""
    broken = runs.directory / "breaks"
    subprocess_copy(runs.directory / "tiny/model", broken)
    manifest = small_job("breaks", model={"source": "volume://runs/breaks"}, runPolicy={"suspend": True})
    kube.apply(manifest)
    kube.until_phase("breaks", "Suspended")
    kube.patch("breaks", {"runPolicy": {"suspend": False}})
    kube.until(
        "data is ready", lambda: condition(kube.job("breaks"), "DataReady").get("status") == "True", name="breaks"
    )
    (broken / "model.safetensors").write_bytes(b"not weights")
    job = kube.until_phase("breaks", "Failed")
    (attempt,) = job["status"]["attempts"]
    assert attempt["outcome"] == "UserError"
    assert condition(job, "Failed")["reason"] == "UserError"
    assert "breaks" in job["status"]["message"]
    assert job["status"]["message"] == condition(job, "Failed")["message"]


def subprocess_copy(source: Any, target: Any) -> None:
    """Copy files one by one: small models only."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def accepted_as(kube: Kube, name: str, reason: str) -> str:
    """The Accepted condition's message once it has this reason."""
    job = kube.until(
        f"{name} is {reason}",
        lambda: next((job for job in [kube.job(name)] if condition(job, "Accepted").get("reason") == reason), None),
        seconds=60,
        name=name,
    )
    return str(condition(job, "Accepted")["message"])


def test_an_unknown_pool_is_named_with_those_that_exist(kube: Kube) -> None:
    """Nothing is made for a job that can be placed nowhere."""
    kube.apply(small_job("nowhere", compute={"pool": "h1000"}))
    message = accepted_as(kube, "nowhere", "UnknownPool")
    assert "h1000" in message
    assert "default" in message


def test_one_writer_a_claim_is_refused_for_several_nodes(
    kube: Kube, storage_directory: Callable[[str], Any], node: str
) -> None:
    """ReadWriteOnce cannot serve two nodes; the message says which mode can."""
    directory = storage_directory("single")
    kube.apply(
        *claim_manifests(
            namespace=kube.namespace, claim="single", directory=directory, node=node, modes=("ReadWriteOnce",)
        )
    )
    kube.apply(small_job("wide", storage={"volume": {"claimName": "single"}}, compute={"nodes": 2}))
    assert "ReadWriteMany" in accepted_as(kube, "wide", "StorageNotShared")


def test_two_jobs_cannot_write_one_output(kube: Kube) -> None:
    """The later one waits with the earlier one's name; when that is deleted it goes on."""
    shared = {"output": {"path": "shared/adapter"}}
    kube.apply(small_job("earlier", **shared))
    kube.until_phase("earlier", "Preparing")
    kube.apply(small_job("later", **shared))
    assert "earlier" in accepted_as(kube, "later", "OutputInUse")
    kube.run("delete", JOB, "earlier", "--timeout=30s")
    kube.until_phase("later", "Succeeded")


def waiting_message(kube: Kube, name: str, reason: str) -> str:
    """The message of whichever condition waits for this reason."""

    def look() -> str | None:
        conditions = kube.job(name).get("status", {}).get("conditions", [])
        return next((each["message"] for each in conditions if each["reason"] == reason), None)

    return str(kube.until(f"{name} is {reason}", look, seconds=90, name=name))


def test_a_missing_claim_is_named_until_it_is_there(
    kube: Kube, runs: Storage, storage_directory: Callable[[str], Any], node: str
) -> None:
    """Waiting is said, not a silent Pending; and it ends by itself."""
    manifest = small_job("claimless", storage={"volume": {"claimName": "missing"}})
    kube.apply(manifest)
    assert "missing" in waiting_message(kube, "claimless", "WaitingForClaim")
    directory = storage_directory("missing")
    kube.apply(*claim_manifests(namespace=kube.namespace, claim="missing", directory=directory, node=node))
    kube.until_phase("claimless", "Succeeded")
    assert runs.directory.exists()


def test_a_missing_secret_is_named_until_it_is_there(kube: Kube) -> None:
    """The operator cannot read Secrets; the kubelet says which is missing."""
    kube.apply(small_job("keyless", secrets=[{"name": "hub-token"}]))
    assert "hub-token" in waiting_message(kube, "keyless", "WaitingForSecret")
    kube.run("create", "secret", "generic", "hub-token", "--from-literal=HF_TOKEN=x")
    kube.until_phase("keyless", "Succeeded")


def test_only_the_run_policy_changes_after_the_first_attempt(kube: Kube) -> None:
    """The API server refuses the rest and says what to do instead."""
    kube.apply(small_job("settled", training={"maxSteps": 300}))
    kube.until_step("settled", 1)
    with pytest.raises(KubectlError, match=r"spec.training cannot change after the first attempt has begun"):
        kube.patch("settled", {"training": {"learningRate": 0.1}})
    kube.patch("settled", {"runPolicy": {"maxRetries": 1}})
    kube.until_phase("settled", "Succeeded")


def test_before_the_first_attempt_everything_may_change(kube: Kube) -> None:
    """A mistake that prepare found is mended by applying the manifest again."""
    kube.apply(small_job("mended", datasets=[{"source": "volume://runs/none.jsonl"}]))
    kube.until_phase("mended", "Failed")
    kube.apply(small_job("mended"))
    kube.until("it tries again", lambda: kube.job("mended")["status"]["phase"] != "Failed", seconds=60, name="mended")
    kube.until_phase("mended", "Succeeded")
