"""The settings file: strict, complete in its complaints, and never guessed."""

from pathlib import Path

import pytest

from anneal_operator.errors import SettingsError
from anneal_operator.settings import load_settings, parse_settings


def test_everything_but_the_images_has_a_default() -> None:
    """A cluster without pools and with one default class needs nothing else."""
    images = "{trainerImage: x:1, operatorImage: y:1, rolloutImage: z:1}"
    settings = parse_settings(images, namespace="sys")
    assert (settings.namespace, settings.pools, settings.storage.size) == ("sys", {}, "100Gi")
    assert settings.monitoring is None


def test_every_problem_is_told_with_its_place() -> None:
    """A misspelt key must not become an operator that ignores it."""
    text = "pools: {h100: {gpuPerNode: 8, gpusPerNode: 0}}\nprogressIntervalSeconds: soon"
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, namespace="sys", where="values")
    for words in ("values: trainerImage: is required", "pools.h100.gpuPerNode: unknown key",
                  "pools.h100.gpusPerNode", "progressIntervalSeconds"):  # fmt: skip
        assert words in str(caught.value)


def test_servers_of_a_version_that_nobody_knows_are_refused_at_once() -> None:
    """As in a job, and not by every job that draws answers; a tag that tells no version is taken as it is."""
    images = "{{trainerImage: x:1, operatorImage: y:1, rolloutImage: {}}}"
    with pytest.raises(SettingsError, match=r"rolloutImage: own/vllm:v0\.40\.0: vLLM's versions 0\.22 to 0\.31"):
        parse_settings(images.format("own/vllm:v0.40.0"), namespace="sys")
    assert parse_settings(images.format("own/vllm:ours"), namespace="sys").rollout_image == "own/vllm:ours"


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
WRONG_POOLS: dict[str, tuple[str, list[str]]] = {
    "affinity": (
        "{affinity: {nodeAffinity: {requiredDuringScheduling: {}}}}",
        ["affinity.nodeAffinity.requiredDuringScheduling: unknown key", REQUIRED],
    ),
    "no-operator": (
        f"{{affinity: {{nodeAffinity: {{{REQUIRED}: {{nodeSelectorTerms: [{{matchExpressions: [{{key: a}}]}}]}}}}}}}}",
        ["matchExpressions[0].operator: is required"],
    ),
    "weight": (
        f"{{affinity: {{podAntiAffinity: {{{PREFERRED}: [{{weight: 101, podAffinityTerm: {{topologyKey: x}}}}]}}}}}}",
        ["weight"],
    ),
    "memory": ("{extraResources: {memory: 1Gi}}", ["memory is not a resource of a device", "rdma/hca"]),
    "part": ("{extraResources: {rdma/hca: 500m}}", ["rdma/hca: 500m is not a whole number"]),
    "type": ("{gpuType: NVIDIA H100}", ["gpuType"]),
    "nodes": ("{nodes: 0}", ["pools.h100.nodes"]),
}  # fmt: skip


@pytest.mark.parametrize(("pool", "words"), WRONG_POOLS.values(), ids=WRONG_POOLS)
def test_a_pool_is_checked_to_its_last_field(pool: str, words: list[str]) -> None:
    """API servers drop what they do not know inside a job: a misspelt affinity would place every pod wrongly."""
    with pytest.raises(SettingsError) as caught:
        parse_settings(f"trainerImage: x:1\npools: {{h100: {pool}}}", namespace="sys")
    assert not [word for word in words if word not in str(caught.value)], caught.value


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "trainerImage: x\nnamespace: me"])
def test_what_is_no_settings_file_is_refused(text: str) -> None:
    """Empty, another shape, not YAML, or with what comes from elsewhere."""
    with pytest.raises(SettingsError):
        parse_settings(text, namespace="sys")


def test_a_missing_file_is_named_with_the_variable_that_gives_it(tmp_path: Path) -> None:
    """One line says where it was looked for."""
    with pytest.raises(SettingsError, match=r"none.yaml: No such file .* ANNEAL_SETTINGS"):
        load_settings({"ANNEAL_SETTINGS": str(tmp_path / "none.yaml")})
    (tmp_path / "settings.yaml").write_text("{trainerImage: x:1, operatorImage: y:1, rolloutImage: z:1}")
    settings = load_settings({"ANNEAL_SETTINGS": str(tmp_path / "settings.yaml"), "POD_NAMESPACE": "here"})
    assert settings.namespace == "here"
