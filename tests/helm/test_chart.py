"""The chart grants what the operator uses, carries the current CRDs, and gives it settings that it can read."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from anneal_operator.cluster import PERMISSIONS
from anneal_operator.settings import Settings, parse_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/anneal"
Render = Callable[..., list[dict[str, Any]]]
Template = Callable[[dict[str, Any]], subprocess.CompletedProcess[str]]

FULL: dict[str, Any] = {
    "images": {
        "registry": "mirror.example.com/anneal",
        "operator": {"digest": f"sha256:{'a' * 64}"},
        "trainer": {"tag": "1.2.3"},
        "colocate": {"repository": "anneal-vllm", "tag": "9"},
        "pullPolicy": "Always",
        "pullSecrets": ["mirror"],
    },
    "pools": {
        "h100": {
            "nodeSelector": {"gpu": "h100", "looks-like": "8"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "infiniband", "operator": "Exists"}]}]
                    }
                },
                "podAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 10,
                            "podAffinityTerm": {"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}},
                        }
                    ]
                },
            },
            "resourceName": "nvidia.com/gpu",
            "extraResources": {"rdma/hca": 1, "hugepages-2Mi": "512Mi"},
            "gpuType": "NVIDIA-H100-80GB-HBM3",
            "gpusPerNode": 8,
            "nodes": 16,
            "memoryGiB": 80,
            "zones": ["zone-a"],
        },
        "cpu": {"resourceName": ""},
    },
    "storage": {"defaultClass": "fast", "size": "1Ti", "accessModes": ["ReadWriteMany"]},
    "progressIntervalSeconds": 2.5,
    "monitoring": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    "logLevel": "debug",
    "operator": {"nodeSelector": {"role": "system"}, "tolerations": [{"operator": "Exists"}]},
}


def one(objects: list[dict[str, Any]], kind: str, name: str = "anneal") -> dict[str, Any]:
    """The one object of this kind and name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def settings(objects: list[dict[str, Any]]) -> Settings:
    """What the operator makes of the rendered settings."""
    return parse_settings(one(objects, "ConfigMap")["data"]["settings.yaml"], namespace="anneal-system")


def granted(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every rule."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_grants_exactly_what_the_operator_asks_for(render: Render) -> None:
    """Not a verb more and not one less than the operator's own table, which it checks before every request."""
    objects = render()
    assert granted(one(objects, "ClusterRole")) == PERMISSIONS
    roles = [each for each in objects if each["kind"] in {"Role", "ClusterRole"}]
    assert not [grant for role in roles for grant in granted(role) if "secrets" in grant or "*" in grant]
    # Nodes are read, on demand, and nothing else.
    assert {grant for role in roles for grant in granted(role) if "nodes" in grant[1]} == {("", "nodes", "list")}


def test_only_the_operators_account_is_bound(render: Render) -> None:
    """One binding, to the account that the Deployment runs under."""
    objects = render()
    (binding,) = (each for each in objects if each["kind"].endswith("Binding"))
    account = {"kind": "ServiceAccount", "name": "anneal", "namespace": "anneal-system"}
    assert binding["subjects"] == [account]
    assert binding["roleRef"]["name"] == "anneal"
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "anneal"


@pytest.mark.parametrize(
    ("role", "verbs"), [("view", {"get", "list", "watch"}), ("edit", {"create", "patch", "delete"})]
)
def test_people_get_the_jobs_with_kubernetes_own_roles(render: Render, role: str, verbs: set[str]) -> None:
    """The view and edit roles are aggregated into those of the same name."""
    found = one(render(), "ClusterRole", f"anneal-{role}")
    assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
    assert {("anneal.dev", "finetunejobs", verb) for verb in verbs} <= granted(found)


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "crds").glob("*.yaml")))
def test_the_crds_are_those_of_the_models_and_are_kept(render: Render, file: str) -> None:
    """Rendered, each CRD equals the generated one but for the annotation that keeps it."""
    source = yaml.safe_load((ROOT / "crds" / file).read_text())
    crd = one(render(), "CustomResourceDefinition", source["metadata"]["name"])
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert crd == source


def test_crds_can_be_left_to_others_or_removed_with_the_chart(render: Render) -> None:
    """`crds.install=false` renders none; `crds.keep=false` renders them without the policy."""
    assert not [each for each in render(crds={"install": False}) if each["kind"] == "CustomResourceDefinition"]
    crd = one(render(crds={"keep": False}), "CustomResourceDefinition", "finetunejobs.anneal.dev")
    assert "annotations" not in crd["metadata"]


def test_the_default_settings_are_readable(render: Render) -> None:
    """With no values the operator reads its settings, and they are its own defaults."""
    images = {
        "trainerImage": "anneal-trainer:0.1.0",
        "operatorImage": "anneal-operator:0.1.0",
        "rolloutImage": "vllm/vllm-openai:v0.31.0",
    }
    expected = Settings.model_validate(images)
    assert settings(render()) == expected


def test_every_value_reaches_the_settings(render: Render) -> None:
    """Pools, storage, images and the rest arrive as they were written."""
    found = settings(render(**FULL))
    assert found.trainer_image == "mirror.example.com/anneal/anneal-trainer:1.2.3"
    assert found.operator_image == f"mirror.example.com/anneal/anneal-operator@sha256:{'a' * 64}"
    assert found.rollout_image == "mirror.example.com/anneal/vllm/vllm-openai:v0.31.0"
    assert found.colocate_image == "mirror.example.com/anneal/anneal-vllm:9"
    assert (found.image_pull_policy, found.image_pull_secrets) == ("Always", ["mirror"])
    written = {**FULL["pools"]["h100"], "extraResources": {"rdma/hca": "1", "hugepages-2Mi": "512Mi"}}
    assert found.pools["h100"].model_dump(mode="json", exclude_unset=True) == written
    assert found.pools["cpu"].resource_name == ""
    assert found.storage.dump() == FULL["storage"]
    assert found.monitoring is not None
    assert found.monitoring.namespace_selector.match_labels == {"kubernetes.io/metadata.name": "monitoring"}
    assert (found.progress_interval_seconds, found.log_level) == (2.5, "debug")


def test_the_operators_pod_takes_its_values(render: Render) -> None:
    """Image by digest, pull secrets, node selector and tolerations are on the pod."""
    pod = one(render(**FULL), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"mirror.example.com/anneal/anneal-operator@sha256:{'a' * 64}"
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]
    assert pod["nodeSelector"] == {"role": "system"}
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_new_settings_restart_the_operator(render: Render) -> None:
    """The pod template changes with the settings, which are read once at start, and only then."""

    def template(**values: Any) -> dict[str, Any]:
        found: dict[str, Any] = one(render(**values), "Deployment")["spec"]["template"]
        return found

    assert template() == template()
    assert template() != template(logLevel="debug")


def test_one_operator_runs_at_a_time(render: Render) -> None:
    """One replica, replaced by recreation."""
    spec = one(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operators_pod_meets_the_restricted_standard(render: Render) -> None:
    """What the restricted Pod Security Standard asks for, and a read-only root file system."""
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {"configMap", "emptyDir"}
    assert container["resources"]["limits"]["memory"]
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")} == {
        "/healthz"
    }


def test_nobody_reaches_the_operator_unless_monitoring_is_named(render: Render) -> None:
    """Without `monitoring` the policy admits nothing; with it, port 8080 from those pods."""
    assert one(render(), "NetworkPolicy")["spec"]["ingress"] == []
    (rule,) = one(render(**FULL), "NetworkPolicy")["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": FULL["monitoring"]["namespaceSelector"], "podSelector": {}}]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_the_policy_and_the_service_select_the_operator(render: Render) -> None:
    """Both selectors match the labels of the pod, and so does what jobs' policies select by."""
    objects = render()
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(objects, "Service")["spec"]["selector"].items() <= labels.items()
    assert one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    fixed = {"app.kubernetes.io/name": "anneal", "app.kubernetes.io/component": "operator"}
    assert fixed.items() <= labels.items()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"pool": {}}, "additional properties 'pool' not allowed", id="unknown-key"),
        pytest.param({"pools": {"a": {"selector": {}}}}, "additional properties 'selector' not allowed", id="pool-key"),
        pytest.param({"pools": {"Bad.Name": {}}}, "additional properties 'Bad.Name' not allowed", id="pool-name"),
        pytest.param({"pools": {"a": {"gpusPerNode": 0}}}, "/pools/a/gpusPerNode", id="range"),
        pytest.param({"pools": {"a": {"nodes": 0}}}, "/pools/a/nodes", id="nodes"),
        pytest.param({"pools": {"a": {"affinity": {"nodes": {}}}}}, "additional properties 'nodes'", id="affinity"),
        pytest.param(
            {"pools": {"a": {"affinity": {"podAntiAffinity": {"required": []}}}}},
            "additional properties 'required'",
            id="affinity-below",
        ),
        pytest.param({"pools": {"a": {"extraResources": {"cpu": 1}}}}, "additional properties 'cpu'", id="resource"),
        pytest.param({"pools": {"a": {"extraResources": {"rdma/hca": "1m"}}}}, "rdma~1hca", id="part-of-a-device"),
        pytest.param({"pools": {"a": {"gpuType": "NVIDIA H100"}}}, "/pools/a/gpuType", id="gpu-type"),
        pytest.param({"images": {"operator": {"digest": "abc"}}}, "/images/operator/digest", id="digest"),
        # The chart's own version, which the others have by default, is none of vLLM's.
        pytest.param({"images": {"rollout": {"tag": ""}}}, "/images/rollout/tag", id="vllm-without-version"),
        pytest.param({"storage": {"accessModes": ["ReadOnlyMany"]}}, "/storage/accessModes/0", id="access-mode"),
        pytest.param({"logLevel": "loud"}, "/logLevel", id="log-level"),
    ],
)
def test_values_that_mean_nothing_are_refused(helm_template: Template, values: dict[str, Any], said: str) -> None:
    """A misspelt or impossible value stops the installation and is named."""
    done = helm_template(values)
    assert done.returncode != 0
    assert said in done.stderr


def test_every_value_is_in_the_schema_and_explained() -> None:
    """The default values are valid, the schema knows no value that the file lacks, and each section has a comment."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    jsonschema.validate(values, schema)
    assert schema["properties"].keys() - {"global"} == values.keys()
    for key in values:
        # A line of comment above the key, or above the first key inside it.
        assert re.search(rf"(?m)^#.*\n{key}:|^{key}:\n  #", text), key


def test_the_chart_and_the_package_have_one_version() -> None:
    """A release moves both."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'(?m)^version = "(.+)"', (ROOT / "pyproject.toml").read_text())
    assert project is not None
    assert chart["version"] == chart["appVersion"] == project[1]


def test_another_release_name_is_part_of_every_name(helm: Path) -> None:
    """Objects are named for their release, so that cluster-wide ones do not collide."""
    command = [str(helm), "template", "team", str(CHART), "-n", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [
        each["metadata"]["name"] for each in yaml.safe_load_all(done.stdout) if "CustomResource" not in each["kind"]
    ]
    assert names
    assert all(name.startswith("team-anneal") for name in names)
