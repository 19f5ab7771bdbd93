"""The objects that are made: security, resources, placement, and what the trainer is told."""

import json
from typing import Any

import pytest

from anneal_api.exitcodes import USER_ERRORS
from anneal_api.jobfile import JobFile
from anneal_api.meta import GRACE_SECONDS, PROGRESS_PORT
from anneal_api.status import Attempt
from anneal_operator.kinds import Obj
from anneal_operator.manifests import claim, configmap, networkpolicy, prepare, pytorchjob
from anneal_operator.placement import ANYWHERE
from anneal_operator.plan import Plan, plan_of
from anneal_operator.pools import discover
from anneal_operator.settings import LabelSelector, Monitoring, Pool
from simulated.builders import make_job, make_node, make_settings, stamp

FIRST = Attempt(number=1, start_time=stamp(0))


def make_plan(*, name: str = "bot", settings: dict[str, Any] | None = None, **spec: Any) -> Plan:
    """A plan with the test's settings."""
    return plan_of(make_job(name, **spec), make_settings(**(settings or {})))


def trainer(plan: Plan, *, micro: int | None = None) -> tuple[Obj, Obj]:
    """The training pod's spec and container."""
    attempt = Attempt(number=2, start_time=stamp(0), micro_batch_size=micro)
    job = pytorchjob.build(plan, attempt, ANYWHERE)
    (replicas,) = job["spec"]["pytorchReplicaSpecs"].values()
    spec = replicas["template"]["spec"]
    return spec, spec["containers"][0]


def preparer(plan: Plan) -> tuple[Obj, Obj]:
    """The prepare pod's spec and container."""
    spec = prepare.build(plan)["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def env(container: Obj) -> dict[str, Any]:
    """Environment by name; of two the last, as the kubelet has it."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize("pod", [trainer, preparer], ids=["train", "prepare"])
def test_pods_are_what_restricted_namespaces_admit(pod: Any) -> None:
    """No root, no privilege, no token, no writable root file system."""
    spec, container = pod(make_plan())
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert spec["terminationGracePeriodSeconds"] == GRACE_SECONDS
    assert container["name"] == "pytorch"
    assert container["terminationMessagePolicy"] == "File"
    assert not {"hostNetwork", "hostPID", "initContainers"} & set(spec)


def test_one_node_is_a_master_and_several_are_workers_alone() -> None:
    """With both, the engine would inject an init container that restricted namespaces refuse."""
    one, three = (
        pytorchjob.build(make_plan(compute={"nodes": n}, training={"globalBatchSize": 24}), FIRST, ANYWHERE)
        for n in (1, 3)
    )
    assert list(one["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert list(three["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    assert three["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
    for job in (one, three):
        assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "Running"}
        (replicas,) = job["spec"]["pytorchReplicaSpecs"].values()
        assert replicas["restartPolicy"] == "Never"
        assert "elasticPolicy" not in job["spec"]


def test_workers_find_each_other_by_name_and_index() -> None:
    """The rank is the replica index, and the master is worker 0."""
    plan = make_plan(compute={"nodes": 2})
    spec, container = trainer(plan)
    values = env(container)
    assert values["PET_MASTER_ADDR"] == f"{plan.attempt_name(2)}-worker-0"
    assert values["PET_NNODES"] == "2"
    assert "replica-index" in values["PET_NODE_RANK"]["fieldRef"]["fieldPath"]
    assert "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["podAntiAffinity"]


def test_workers_wait_for_each_other_longer_than_a_lack_of_places_may_last() -> None:
    """Torchrun would fail after ten minutes, which would count as a failure of the attempt."""
    plan = make_plan(compute={"nodes": 2}, runPolicy={"schedulingTimeoutSeconds": 7200})
    assert env(trainer(plan)[1])["PET_RDZV_CONF"] == "timeout=8100"
    assert "PET_RDZV_CONF" not in env(trainer(make_plan())[1])


def test_trainers_never_download_and_preparers_may() -> None:
    """A GPU does not wait for a hub."""
    assert env(trainer(make_plan())[1])["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in env(preparer(make_plan())[1])


def test_attempt_and_lowered_micro_batch_reach_the_trainer() -> None:
    """The micro batch only if the operator lowered it."""
    assert env(trainer(make_plan())[1])["ANNEAL_ATTEMPT"] == "2"
    assert "ANNEAL_MICRO_BATCH_SIZE" not in env(trainer(make_plan())[1])
    assert env(trainer(make_plan(), micro=1)[1])["ANNEAL_MICRO_BATCH_SIZE"] == "1"


def test_shared_memory_counts_as_memory() -> None:
    """/dev/shm is memory of the container: its size is in the limit, or the pod is killed for using it."""
    spec, container = trainer(make_plan(compute={"memory": "2Gi", "sharedMemory": "512Mi", "cpu": 3}))
    assert container["resources"]["limits"] == {"memory": str(2048 * 2**20 + 512 * 2**20)}
    assert container["resources"]["requests"]["cpu"] == "3"
    (shm,) = [each for each in spec["volumes"] if each["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}


def test_a_pool_places_the_trainer_and_only_its_zones_place_the_preparer() -> None:
    """A CPU pod must not need a GPU node, but its volume must bind where GPUs are."""
    plan = make_plan(compute={"pool": "h100", "gpusPerNode": 4}, training={"globalBatchSize": 16})
    spec, container = trainer(plan)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert spec["nodeSelector"] == {"gpu": "h100", "topology.kubernetes.io/zone": "a"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    prepare_spec, prepare_container = preparer(plan)
    assert prepare_spec["nodeSelector"] == {"topology.kubernetes.io/zone": "a"}
    assert "tolerations" not in prepare_spec
    assert "nvidia.com/gpu" not in prepare_container["resources"]["limits"]
    for pod in (spec, prepare_spec):
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert terms[0]["matchExpressions"][0]["values"] == ["a", "b"]


def make_pool_plan(*, nodes: int = 1, gpus: int = 2, **pool: Any) -> Plan:
    """A plan for a pool with these fields."""
    settings = {"pools": {"mine": Pool.model_validate(pool)}}
    compute = {"pool": "mine", "gpusPerNode": gpus, "nodes": nodes, "cpu": 16}
    return make_plan(settings=settings, compute=compute, training={"globalBatchSize": 16})


def test_a_pools_affinity_is_joined_with_its_zones_and_the_jobs_own_wish() -> None:
    """Terms of a node affinity are alternatives, so each gets the zones; the prepare pod gets nothing but those."""
    expressions = [{"key": key, "operator": "Exists"} for key in ("infiniband", "roce")]
    wish = {"weight": 1, "podAffinityTerm": {"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}}}
    required = {"nodeSelectorTerms": [{"matchExpressions": [each]} for each in expressions]}
    affinity = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]},
    }
    plan = make_pool_plan(nodes=2, affinity=affinity, zones=["a"])
    found = trainer(plan)[0]["affinity"]
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}
    terms = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [each, zone]} for each in expressions]
    mine, ours = found["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert mine == wish
    assert ours["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert trainer(make_pool_plan(affinity=affinity))[0]["affinity"] == affinity
    only = {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
    assert preparer(plan)[0]["affinity"] == {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": only}}
    assert "affinity" not in trainer(make_pool_plan())[0]


def test_a_pools_other_devices_go_to_pods_with_gpus_alone() -> None:
    """Of RDMA, say: in limits and requests alike, and not counted as processes that share the CPU."""
    extra = {"rdma/hca": 8, "hugepages-2Mi": "5120Mi"}
    container = trainer(make_pool_plan(extraResources=extra))[1]
    for kind in ("limits", "requests"):
        assert {"rdma/hca": "8", "hugepages-2Mi": "5120Mi", "nvidia.com/gpu": "2"}.items() <= container["resources"][
            kind
        ].items()
    assert env(container)["OMP_NUM_THREADS"] == "8"
    for without in (preparer(make_pool_plan(extraResources=extra))[1], trainer(make_pool_plan(gpus=0))[1]):
        assert "rdma/hca" not in without["resources"]["limits"]


def test_a_pool_that_was_found_places_the_trainer_like_a_declared_one() -> None:
    """By its product; the prepare pod goes where its nodes are."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "topology.kubernetes.io/zone": "b"}
    groups = discover([make_node(labels=labels)], {})
    plan = plan_of(make_job(compute={"gpuType": "l4", "gpusPerNode": 2}), make_settings(pools={}), groups)
    spec, container = trainer(plan)
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "affinity" not in spec
    required = preparer(plan)[0]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["b"]


def test_claims_are_mounted_where_the_trainer_looks_and_sources_read_only() -> None:
    """`volume://CLAIM/PATH` is the same path in every pod."""
    plan = make_plan(datasets=[{"source": "volume://data/a.jsonl"}, {"source": "volume://runs/b.jsonl"}])
    spec, container = trainer(plan)
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
    assert mounts["/anneal/volumes/runs"] is False
    assert mounts["/anneal/volumes/data"] is True
    claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each]
    assert claims == ["runs", "data"]


def test_a_jobs_own_options_are_added_and_replace_nothing() -> None:
    """Labels that the operator selects by, its volumes and its environment stay."""
    options = {
        "labels": {"team": "nlp", "app.kubernetes.io/managed-by": "me"},
        "env": [{"name": "HOME", "value": "/root"}, {"name": "MINE", "value": "1"}],
        "volumes": [{"name": "config", "mountPath": "/extra", "secret": {"secretName": "certificates"}}],
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "nodeSelector": {"disk": "fast"},
    }
    plan = make_plan(
        compute={"pod": options, "serviceAccountName": "cloud"}, secrets=[{"name": "hf"}], priorityClass="high"
    )
    job = pytorchjob.build(plan, FIRST, ANYWHERE)
    labels = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"]
    spec, container = trainer(plan)
    assert (labels["team"], labels["app.kubernetes.io/managed-by"]) == ("nlp", "anneal")
    assert (env(container)["HOME"], env(container)["MINE"]) == ("/tmp", "1")
    names = [each["name"] for each in spec["volumes"]]
    assert len(names) == len(set(names))
    assert {"name": "extra-0", "secret": {"secretName": "certificates"}} in spec["volumes"]
    assert container["envFrom"] == [{"secretRef": {"name": "hf"}}]
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("cloud", "high")
    assert spec["nodeSelector"] == {"disk": "fast"}


def test_the_prepare_pod_gets_the_secrets_of_its_sources() -> None:
    """As environment, by the kubelet; their values are in no object of ours."""
    job = prepare.build(make_plan(secrets=[{"name": "s3-reader"}, {"name": "database"}]))
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3-reader"}}, {"secretRef": {"name": "database"}}]


def test_the_prepare_job_stops_at_user_errors_and_ignores_disruptions() -> None:
    """Retrying what a person must change wastes their time; an eviction is not the job's fault."""
    spec = prepare.build(make_plan())["spec"]
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", list(USER_ERRORS))
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_config_map_is_what_the_trainer_parses_and_its_name_follows_its_content() -> None:
    """Whoever reads it gets the resolved job; suspending it changes nothing in it."""
    plan = make_plan()
    built = configmap.build(plan)
    read = JobFile.decode(built["data"]["job.json"])
    assert read.job.spec.training.learning_rate == 2e-4
    assert (read.storage_claim, read.uid) == ("runs", "uid-bot")
    assert built["immutable"]
    assert configmap.build(make_plan(training={"seed": 1}))["metadata"]["name"] != built["metadata"]["name"]
    suspended = configmap.build(make_plan(runPolicy={"suspend": True}))
    assert suspended["metadata"]["name"] == built["metadata"]["name"]
    json.loads(built["data"]["job.json"])


def test_only_the_jobs_pods_the_operator_and_monitoring_reach_its_pods() -> None:
    """Every port among its own pods; the progress port for the two others."""
    monitoring = Monitoring(
        namespaceSelector=LabelSelector(matchLabels={"team": "sre"}),
        podSelector=LabelSelector(matchLabels={"app": "p"}),
    )
    spec = networkpolicy.build(make_plan(settings={"monitoring": monitoring}))["spec"]
    own = {"matchLabels": {"anneal.dev/owner-uid": "uid-bot"}}
    assert spec["podSelector"] == own
    peers, readers = spec["ingress"]
    assert peers == {"from": [{"podSelector": own}]}
    assert readers["ports"] == [{"port": PROGRESS_PORT, "protocol": "TCP"}]
    assert [each["namespaceSelector"]["matchLabels"] for each in readers["from"]] == [
        {"kubernetes.io/metadata.name": "anneal-system"}, {"team": "sre"},
    ]  # fmt: skip
    assert spec["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("name", ["8b.chat", "n" * 253, "a-" * 31 + "a"], ids=["dots", "long", "dashes"])
def test_children_of_any_name_have_legal_names(name: str) -> None:
    """The engine appends `-worker-10` and makes DNS labels of it."""
    plan = make_plan(name=name)
    children = [
        pytorchjob.build(plan, FIRST.model_copy(update={"number": 100}), ANYWHERE), prepare.build(plan), configmap.build(plan),
        networkpolicy.build(plan), claim.build(plan),
    ]  # fmt: skip
    for child in children:
        child_name = child["metadata"]["name"]
        assert len(child_name) <= 63 - len("-worker-1000")
        assert child_name[0].isalpha()
        assert child_name.replace("-", "").isalnum()
        assert all(len(value) <= 63 for value in child["metadata"]["labels"].values())
        assert child["metadata"]["annotations"]["anneal.dev/owner-name"] == name


def test_children_belong_to_the_job_and_never_hold_up_its_deletion() -> None:
    """All but the claim, which holds results."""
    plan = make_plan()
    for build in (configmap.build, networkpolicy.build, prepare.build):
        (owner,) = build(plan)["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-bot", True, False)
    assert "ownerReferences" not in claim.build(plan)["metadata"]
