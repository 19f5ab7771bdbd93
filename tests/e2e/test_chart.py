"""The chart on a real cluster: CRDs move with an upgrade, and jobs outlive the operator."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import lifecycle
from e2e.harness import JOB, Kube, small_job
from e2e.install import CHART, SYSTEM, install

pytestmark = pytest.mark.e2e
CRD_FILE = "templates/crds/finetunejobs.yaml"
SETTINGS = {"progressIntervalSeconds": 1}  # as the session installed it


def helm(cluster: lifecycle.Cluster, *arguments: str) -> None:
    """A helm command on the operator's release."""
    command = [str(cluster.helm), f"--kubeconfig={cluster.kubeconfig}", *arguments, "-n", SYSTEM, "--wait"]
    subprocess.run([*command, "--timeout=180s"], check=True, capture_output=True, text=True)


def columns(kube: Kube) -> list[str]:
    """The names of the CRD's printer columns."""
    path = "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"
    return kube.run("get", "crd", JOB, "-o", path).stdout.split()


def test_an_upgrade_brings_the_crds(kube: Kube, cluster: lifecycle.Cluster, tmp_path: Path) -> None:
    """A release of an older chart gets the present CRD with `helm upgrade`, which a chart's crds/ folder would not do."""
    expected = columns(kube)
    older = tmp_path / "anneal"
    shutil.copytree(CHART, older)
    text = (older / CRD_FILE).read_text()
    last_column = text.index(f"    - name: {expected[-1]}\n")
    (older / CRD_FILE).write_text(text[:last_column] + text[text.index("    schema:\n") :])
    try:
        helm(cluster, "upgrade", "anneal", str(older), "--reuse-values")
        assert columns(kube) == expected[:-1]
    finally:
        install(cluster, SETTINGS)
    assert columns(kube) == expected


def test_uninstalling_keeps_the_jobs(kube: Kube, cluster: lifecycle.Cluster) -> None:
    """The CRD and its objects stay; an operator that is installed again goes on with them."""
    kube.apply(small_job("kept", runPolicy={"suspend": True}))
    kube.until_phase("kept", "Suspended")
    uid = kube.job("kept")["metadata"]["uid"]
    try:
        helm(cluster, "uninstall", "anneal")
        assert kube.job("kept")["metadata"]["uid"] == uid
        kube.patch("kept", {"runPolicy": {"suspend": False}})
    finally:
        install(cluster, SETTINGS)
    kube.until_phase("kept", "Succeeded")
