"""Beside a Kueue that manages everything it may, our children are left alone, and queues are what a test wrote."""

from typing import Any

import pytest

from cluster import kueue as real_kueue
from cluster import lifecycle
from e2e import queues
from e2e.harness import Kube, small_job

pytestmark = pytest.mark.e2e


def test_children_run_beside_a_kueue_that_holds_every_other_job(kueue: None, kube: Kube) -> None:
    """A Job of nobody is suspended; the prepare Job and the training pods of the same namespace are not."""
    del kueue
    kube.apply(bystander(), small_job("beside"))
    job = kube.until_phase("beside", "Succeeded", seconds=300)
    held = kube.get("jobs.batch", "bystander")
    assert held is not None
    assert held["spec"]["suspend"] is True
    workloads = kube.objects("workloads.kueue.x-k8s.io")
    assert [owner["name"] for each in workloads for owner in each["metadata"]["ownerReferences"]] == ["bystander"]
    for pod in kube.children("pods", job):
        assert "schedulingGates" not in pod["spec"]
        assert "kueue.x-k8s.io/managed" not in pod["metadata"]["labels"]


def test_what_waits_in_a_queue_can_be_asked_of_kueue(kueue: None, kube: Kube) -> None:
    """The second Workload does not fit beside the first: the visibility API says that it is next."""
    del kueue
    name = kube.namespace
    made = (
        queues.flavor(name),
        queues.cluster_queue(name, {name: 2}),
        queues.local_queue("team", name),
    )
    with queues.applied(kube, *made):
        kube.apply(queues.workload("first", queue="team", gpus={"trainer": 2}))
        kube.until("the first is admitted", lambda: queues.is_true(kube, "first", "Admitted"), seconds=30)
        kube.apply(queues.workload("second", queue="team", gpus={"trainer": 2}))
        (next_one,) = kube.until("the second waits", lambda: queues.pending(kube, name), seconds=30)
        assert next_one["metadata"]["name"] == "second"
        assert next_one["positionInLocalQueue"] == 0
        kube.run("delete", "workloads.kueue.x-k8s.io", "first")
        kube.until("the second is admitted", lambda: queues.is_true(kube, "second", "Admitted"), seconds=30)
        kube.run("delete", "workloads.kueue.x-k8s.io", "second")


def test_in_a_namespace_that_is_left_out_only_workloads_are_kueues(
    kueue: None, kube: Kube, cluster: lifecycle.Cluster
) -> None:
    """The other setting of the page: no kind is named, Jobs run as if there were no Kueue, and queues still work."""
    del kueue
    name = kube.namespace
    made = (
        queues.flavor(name),
        queues.cluster_queue(name, {name: 2}),
        queues.local_queue("team", name),
    )
    selector = real_kueue.all_namespaces_but(*real_kueue.UNMANAGED, name)
    frameworks = {"frameworks": ["batch/job", "pod", "deployment"]}
    real_kueue.install(cluster, managedJobsNamespaceSelector=selector, integrations=frameworks)
    try:
        with queues.applied(kube, *made):
            kube.apply(queues.workload("ours", queue="team", gpus={"trainer": 2}), bystander())
            kube.until("it is admitted", lambda: queues.is_true(kube, "ours", "Admitted"), seconds=30)
            job = kube.get("jobs.batch", "bystander")
            assert job is not None
            assert job["spec"]["suspend"] is False
            assert [each["metadata"]["name"] for each in kube.objects("workloads.kueue.x-k8s.io")] == ["ours"]
            kube.run("delete", "workloads.kueue.x-k8s.io", "ours")
    finally:
        real_kueue.install(cluster)


def bystander() -> dict[str, Any]:
    """A plain Job without a queue's name."""
    container = {"name": "none", "image": "localhost/none:1"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bystander"}, "spec": {"template": template}}
