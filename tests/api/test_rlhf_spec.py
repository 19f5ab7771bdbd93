"""RLHFJob's spec: a method, its block and its rows belong together; defaults are the method's; what is unusual is noted."""

from typing import Any

import pytest

from anneal_api import ManifestError, RLHFJob, parse_job, prepare_key, resolve
from anneal_api.base import PATTERN_WORDS, QUANTITY, Block
from anneal_api.finetunejob import FineTuneSpec
from anneal_api.online import ONLINE
from anneal_api.rewardtexts import LANGUAGES
from anneal_api.rlhfjob import BLOCKS, FAMILIES, RLHFSpec, family_of, types_of
from anneal_api.usual import unusual

DATA = {"source": "volume://runs/pairs.jsonl"}
EXACT = {"name": "exact", "match": {}}
MODEL = {"source": "hf://org/model"}


def manifest(method: str = "dpo", **spec: Any) -> dict[str, Any]:
    """The smallest manifest of a method, with top-level keys replaced."""
    needed = {"rewards": [EXACT]} if method in ONLINE else {}
    return {
        "apiVersion": "anneal.dev/v1alpha1",
        "kind": "RLHFJob",
        "metadata": {"name": "aligned"},
        "spec": {"model": {"source": "hf://org/model"}, "method": method, "datasets": [DATA], **needed, **spec},
    }


def job(method: str = "dpo", **spec: Any) -> RLHFJob:
    """The same, parsed."""
    found = parse_job(manifest(method, **spec))
    assert isinstance(found, RLHFJob)
    return found


def problems(method: str, **spec: Any) -> str:
    """Every problem, a line each."""
    with pytest.raises(ManifestError) as caught:
        parse_job(manifest(method, **spec))
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize("method", FAMILIES)
def test_the_smallest_manifest_of_each_method_is_whole(method: str) -> None:
    """A model, a method and data; resolving fills the rest, the method's own block among it, and twice changes nothing."""
    spec = resolve(job(method).spec)
    assert resolve(spec) == spec
    assert (getattr(spec, method, None) is not None) == (method in BLOCKS)
    assert unusual(spec) == []


@pytest.mark.parametrize(
    ("method", "adapter", "rate"),
    [
        ("dpo", False, 5e-7),
        ("dpo", True, 5e-6),
        ("kto", True, 5e-6),
        ("orpo", False, 8e-6),
        ("grpo", False, 1e-6),
        ("reward", True, 1e-4),
    ],
)
def test_the_learning_rate_is_the_methods(method: str, *, adapter: bool, rate: float) -> None:
    """An adapter takes ten times that of full fine-tuning."""
    spec = job(method, **({"adapter": {}} if adapter else {})).spec
    assert resolve(spec).training.learning_rate == pytest.approx(rate)


BAD = [
    ("dpo", {"kto": {}}, "spec.kto: this block is for method: kto"),
    ("dpo", {"dpo": {"losses": ["sigmoid", "sft"], "lossWeights": [1.0]}}, "spec.dpo.lossWeights: lossWeights has one weight"),
    ("dpo", {"dpo": {"losses": ["exo_pair"]}}, "spec.dpo.labelSmoothing: exo_pair and robust are about noisy labels"),
    ("dpo", {"dpo": {"losses": ["sigmod"]}}, "did you mean sigmoid"),
    ("cpo", {"cpo": {"loss": "hinge", "labelSmoothing": 0.1}}, "spec.cpo.labelSmoothing: labelSmoothing is for loss: sigmoid"),
    ("orpo", {"reference": {"precompute": True}}, "spec.reference: reward, prm, orpo, simpo and cpo compare with no"),
    ("dpo", {"reference": {"source": "gs://b/m"}}, "spec.reference.source"),
    ("dpo", {"training": {"packing": True}}, "spec.training.packing: answers are compared apart"),
    ("prm", {"datasets": [{**DATA, "type": "chatml.intel"}]}, "spec.datasets: the types that prm read: stepwise_supervised"),
    ("dpo", {"datasets": [{**DATA, "type": "alpaca"}]}, "the types that dpo, ipo, orpo, simpo, cpo read: chatml.default"),
    ("dpo", {"datasets": [{**DATA, "weight": 1.0}, DATA]}, "spec.datasets: write a weight for every dataset, or for none"),
    ("dpo", {"model": {"source": "job://pytorchjob/x"}}, "job://KIND/NAME"),
    ("grpo", {"rewards": []}, "spec.rewards: grpo and rloo need rewards"),
    ("dpo", {"rewards": [EXACT]}, "spec.rewards: grpo and rloo need rewards, one at least; other methods take none"),
    ("dpo", {"sampling": {}}, "spec.sampling: sampling is for grpo and rloo"),
    ("grpo", {"rewards": [EXACT, EXACT]}, "spec.rewards: each reward has a name of its own"),
    ("grpo", {"rewards": [{**EXACT, "weight": 0.0}]}, "spec.rewards: with all weights 0"),
    ("grpo", {"training": {"globalBatchSize": 12}}, "spec.training.globalBatchSize: with grpo and rloo globalBatchSize counts answers"),
    ("rloo", {"training": {"globalBatchSize": 8}, "compute": {"nodes": 4}}, "spec.training.globalBatchSize: with grpo and rloo"),
    ("grpo", {"training": {"sequenceLength": 256}}, "spec.training.sequenceLength: sequenceLength bounds prompt and answer"),
    ("grpo", {"reference": {"precompute": True}}, "spec.reference.precompute: answers that are not drawn yet"),
    ("grpo", {"reference": {"source": "hf://o/m"}}, "spec.reference.source: with beta 0"),
    ("rloo", {"rloo": {"beta": 0.0}, "reference": {"source": "hf://o/m"}}, "spec.reference.source: with beta 0"),
    ("grpo", {"grpo": {"importanceSampling": "sequence"}}, "spec.grpo.importanceSampling: importanceSampling: sequence goes with"),
    ("grpo", {"datasets": [{**DATA, "type": "alpaca"}]}, "the types that grpo, rloo read: prompt, chat_template"),
    ("ppo", {}, "'ppo' is not accepted; write one of: reward, prm, dpo"),
    ("grpo", {"rewards": [{"name": "a", "length": {"least": 4, "most": 3}}]}, "spec.rewards[0].length.least: no length is good: make least no more"),
    ("grpo", {"rewards": [{"name": "a", "length": {}}]}, "spec.rewards[0].length: without a bound every length is good: write least"),
    ("grpo", {"rewards": [{"name": "a", "length": {"least": 0}}]}, "spec.rewards[0].length: without a bound every length is good"),
    ("grpo", {"rewards": [{"name": "a", "length": {"least": 257}}]}, "spec.rewards: an answer has sampling.maxTokens tokens at most"),
    ("rloo", {"rewards": [EXACT, {"name": "a", "length": {"least": 9}}], "sampling": {"maxTokens": 8}}, "spec.rewards: an answer has"),
    ("grpo", {"rewards": [{"name": "a", "match": {"how": "math", "ignoreCase": True}}]}, "spec.rewards[0].match.ignoreCase: ignoreCase"),
    ("grpo", {"rewards": [{"name": "a", "model": {"source": "job://finetunejob/x"}}]}, "spec.rewards[0].model.source: a FineTuneJob makes"),
    ("grpo", {"rewards": [{**EXACT, "name": "unjudged"}]}, "spec.rewards[0].name: rewards/unjudged is a measure of its own"),
    ("grpo", {"rewards": [{"name": "a", "language": {"code": "de", "among": ["de"]}}]}, "spec.rewards[0].language.among: nothing is told"),
    ("grpo", {"rewards": [{"name": "a", "http": {"url": "http://me:$(PW)@judge/"}}]}, "spec.rewards[0].http.url: 'http://me:$(PW)@judge/' (str) is not an address"),
    ("grpo", {"rewards": [{"name": "a", "http": {"url": "http://judge/?key=$KEY"}}]}, "spec.rewards[0].http.url"),
    ("grpo", {"rewards": [{"name": "a", "http": {"url": "http://judge/$(KEY)"}}]}, "spec.secrets: the $(NAME) of an http.url is an"),
    ("grpo", {"rewards": [{"name": "a", "schema": {"jsonSchema": "[1]"}}]}, "spec.rewards[0].schema.jsonSchema: '[1]' is not a JSON"),
    ("grpo", {"rewards": [{"name": "a", "function": {"configMap": "c", "file": "d/r.py"}}]}, "with configMap, file is one of"),
    ("dpo", {"rollout": {}}, "spec.rollout: rollout is for grpo and rloo"),
    ("grpo", {"rollout": {"weightSync": "adapter"}}, "spec.rollout.weightSync: weightSync: adapter needs an adapter: add one"),
    ("rloo", {"compute": {"gpusPerNode": 0}}, "spec.rollout.weightSync: full weights reach servers by NCCL, from GPU to GPU"),
    ("grpo", {"rollout": {"mode": "colocate"}}, "spec.rollout.weightSync: full weights reach servers by NCCL"),
    ("grpo", {"adapter": {"r": 513}}, "spec.adapter.r: vLLM serves adapters of rank 512 at most: lower adapter.r, or take"),
    ("grpo", {"adapter": {}, "model": {**MODEL, "addSpecialTokens": ["<x>"]}}, "spec.model.addSpecialTokens: vLLM serves no"),
    ("grpo", {"adapter": {}, "rollout": {"mode": "colocate"}, "compute": {"nodes": 2}}, "spec.rollout.mode: rollout.mode: colocate"),
    ("grpo", {"rollout": {"maxModelLen": 1024}}, "spec.rollout.maxModelLen: rollout.maxModelLen is the room for prompt and"),
    ("grpo", {"rollout": {"image": "vllm/vllm-openai:v0.21.3"}}, "spec.rollout.image: vLLM's versions 0.22 to 0.31 are supported"),
    ("grpo", {"rollout": {"image": "r.example:5000/vllm:0.32.0-cu13"}}, "spec.rollout.image: vLLM's versions 0.22 to 0.31"),
    ("grpo", {"rollout": {"image": "vllm/vllm-openai:v1.2"}}, "spec.rollout.image: vLLM's versions 0.22 to 0.31 are supported"),
    ("grpo", {"adapter": {}, "rollout": {"mode": "colocate", "replicas": 2}}, "spec.rollout.mode: only with mode: server are there"),
    ("grpo", {"rollout": {"mode": "generate", "gpuType": "h100"}}, "spec.rollout.mode: only with mode: server are there servers"),
    ("grpo", {"adapter": {}, "rollout": {"mode": "colocate", "tensorParallel": 2}}, "spec.rollout.tensorParallel: with mode: colocate"),
    ("grpo", {"rollout": {"tensorParallel": 2, "gpus": 4}}, "spec.rollout.gpus: gpus is as many as tensorParallel, or 0"),
    ("grpo", {"rollout": {"tensorParallel": 2, "gpus": 0}}, "spec.rollout.gpus: gpus is as many as tensorParallel, or 0"),
    ("grpo", {"rollout": {"pool": "a", "gpuType": "h100"}}, "spec.rollout.gpuType: pool and gpuType both say where the servers run"),
    ("grpo", {"rollout": {"extraArgs": ["--max-model-len=9"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    ("grpo", {"rollout": {"extraArgs": ["--max_model_len=9"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    ("grpo", {"rollout": {"extraArgs": ["-tp=2"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    ("grpo", {"rollout": {"extraArgs": ["--no-enable-lora"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    ("grpo", {"rollout": {"extraArgs": ["--weight-transfer-config.backend=ipc"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    (
        "grpo", {"adapter": {}, "model": {"source": "hf://a/b", "quantization": "nf4"}, "rollout": {"weightSync": "nccl"}},
        "spec.rollout.weightSync: an adapter cannot be merged into quantized weights",
    ),
    ("grpo", {"rollout": {"extraArgs": ["--max-model-len 9"]}}, "spec.rollout.extraArgs: these arguments follow from the rest"),
    ("grpo", {"rollout": {"extraArgs": ["--dtype float16"]}}, "spec.rollout.extraArgs: an item is one word of the command line"),
    ("grpo", {"rollout": {"extraArgs": ["--enforce-eager", "-O 3"]}}, "spec.rollout.extraArgs: an item is one word"),
    ("grpo", {"rollout": {"extraArgs": ["enforce-eager"]}}, "spec.rollout.extraArgs: the first item is an argument's name, which begins"),
    ("grpo", {"adapter": {}, "compute": {"gpusPerNode": 0}, "rollout": {"tensorParallel": 3}}, "spec.rollout.tensorParallel: servers are on CPUs"),
    ("grpo", {"rollout": {"mode": "sever"}}, "did you mean server"),
]  # fmt: skip
# What a rule that is too strict would refuse.
GOOD = {
    "full weights by NCCL": {},
    "adapter": {"adapter": {"r": 512}},
    "an adapter of any rank by NCCL": {"adapter": {"r": 1024}, "rollout": {"weightSync": "nccl"}},
    "servers without GPUs": {"adapter": {}, "compute": {"gpusPerNode": 0}, "rollout": {"replicas": 2}},
    "servers with GPUs beside a trainer without": {
        "adapter": {}, "compute": {"gpusPerNode": 0}, "rollout": {"gpus": 2, "tensorParallel": 2, "pool": "h100"},
    },
    "an adapter of quantized weights": {"adapter": {}, "model": {"source": "hf://a/b", "quantization": "nf4"}},
    "colocate": {"adapter": {}, "rollout": {"mode": "colocate", "memoryUtilization": 0.5}},
    "generate": {"rollout": {"mode": "generate"}, "compute": {"gpusPerNode": 0}},
    "the newest image": {"rollout": {"image": "vllm/vllm-openai:v0.31.0"}},
    "the oldest image": {"rollout": {"image": "r.example:5000/vllm:0.22.0.post1"}},
    "a digest": {"rollout": {"image": f"vllm/vllm-openai:v0.40.0@sha256:{'a' * 64}"}},
    "a tag of one's own": {"rollout": {"image": "r.example:5000/vllm:ours"}},
    "lengths that there can be": {"rewards": [{"name": "a", "length": {"least": 32, "most": 900}}], "sampling": {"maxTokens": 32}},
    "arguments in two items": {"rollout": {"extraArgs": ["--dtype", "float16", '--hf-overrides={"a": 1, "b": 2}', "--chat-template", "a b"]}},
    "other arguments": {"rollout": {"extraArgs": ["--enforce-eager", "--dtype=float16", "--max-model-lenient", "--no-enable-chunked-prefill"]}},
    "an address with what the pods' environment has": {
        "rewards": [{"name": "a", "http": {"url": "http://$(JUDGE):8000"}}],
        "compute": {"pod": {"env": [{"name": "JUDGE", "value": "judge"}]}},
    },
    "rewards by their defaults": {
        "secrets": [{"name": "judge"}],
        "rewards": [
            {"name": "short", "length": {"most": 4}},
            {"name": "long", "length": {"least": 4}},
            {"name": "own", "function": {"configMap": "rewards"}},
            {"name": "json", "schema": {"jsonSchema": "{}"}},
            {"name": "asked", "http": {"url": "http://judge/v1"}},
            {"name": "six", "http": {"url": "https://[::1]:8000/v1?a=$(KEY)&b={c}#@"}},
            {"name": "named", "http": {"url": "http://$(JUDGE):8000"}},
            {"name": "made", "model": {"source": "job://rlhfjob/judge"}},
            {"name": "right", "match": {"how": "math", "ignoreCase": False}},
            {"name": "german", "language": {"code": "de", "among": ["de", "en"]}},
            {"name": "theirs", "language": {"column": "to", "among": ["de"]}},
        ],
    },
    "weights that cancel out": {"rewards": [EXACT, {**EXACT, "name": "penalty", "weight": -1.0}]},
}  # fmt: skip


@pytest.mark.parametrize(("method", "spec", "expected"), BAD, ids=[each[2][:30] for each in BAD])
def test_what_does_not_belong_together_is_refused(method: str, spec: dict[str, Any], expected: str) -> None:
    """With the field and what to write."""
    assert expected in problems(method, **spec)


@pytest.mark.parametrize(
    ("method", "spec", "expected"),
    [
        ("grpo", {"rewards": [{"name": "a", "pattern": "x"}]}, "spec.rewards[0].pattern: a mapping belongs here, got 'x' (str): write pattern: {pattern: 'x'}"),
        ("grpo", {"rewards": [{"name": "a", "length": 20}]}, "spec.rewards[0].length: a mapping belongs here, got 20; its fields: least, most"),
        ("dpo", {"datasets": ["./a.jsonl"]}, "spec.datasets[0]: a mapping belongs here, got './a.jsonl' (str): write {source: './a.jsonl'}"),
        ("dpo", {"adapter": "lora"}, "spec.adapter: a mapping belongs here, got 'lora' (str); its fields: alpha, dropout, r, targetModules, type"),
        ("grpo", {"reward": [EXACT]}, "spec.reward: a mapping belongs here, got a list (did you mean rewards?)"),
        ("grpo", {"reward": EXACT}, "spec.reward: this block is for method: reward; what judges answers of grpo and rloo is rewards"),
        ("sft", {}, "spec.method: sft is a method of the other kind: write kind: FineTuneJob"),
        ("grpo", {"training": {"globalBatchSize": 12}, "grpo": {"numGenerations": 8}}, "(here globalBatchSize 12, numGenerations 8, nodes 1, gpusPerNode 1)"),
        ("rloo", {"training": {"globalBatchSize": 6}, "sampling": {"topP": 2}}, "(here globalBatchSize 6, numGenerations 4, nodes 1, gpusPerNode 1)"),
        ("grpo", {"training": {"sequenceLength": 256}}, "(here sequenceLength 256, maxTokens 256)"),
        ("dpo", {"training": {"globalBatchSize": 6, "microBatchSize": 8}}, "microBatchSize must divide globalBatchSize (here microBatchSize 8, globalBatchSize 6)"),
        ("grpo", {"rollout": {"image": "a b"}}, "spec.rollout.image: 'a b' (str) is not one word, without spaces"),
    ],
    ids=["same name", "several fields", "item", "no such field", "list", "other block", "kind", "group", "usual group", "usual length", "micro batch", "form"],
)  # fmt: skip
def test_messages_say_what_to_write(method: str, spec: dict[str, Any], expected: str) -> None:
    """In words and with the values of the manifest, not in names of classes or patterns."""
    assert expected in problems(method, **spec)


OWN = {"source": "job://rlhfjob/aligned"}


@pytest.mark.parametrize(
    ("method", "spec", "path"),
    [
        ("grpo", {"rewards": [{"name": "a", "model": OWN}]}, "spec.rewards[0].model.source"),
        ("dpo", {"model": OWN}, "spec.model.source"),
        ("dpo", {"reference": OWN, "training": {"epochs": "all"}}, "spec.reference.source"),
    ],
    ids=["reward", "model", "reference beside another mistake"],
)
def test_a_job_does_not_wait_for_itself(method: str, spec: dict[str, Any], path: str) -> None:
    """The API server lets it through, as rules of a spec know no name: `Accepted` says the same."""
    assert f"{path}: job://rlhfjob/aligned is this job's own result: name another job" in problems(method, **spec)


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_what_belongs_together_is_accepted(spec: dict[str, Any]) -> None:
    """Also rewards whose weights sum to zero: a penalty beside a reward is no mistake."""
    resolved = resolve(job("grpo", **spec).spec)
    assert resolve(resolved) == resolved


def test_a_method_is_never_guessed() -> None:
    """There is no default method."""
    document = manifest()
    del document["spec"]["method"]
    with pytest.raises(ManifestError, match=r"spec\.method: is required"):
        parse_job(document)


def test_a_type_that_two_families_know_is_read_as_the_methods_own() -> None:
    """`chatml.intel` is a pair for dpo and a judged answer for kto; pairs without such a name serve kto too."""
    assert family_of("dpo", "chatml.intel") == "preference"
    assert family_of("kto", "chatml.intel") == "unpaired"
    assert family_of("kto", "chat_template.default") == "preference"
    assert len(types_of("kto")) == len(set(types_of("kto")))


@pytest.mark.parametrize(
    ("method", "spec", "noted"),
    [
        ("dpo", {"dpo": {"beta": 5.0}}, "spec.dpo.beta: 5 is unusual for dpo: 0.01 to 1 is common"),
        ("dpo", {"training": {"learningRate": 2e-4}}, "spec.training.learningRate: 0.0002 is unusual for dpo: 5e-08 to 5e-06"),
        ("dpo", {"training": {"epochs": 10}}, "spec.training.epochs: 10 is unusual for dpo"),
        ("grpo", {"sampling": {"temperature": 2.0}}, "spec.sampling.temperature: 2 is unusual for grpo: 0.6 to 1.2"),
        ("grpo", {"grpo": {"klEstimator": "k1"}}, "spec.grpo.klEstimator: does nothing while beta is 0"),
        ("grpo", {"grpo": {"loss": "cispo"}}, "spec.grpo.epsilonHigh: 0.2 (epsilon) is unusual for loss cispo"),
        ("grpo", {"grpo": {"iterations": 4}, "training": {"maxSteps": 4}}, "spec.grpo.iterations: 4 is no less than training.maxSteps (4): answers"),
        ("rloo", {"rollout": {"maxStaleness": 3}, "training": {"maxSteps": 4}}, "spec.rollout.maxStaleness: 3 reaches the last draw (before step 4 of 4)"),
        ("rloo", {"rollout": {"mode": "generate", "maxModelLen": 4096}}, "spec.rollout.maxModelLen: does nothing with mode: generate"),
        ("rloo", {"rollout": {"mode": "generate", "extraArgs": ["--enforce-eager"]}}, "spec.rollout.extraArgs: does nothing with mode: generate"),
        ("rloo", {"rollout": {"mode": "generate", "maxStaleness": 2}}, "spec.rollout.maxStaleness: does nothing with mode: generate"),
        ("grpo", {"rewards": [EXACT, {"name": "a", "length": {"most": 256}}]}, "spec.rewards[1].length.most: every answer is good"),
        ("simpo", {"simpo": {"gamma": 3.0}}, "spec.simpo.gamma: 3 is more than beta"),
        ("dpo", {"preparation": {"similarity": 0.9}}, "spec.preparation.similarity: does nothing without duplicates: dropNear"),
        ("dpo", {"preparation": {"maxBadRows": 9}}, "spec.preparation.maxBadRows: does nothing without onBadRow: drop"),
        ("dpo", {"preparation": {"sampling": "withReplacement"}}, "spec.preparation.sampling: does nothing without"),
    ],
    ids=["beta", "rate", "epochs", "temperature", "estimator", "cispo", "iterations", "staleness", "room", "arguments", "generate-staleness", "length", "gamma", "similarity", "maxBadRows", "sampling"],
)  # fmt: skip
def test_what_is_unusual_is_noted_and_not_refused(method: str, spec: dict[str, Any], noted: str) -> None:
    """With the range that is common."""
    (problem,) = unusual(job(method, **spec).spec)
    assert noted in str(problem)


@pytest.mark.parametrize(
    "spec",
    [
        {"training": {"learningRate": 1.0e-4}, "adapter": {}},
        {"training": {"learningRate": 1.0e-6}, "adapter": {}},
        {"training": {"maxSteps": 5}, "grpo": {"iterations": 4}},
        {"training": {"maxSteps": 4}, "rollout": {"maxStaleness": 2}},
    ],
    ids=["highest", "lowest", "two draws", "one hand-over"],
)
def test_what_is_just_usual_is_not_noted(spec: dict[str, Any]) -> None:
    """Bounds are usual themselves, also those that are no round numbers to a computer."""
    assert unusual(job("grpo", **spec).spec) == []


def test_methods_that_read_the_same_rows_share_what_is_made_of_them() -> None:
    """Not what a loss is told: the prepared data of dpo is that of ipo, and not that of kto."""
    keys = [prepare_key(resolve(job(method).spec), "runs") for method in ("dpo", "ipo", "simpo", "kto", "prm")]
    assert len(set(keys)) == 3
    assert prepare_key(resolve(job("dpo", dpo={"beta": 0.5}).spec), "runs") == keys[0]


@pytest.mark.parametrize(
    ("compute", "group", "batch"),
    [({}, 8, 128), ({"nodes": 3}, 8, 144), ({"nodes": 6, "minNodes": 3}, 8, 144), ({}, 7, 133)],
    ids=["one", "three", "elastic", "odd"],
)
def test_the_usual_batch_holds_whole_groups(compute: dict[str, Any], group: int, batch: int) -> None:
    """Rounded up to what every process can share in groups of answers."""
    spec = job("grpo", compute=compute, queue="team-a", grpo={"numGenerations": group}).spec
    assert resolve(spec).training.global_batch_size == batch


def test_a_reward_model_is_read_and_is_not_the_reference() -> None:
    """It is fetched with the job's models, and part of what its preparation is known by."""
    judged = {"name": "judge", "model": {"source": "hf://org/judge"}}
    spec = job("grpo", rewards=[judged]).spec
    assert [named.field for named in spec.judges] == ["rewards[0].model.source"]
    assert len(spec.models) == 1
    assert prepare_key(resolve(spec), "runs") != prepare_key(resolve(job("grpo").spec), "runs")


def patterns_in(node: Any) -> set[str]:
    """Every pattern of a schema."""
    if isinstance(node, dict):
        own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
        return own.union(*map(patterns_in, node.values()))
    return set().union(*map(patterns_in, node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("spec", [FineTuneSpec, RLHFSpec])
def test_every_form_has_words(spec: type[Block]) -> None:
    """A pattern tells a person nothing."""
    # Functions with words of their own read quantities, micro batches and languages.
    others = {QUANTITY, "^auto$", f"^({'|'.join(LANGUAGES)})$"}
    assert patterns_in(spec.model_json_schema()) - others <= PATTERN_WORDS.keys()
