"""All mistakes of a manifest at once: rules between fields are asked for also where other fields are wrong."""

import time
from typing import Any

import pytest

from anneal_api import ManifestError, parse_job
from api import test_rlhf_spec as rlhf

# Wrong by itself, and looked at by no rule.
WRONG = {"output": {"path": "/a"}}
TOLD = "spec.output.path: '/a' (str) is not a path below the storage"


def problems(spec: dict[str, Any], method: str = "grpo") -> list[str]:
    """Of a job with these blocks."""
    with pytest.raises(ManifestError) as caught:
        parse_job(rlhf.manifest(method, **spec))
    return list(map(str, caught.value.problems))


@pytest.mark.parametrize(("method", "spec", "expected"), rlhf.BAD, ids=[each[2][:30] for each in rlhf.BAD])
def test_a_broken_rule_is_told_beside_a_wrong_field(method: str, spec: dict[str, Any], expected: str) -> None:
    """What is told of each alone is told of both, and nothing else."""
    alone, both = problems(spec, method), problems({**spec, **WRONG}, method)
    assert any(expected in problem for problem in both)
    assert [problem for problem in both if not problem.startswith(TOLD)] == alone
    assert len(both) == len(alone) + 1


@pytest.mark.parametrize("spec", rlhf.GOOD.values(), ids=rlhf.GOOD)
def test_a_wrong_field_breaks_no_rule(spec: dict[str, Any]) -> None:
    """Beside all that is right it is the only thing told."""
    (told,) = problems({**spec, **WRONG})
    assert told.startswith(TOLD)


def test_rules_of_every_block_are_asked_for() -> None:
    """Of the spec, of a block and of one in a list, beside wrong fields of the same blocks."""
    told = problems(method="ppo", spec={
        "rewards": [{"name": "a", "weight": "1", "length": {}}],
        "rollout": {"mode": "colocate", "replicas": 2, "tensorParallel": 0},
        "compute": {"nodes": 2, "minNodes": 1, "gpusPerNode": -1},
        "datasets": [{"source": "nowhere", "weight": 1.0}, rlhf.DATA],
    })  # fmt: skip
    assert [problem[: problem.index(": ")] for problem in told] == [
        "spec.compute.gpusPerNode",
        "spec.compute.minNodes",
        "spec.datasets",
        "spec.datasets[0].source",
        "spec.method",
        "spec.rewards[0].length",
        "spec.rewards[0].weight",
        "spec.rollout.mode",
        "spec.rollout.tensorParallel",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {"training": {"globalBatchSize": "12"}},
        {"adapter": {"r": "16"}, "model": {"source": "hf://a/b", "quantization": "nf4"}},
        {"adaptr": {}, "model": {"source": "hf://a/b", "quantization": "nf4"}, "compute": {"gpusPerNode": 0}},
        {"rewards": [{"name": "a", "macth": {}}]},
        {"rewards": [{"name": "a", "match": 1}]},
        {"rewards": [{"name": "a", "length": {"most": "9"}}]},
        {"rewards": "exact"},
        {"rewards": {"name": "a", "match": {}}},
        {"compute": [{"nodes": 2, "minNodes": 1}]},
        {"rewards": [rlhf.EXACT, "length"]},
        {"datasets": []},
        {"rollout": {"image": 1}},
        {"compute": None, "training": {"epochs": 0}},
    ],
)
def test_a_mistake_is_told_once(spec: dict[str, Any]) -> None:
    """A rule that looks at what is wrong, or may be spelled wrong, is left for later."""
    assert len(problems(spec)) == 1


def test_what_breaks_a_rule_of_its_block_is_wrong_to_the_others() -> None:
    """More of minNodes than of nodes is told, and not what it does not divide as well."""
    (told,) = problems({"compute": {"nodes": 2, "minNodes": 3}, "queue": "team", "adapter": {}})
    assert told.startswith("spec.compute.minNodes: minNodes is at most nodes")


def test_mistakes_are_found_in_no_time() -> None:
    """Also the operator looks for them at every turn."""
    problems(WRONG)
    begun = time.monotonic()
    problems(WRONG)
    assert time.monotonic() - begun < 0.2
