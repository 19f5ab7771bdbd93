"""What belongs to the cluster: policies, permissions, and a cluster without the training-operator's CRD.

Last by name: the final test removes a CRD that every other test needs, and puts it back.
"""

import json
from typing import Any

import pytest

from e2e.harness import Kube, condition, small_job

pytestmark = pytest.mark.e2e


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector (matchLabels and In expressions) selects these labels."""
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


def test_the_network_policy_selects_the_pods_it_is_for(kube: Kube) -> None:
    """The test cluster's network enforces no policy, so its selectors are checked against real pods' labels."""
    kube.apply(small_job("guarded", training={"maxSteps": 150}, compute={"nodes": 2}))
    job = kube.until_step("guarded", 1)
    (policy,) = kube.children("networkpolicies", job)
    pods = kube.objects("pods", f"anneal.dev/owner-uid={job['metadata']['uid']},anneal.dev/role=trainer")
    assert len(pods) == 2
    for pod in pods:
        labels = pod["metadata"]["labels"]
        assert matches(policy["spec"]["podSelector"], labels)
        peers = [rule["from"] for rule in policy["spec"]["ingress"] if "ports" not in rule]
        assert any(matches(peer["podSelector"], labels) for peer in peers[0])
    (operator,) = json.loads(
        kube.run(
            "get", "pods", "-n", "anneal-system", "-l", "app.kubernetes.io/component=operator", "-o", "json"
        ).stdout
    )["items"]
    namespace = json.loads(kube.run("get", "namespace", "anneal-system", "-o", "json").stdout)
    allowed = [peer for rule in policy["spec"]["ingress"] if "ports" in rule for peer in rule["from"]]
    assert any(
        matches(peer["namespaceSelector"], namespace["metadata"]["labels"])
        and matches(peer["podSelector"], operator["metadata"]["labels"])
        for peer in allowed
    )


def test_the_operator_may_not_read_secrets(kube: Kube) -> None:
    """Least privilege, asked of the API server itself."""
    account = "system:serviceaccount:anneal-system:anneal"
    for verb in ("get", "list", "watch"):
        answer = kube.run("auth", "can-i", verb, "secrets", "--as", account, "-A", check=False)
        assert answer.stdout.strip() == "no"
    assert kube.run("auth", "can-i", "list", "finetunejobs.anneal.dev", "--as", account, "-A").stdout.strip() == "yes"


def test_trainer_pods_hold_no_credential_and_run_restricted(kube: Kube) -> None:
    """No service account token; the namespace enforces the restricted standard, so the rest is already admitted."""
    kube.apply(small_job("bare", training={"maxSteps": 2}))
    job = kube.until_phase("bare", "Succeeded")
    pods = kube.children("pods", job)
    assert len(pods) == 2
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        mounts = [mount["mountPath"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]]
        assert not [path for path in mounts if "serviceaccount" in path]
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["spec"]["containers"])


def test_without_the_pytorchjob_crd_the_operator_says_so_and_recovers(kube: Kube) -> None:
    """The data is prepared, the condition names what is missing, and the job goes on when it is there."""
    name = "pytorchjobs.kubeflow.org"
    crd = json.loads(kube.run("get", "crd", name, "-o", "json").stdout)
    kube.run("delete", "crd", name, "--timeout=60s")
    try:
        kube.apply(small_job("engineless"))
        job = kube.until(
            "it waits for the engine",
            lambda: next(
                (j for j in [kube.job("engineless")] if condition(j, "Running").get("reason") == "WaitingForEngine"),
                None,
            ),
            name="engineless",
        )
        assert "PyTorchJob" in condition(job, "Running")["message"]
    finally:
        kept = {key: crd["metadata"].get(key, {}) for key in ("labels", "annotations")}
        crd["metadata"] = {"name": name, **kept}
        crd.pop("status", None)
        kube.run("create", "-f", "-", stdin=json.dumps(crd))
        # `kubectl wait` fails on a CRD that has no condition yet.
        kube.until("PyTorchJobs are served", lambda: not kube.run("get", "pytorchjobs", check=False).returncode)
        kube.run("rollout", "restart", "deployment/training-operator", "-n", "kubeflow")
        kube.run("rollout", "status", "deployment/training-operator", "-n", "kubeflow", "--timeout=120s")
    kube.until_phase("engineless", "Succeeded", seconds=300)
