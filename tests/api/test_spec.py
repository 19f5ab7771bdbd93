"""The models refuse what cannot work, all at once, with the place, the value and the remedy."""

import copy
from typing import Any

import pytest

from anneal_api import FineTuneJob, ManifestError, documents, parse_job, prepare_key, resolve

MINIMAL: dict[str, Any] = {
    "apiVersion": "anneal.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support-bot"},
    "spec": {
        "model": {"source": "hf://org/model"},
        "datasets": [{"source": "volume://runs/data/train.jsonl"}],
    },
}


def with_spec(**changes: Any) -> dict[str, Any]:
    """The minimal manifest with top-level spec keys replaced."""
    document = copy.deepcopy(MINIMAL)
    document["spec"].update(changes)
    return document


def problems(document: Any) -> list[str]:
    """Every problem of a document as text."""
    with pytest.raises(ManifestError) as caught:
        parse_job(document)
    return [str(problem) for problem in caught.value.problems]


def job(**changes: Any) -> FineTuneJob:
    """A parsed job."""
    return parse_job(with_spec(**changes))


DATA = {"source": "volume://runs/data/train.jsonl"}
BAD = [
    pytest.param({"compute": {"gpuPerNode": 2}}, ["spec.compute.gpuPerNode: unknown key (did you mean gpusPerNode?)"], id="unknown-key"),
    pytest.param({"training": {"micro_batch_size": 2}}, ["spec.training.micro_batch_size: unknown key (did you mean microBatchSize?)"], id="snake-case"),
    pytest.param({"training": {"learningRate": "1e-5"}}, ["spec.training.learningRate: input should be a valid number, got '1e-5' (str)"], id="text-for-number"),
    pytest.param({"training": {"learningRate": 3}}, ["spec.training.learningRate: input should be less than or equal to 1, got 3"], id="range"),
    pytest.param({"training": {"gradientCheckpointing": "yes"}}, ["spec.training.gradientCheckpointing: input should be a valid boolean, got 'yes' (str)"], id="text-for-boolean"),
    pytest.param({"method": "sftt"}, ["spec.method: 'sftt' is not accepted; write one of: sft, pretrain (did you mean sft?)"], id="unknown-method"),
    pytest.param({"datasets": []}, ["spec.datasets: list should have at least 1 item"], id="no-data"),
    pytest.param({"training": {"epochs": 1, "maxSteps": 5}}, ["spec.training: epochs and maxSteps both give the length"], id="two-lengths"),
    pytest.param({"training": {"warmupRatio": 0.1, "warmupSteps": 5}}, ["spec.training: warmupRatio and warmupSteps both"], id="two-warmups"),
    pytest.param({"model": {"source": "hf://a/b", "quantization": "nf4"}}, ["spec.model.quantization: quantized weights cannot be trained"], id="quantized-full"),
    pytest.param(
        {"training": {"globalBatchSize": 10}, "compute": {"gpusPerNode": 4}},
        ["spec.training.globalBatchSize: globalBatchSize must be a multiple of nodes x gpusPerNode"],
        id="batch-over-world",
    ),
    pytest.param(
        {"training": {"globalBatchSize": 8, "microBatchSize": 4}, "compute": {"gpusPerNode": 4}},
        ["spec.training.microBatchSize: microBatchSize must divide each GPU's share"],
        id="micro-batch-over-share",
    ),
    pytest.param(
        {"queue": "team", "compute": {"nodes": 2, "minNodes": 3}},
        ["spec.compute.minNodes: minNodes is at most nodes: nodes is how many the job would like"],
        id="min-nodes-above-nodes",
    ),
    pytest.param(
        {"compute": {"nodes": 2, "minNodes": 1}},
        ["spec.compute.minNodes: minNodes needs a queue, which decides how many nodes there are quota for: add queue"],
        id="min-nodes-without-queue",
    ),
    pytest.param(
        {"queue": "team", "compute": {"nodes": 5, "minNodes": 3}, "training": {"globalBatchSize": 20}},
        ["spec.compute.minNodes: globalBatchSize must be a multiple of minNodes x gpusPerNode too"],
        id="batch-over-min-nodes",
    ),
    pytest.param(
        {"queue": "team", "compute": {"nodes": 5, "minNodes": 4}},
        ["spec.compute.minNodes: minNodes that does not divide nodes needs training.globalBatchSize"],
        id="no-batch-over-min-nodes",
    ),
    pytest.param(
        {"compute": {"pool": "h100", "gpuType": "h100"}},
        ["spec.compute.gpuType: pool and gpuType both say where the job runs: write one of them"],
        id="pool-and-gpu-type",
    ),
    pytest.param(
        {"compute": {"gpuType": "h100", "gpusPerNode": 0}},
        ["spec.compute.gpuType: gpuType needs gpusPerNode of 1 or more"],
        id="gpu-type-without-gpus",
    ),
    pytest.param({"evaluation": {"holdout": {}}}, ["spec.evaluation.holdout: write exactly one of fraction"], id="empty-holdout"),
    pytest.param({"adapter": {"targetModules": ["all-linear", "q_proj"]}}, ["spec.adapter.targetModules: all-linear already names"], id="targets"),
    pytest.param({"output": {"path": "../other"}}, ["spec.output.path: '../other' (str) is not a path below the storage"], id="path-leaves-claim"),
    pytest.param({"output": {"path": "models/x"}}, ["spec.output.path: models/ and prepared/ are Anneal's own"], id="path-in-cache"),
    pytest.param({"compute": {"pod": {"env": [{"name": "PET_NNODES", "value": "1"}]}}}, ["spec.compute.pod.env[0].name: variables that start with"], id="reserved-env"),
    pytest.param({"compute": {"pod": {"volumes": [{"name": "x", "mountPath": "/x"}]}}}, ["spec.compute.pod.volumes[0]: write exactly one of"], id="no-volume-kind"),
    pytest.param({"compute": {"pod": {"securityContext": {}}}}, ["spec.compute.pod.securityContext: unknown key"], id="no-security-context"),
    pytest.param({"compute": {"cpu": 0.5}}, ["spec.compute.cpu: 0.5 is not a quantity; write a whole number"], id="float-quantity"),
    pytest.param({"compute": {"memory": "64GB"}}, ["spec.compute.memory: '64GB' is not a quantity"], id="quantity-suffix"),
    pytest.param({"datasets": [{**DATA, "type": "alpca"}]}, ["spec.datasets[0].type: 'alpca' is not accepted; write one of: chat_template, messages, alpaca"], id="unknown-type"),
    pytest.param({"datasets": [{**DATA, "type": "alpaca", "fields": {"text": "a"}}]}, ["spec.datasets[0].fields.text: the dataset's type does not read this column; it is for completion, pretrain"], id="unread-column"),
    pytest.param({"datasets": [{**DATA, "type": "user_defined"}]}, ["spec.datasets[0].format: format and type: user_defined go together"], id="no-format"),
    pytest.param({"datasets": [{**DATA, "type": "alpaca", "format": {}}]}, ["spec.datasets[0].format: format and type: user_defined go together"], id="format-unread"),
    pytest.param({"datasets": [{**DATA, "type": "user_defined", "format": {"format": "{output}"}}]}, ["spec.datasets[0].format.format: '{output}' (str) is not a text in which only {instruction} and {input}"], id="placeholder"),
    pytest.param({"datasets": [{**DATA, "type": "completion", "trainOnInputs": True}]}, ["spec.datasets[0].trainOnInputs: completion and pretrain train every token anyway"], id="inputs-unread"),
    pytest.param({"datasets": [{**DATA, "type": {"format": "{instruction}"}}]}, ["spec.datasets[0].type: a mapping is not accepted; write user_defined, its texts in format"], id="type-mapping"),
    pytest.param({"datasets": [{**DATA, "type": "chat_template", "trainOnInputs": True, "rolesToTrain": ["user"]}]}, ["spec.datasets[0].rolesToTrain: trainOnInputs trains what every role says"], id="roles-and-inputs"),
    pytest.param({"datasets": [{"source": "s3//bucket"}]}, ["spec.datasets[0].source: 's3//bucket' is not a source; write hf://"], id="source"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), BAD)
def test_a_spec_that_cannot_work_is_refused(changes: dict[str, Any], expected: list[str]) -> None:
    """Each error names the path and the remedy."""
    found = problems(with_spec(**changes))
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize("kind", ["sharegpt", "sharegpt.load_role", "sharegpt:chat", "ShareGPT"])
def test_sharegpt_is_called_chat_template(kind: str) -> None:
    """A type that Axolotl dropped is answered with the one that reads its rows."""
    (line,) = problems(with_spec(datasets=[{**DATA, "type": kind}]))
    assert line.endswith("(did you mean chat_template?)")


def test_every_problem_is_reported_at_once() -> None:
    """One look at the errors is enough to mend a manifest."""
    found = problems(with_spec(method="x", training={"seed": -1, "epochs": 0}, datasets=[{"source": 3}]))
    assert [line.split(":")[0] for line in found] == [
        "spec.datasets[0].source",
        "spec.method",
        "spec.training.epochs",
        "spec.training.seed",
    ]


@pytest.mark.parametrize("name", ["Bad_Name", "a" * 254, 123, "a..b"], ids=["letters", "long", "number", "dots"])
def test_a_name_that_the_api_server_would_refuse_is_found_here(name: Any) -> None:
    """Beside everything else that is wrong."""
    document = with_spec(method="x") | {"metadata": {"name": name}}
    found = problems(document)
    assert any(line.startswith("metadata.name: ") and "is not a Kubernetes name" in line for line in found)
    assert any(line.startswith("spec.method") for line in found)


@pytest.mark.parametrize("document", [None, 3, "text", [], {}], ids=["null", "number", "text", "list", "empty"])
def test_what_is_no_manifest_is_refused(document: Any) -> None:
    """A document of another shape is an error, not an exception."""
    assert problems(document)


def test_defaults_that_depend_on_others_are_resolved_once() -> None:
    """Resolving fills every default and resolving again changes nothing."""
    resolved = resolve(job(adapter={"r": 8}, compute={"nodes": 3, "gpusPerNode": 2}).spec)
    assert resolved.adapter is not None
    assert resolved.adapter.alpha == 16
    assert resolved.training.global_batch_size == 18
    assert resolved.training.micro_batch_size == 3
    assert resolved.training.learning_rate == 2e-4
    assert resolved.compute.memory == "128Gi"
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("training", "compute", "expected"),
    [
        ({}, {}, (16, 8)),
        ({"globalBatchSize": 7}, {}, (7, 7)),
        ({"globalBatchSize": 22}, {"gpusPerNode": 2}, (22, 1)),
        ({"microBatchSize": 3}, {"gpusPerNode": 4}, (24, 3)),
        ({"globalBatchSize": 64, "microBatchSize": 2}, {"gpusPerNode": 8}, (64, 2)),
        ({}, {"gpusPerNode": 0}, (16, 8)),
    ],
    ids=["one-gpu", "odd", "prime-share", "micro-given", "both-given", "cpu"],
)
def test_the_batch_divides_over_the_devices(
    training: dict[str, Any], compute: dict[str, Any], expected: tuple[int, int]
) -> None:
    """Whatever is given, the global batch is whole micro batches on every device."""
    resolved = resolve(job(training=training, compute=compute).spec)
    batch, micro = resolved.training.global_batch_size, resolved.training.micro_batch_size
    assert (batch, micro) == expected
    assert batch is not None
    assert micro is not None
    assert batch % (micro * resolved.compute.world_size) == 0


def test_the_prepare_key_depends_on_the_data_alone() -> None:
    """A sweep over learning rates prepares its data once; another sequence length or claim does not share it."""
    base = prepare_key(resolve(job().spec), "runs")
    assert prepare_key(resolve(job(training={"learningRate": 1e-3}).spec), "runs") == base
    assert prepare_key(resolve(job(training={"sequenceLength": 128}).spec), "runs") != base
    assert prepare_key(resolve(job().spec), "other") != base


YAML_NUMBERS = [
    ("1e-5", 1e-5), ("1.0e-5", 1e-5), ("12:30", "12:30"), ("2026-11-21", "2026-11-21"), ("0x1F", 31), ("010", 8),
    ("1_000", 1000), ("08", 8), (".5", 0.5), ("1.", 1.0), ("'1e-5'", "1e-5"), ("~", None), ("on", True), ("1e3", 1000.0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), YAML_NUMBERS, ids=[text for text, _ in YAML_NUMBERS])
def test_yaml_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    """`1e-5` is a number; dates and times stay text."""
    (document,) = documents(f"x: {text}\n")
    assert document == {"x": value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: the key 'c' is written twice: remove one"),
        ("a: [1\n", "line 2, column 1: not YAML"),
        ("", "the file is empty"),
        ("---\n---\n", "the file is empty"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1, column 4: not YAML"),
    ],
    ids=["duplicate-key", "broken", "empty", "empty-documents", "python-tag"],
)
def test_broken_yaml_says_where(text: str, expected: str) -> None:
    """The line is named; nothing is executed and no key is dropped in silence."""
    with pytest.raises(ManifestError) as caught:
        documents(text)
    assert str(caught.value.problems[0]).startswith(expected)


def test_merge_keys_work() -> None:
    """Anchors and merges are what people share blocks with; an override beside a merge is not a duplicate."""
    (document,) = documents("base: &b {a: 1, b: 2}\nuse: {<<: *b, b: 3}\n")
    assert document["use"] == {"a": 1, "b": 3}


def test_a_null_is_as_good_as_absent() -> None:
    """A block or field that is written and left empty takes its default, as on the API server; a required one is missed."""
    spec = job(training=None, checkpoint=None, adapter=None, runPolicy={"maxRetries": None}).spec
    assert spec == job().spec
    assert problems(with_spec(model=None, surprise=None)) == [
        "spec.model: is required",
        *problems(with_spec(surprise=None)),
    ]
    assert problems(with_spec(surprise=None))[0].startswith("spec.surprise: unknown key")


# Every option of a dataset in Axolotl 0.19, and the word of the answer that says what it is here.
BROUGHT = {
    "path": "source",
    **{name: f"did you mean {here}?" for name, here in {
        "shards_idx": "shardsIdx", "chat_template": "chatTemplate", "data_files": "dataFiles", "ds_type": "dsType",
        "field_thinking": "fieldThinking", "template_thinking_key": "templateThinkingKey",
        "message_property_mappings": "messagePropertyMappings", "message_field_training": "messageFieldTraining",
        "message_field_training_detail": "messageFieldTrainingDetail", "split_thinking": "splitThinking",
        "roles_to_train": "rolesToTrain", "train_on_eos": "trainOnEos", "train_on_eot": "trainOnEot",
        "drop_system_message": "dropSystemMessage", "chat_template_kwargs": "chatTemplateKwargs",
        "eot_tokens": "eotTokens", "train_on_inputs": "trainOnInputs",
    }.items()},
    "name": "subset", "field": "fields: {text", "text_column": "fields: {text", "field_messages": "fields: {messages",
    "field_tools": "fields: {tools", "field_system": "fields: {system", "field_human": "roles", "field_model": "roles",
    "message_field_role": "messagePropertyMappings: {role", "message_field_content": "messagePropertyMappings: {content",
    "chat_template_jinja": "Jinja text in chatTemplate", "conversation": "alpaca:STYLE", "skip": "query",
    "preprocess_shards": "leave it out", "trust_remote_code": "no code", "input_transform": "no code",
    "input_format": "write type", "logprobs_field": "not here", "temperature": "not here",
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), BROUGHT.items())
def test_an_option_of_axolotls_is_told_by_its_name_here(name: str, words: str) -> None:
    """Whoever brings a configuration learns what to write instead of each line."""
    [problem] = problems(with_spec(datasets=[{**DATA, name: 1}]))
    assert problem.startswith(f"spec.datasets[0].{name}: unknown key")
    assert words in problem
