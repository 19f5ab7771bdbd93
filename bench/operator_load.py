"""The operator on the real cluster: memory, `kubectl apply` to PyTorchJob created, API calls per job.

For the latency the training-operator is stopped, so that 100 PyTorchJobs stay objects instead of 100 pods on one node,
and the data is prepared by one job that the others share it with (they differ in learning rate only).
Times are taken here: from before the create request to the watch event of the PyTorchJob, on one clock.
References of the same run: for memory a process that only imports the operator's libraries; for the latency the way of
one ConfigMap from its create request to its watch event, which no controller can undercut.
"""

import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from table import Row, report
from urllib3.exceptions import ProtocolError

from cluster import lifecycle
from e2e.harness import Kube, small_job
from e2e.install import SYSTEM, install, make_namespace, seeded_claim

JOBS = 100
SECONDS = 10
NAMESPACE = "bench"
IDLE_SECONDS = 20


def metric(kube: Kube, name: str) -> float:
    """The sum of a metric's series in the operator's own exposition."""
    (pod,) = kube.objects("pods", "app.kubernetes.io/component=operator")
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    lines = kube.run("get", "--raw", path).stdout.splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    if not values:
        raise SystemExit(f"the operator exposes no metric {name}")
    return sum(values)


def memory(kube: Kube) -> float:
    """Resident memory of the operator in MB."""
    return metric(kube, "process_resident_memory_bytes") / 1e6


@contextmanager
def engine_stopped(kube: Kube) -> Iterator[None]:
    """No training-operator: PyTorchJobs are created and stay as they are. Its webhook is set aside meanwhile."""
    hooks = "validatingwebhookconfiguration/validator.training-operator.kubeflow.org"
    saved = kube.run("get", hooks, "-o", "json").stdout
    kube.run("scale", "deployment/training-operator", "-n", "kubeflow", "--replicas=0")
    kube.run("delete", hooks)
    try:
        yield
    finally:
        kube.run("create", "-f", "-", stdin=saved, check=False)
        kube.run("scale", "deployment/training-operator", "-n", "kubeflow", "--replicas=1")


def created_times(api: client.CustomObjectsApi, seen: dict[str, float], stop: threading.Event) -> None:
    """Note when the first PyTorchJob of each owner appears."""
    stream = watch.Watch().stream(
        api.list_namespaced_custom_object, "kubeflow.org", "v1", NAMESPACE, "pytorchjobs", timeout_seconds=120
    )
    # The watch outlives the jobs and ends with the cluster.
    with suppress(ProtocolError):
        for event in stream:
            owner = event["object"]["metadata"]["ownerReferences"][0]["name"]
            seen.setdefault(owner, time.monotonic())
            if stop.is_set():
                return


def latencies(kubeconfig: Path) -> list[float]:
    """Seconds from create to PyTorchJob for JOBS objects created within SECONDS."""
    config.load_kube_config(str(kubeconfig))
    api = client.CustomObjectsApi()
    seen: dict[str, float] = {}
    stop = threading.Event()
    watcher = threading.Thread(target=created_times, args=(client.CustomObjectsApi(), seen, stop), daemon=True)
    watcher.start()
    begun: dict[str, float] = {}
    start = time.monotonic()
    for number in range(JOBS):
        time.sleep(max(0.0, start + number * SECONDS / JOBS - time.monotonic()))
        name = f"load-{number}"
        begun[name] = time.monotonic()
        api.create_namespaced_custom_object(
            "anneal.dev", "v1alpha1", NAMESPACE, "finetunejobs", load_job(name, 1e-3 + number * 1e-6)
        )
    deadline = time.monotonic() + 90
    while not begun.keys() <= seen.keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    missing = begun.keys() - seen.keys()
    if missing:
        raise SystemExit(f"no PyTorchJob within 90 s for {len(missing)} of {JOBS} jobs, such as {min(missing)}")
    return sorted(seen[name] - begun[name] for name in begun)


def load_job(name: str, learning_rate: float) -> dict[str, Any]:
    """One of many jobs on the same data."""
    return small_job(name, training={"maxSteps": 3, "learningRate": learning_rate})


def bare_latencies(kubeconfig: Path) -> list[float]:
    """Seconds from create to watch event of JOBS ConfigMaps, one after another: the API server's own share."""
    config.load_kube_config(str(kubeconfig))
    api = client.CoreV1Api()
    version = api.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    stream = watch.Watch().stream(
        client.CoreV1Api().list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=120
    )
    return sorted(_seen_after(api, stream, f"bare-{number}") for number in range(JOBS))


def _seen_after(api: client.CoreV1Api, stream: Iterator[Any], name: str) -> float:
    begun = time.monotonic()
    api.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name)))
    for event in stream:
        if event["type"] == "ADDED" and event["object"].metadata.name == name:
            return time.monotonic() - begun
    raise SystemExit(f"no watch event of ConfigMap {name}")


def bare_memory() -> float:
    """Resident MB of a process that imports what the operator is made of, and does nothing."""
    code = "import kopf, kubernetes.aio, prometheus_client, pydantic, psutil; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) / 1e6


def p99(times: list[float]) -> float:
    """The value that 99 % of sorted `times` do not exceed."""
    return times[math.ceil(0.99 * len(times)) - 1]


def calls_per_job(kube: Kube, system: Kube) -> float:
    """API requests of the operator while one job goes from create to Succeeded, less its idle rate."""
    kube.apply(load_job("prepares-the-data", 1e-3))
    kube.until_phase("prepares-the-data", "Succeeded", seconds=300)
    time.sleep(5)
    before = metric(system, "anneal_api_calls_total")
    kube.apply(load_job("counted", 2e-3))
    kube.until_phase("counted", "Succeeded", seconds=300)
    time.sleep(3)
    return metric(system, "anneal_api_calls_total") - before


def main() -> None:
    """Measure and report."""
    cluster = lifecycle.up("bench")
    try:
        rows = measured(cluster)
    finally:
        lifecycle.down("bench")
    report("operator", rows)


def measured(cluster: lifecycle.Cluster) -> list[Row]:
    """Every row, on a running cluster."""
    system = install(cluster, {})
    time.sleep(IDLE_SECONDS)
    idle = memory(system)
    make_namespace(system, NAMESPACE)
    seeded_claim(cluster, system, NAMESPACE)
    kube = Kube(cluster.kubectl, cluster.kubeconfig, NAMESPACE)
    calls = calls_per_job(kube, system)
    with engine_stopped(system):
        times = latencies(cluster.kubeconfig)
        loaded = memory(system)
        bare = bare_latencies(cluster.kubeconfig)
    return [
        Row("memory idle", idle, bare_memory(), "MB", "< 120 MB"),
        Row(f"memory with {JOBS} jobs", loaded, idle, "MB", "-"),
        Row("create to PyTorchJob, p50", statistics.median(times), statistics.median(bare), "s", "-"),
        Row("create to PyTorchJob, p99", p99(times), p99(bare), "s", "< 1 s"),
        Row("API calls of a job, create to Succeeded", calls, None, "calls", "-"),
    ]


if __name__ == "__main__":
    main()
