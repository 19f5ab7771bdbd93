"""The servers that draw answers: what is made, when the job is told to wait, degraded or failed, and what it counts."""

from datetime import timedelta
from typing import Any

import pytest

from anneal_api.meta import LOADER_PORT, OWNER_UID_LABEL, PROGRESS_PORT, ROLE_LABEL, VLLM_PORT, VOLUMES_DIR
from anneal_api.status import Attempt
from anneal_operator.kinds import DEPLOYMENT, PYTORCH_JOB, RLHF_JOB, SERVICE, Obj, parse_time
from anneal_operator.manifests import networkpolicy, pytorchjob, rollout
from anneal_operator.placement import ANYWHERE, Placement
from anneal_operator.plan import Plan, plan_of
from anneal_operator.pods import view
from anneal_operator.polling import Poller
from anneal_operator.servers import Server, hopeless, late, why_not
from simulated.builders import make_grpo_job, make_job, make_settings, stamp
from simulated.machinery import TRAINED, Run
from simulated.process import Simulation, conditions
from simulated.serving import Load
from simulated.stories import KILLED

GPUS: dict[str, Any] = {"compute": {"gpusPerNode": 1, "pool": "h100"}}


def make_plan(*, settings: dict[str, Any] | None = None, **spec: Any) -> Plan:
    """A plan of a job with servers."""
    return plan_of(make_grpo_job(**spec), make_settings(**(settings or {})))


def pod_of(plan: Plan, placement: Placement = ANYWHERE) -> Obj:
    """The spec of its servers' pods."""
    spec: Obj = rollout.build(plan, placement)["spec"]["template"]["spec"]
    return spec


def containers(plan: Plan) -> dict[str, Obj]:
    """The containers by name."""
    return {each["name"]: each for each in pod_of(plan)["containers"]}


def env(container: Obj) -> dict[str, str]:
    """Environment by name; of two the last, as the kubelet has it."""
    return {each["name"]: each["value"] for each in container["env"]}


def test_servers_are_what_restricted_namespaces_admit() -> None:
    """No root, no privilege, no token, no writable root file system, and no variables that vLLM would misread."""
    spec = pod_of(make_plan())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert container["resources"]["limits"]["memory"]
    assert "envFrom" not in spec["containers"][0]


def test_a_server_reads_the_model_where_the_trainer_does_and_writes_nothing() -> None:
    """The path is the one that prepare fetched it to; claims are mounted read-only."""
    plan = make_plan(model={"source": "hf://acme/tiny", "revision": "main"})
    server = containers(plan)["vllm"]
    (model,) = [each for each in server["args"] if each.startswith("--model=")]
    assert model.startswith(f"--model={VOLUMES_DIR}/runs/models/")
    claims = [mount for mount in server["volumeMounts"] if mount["name"].startswith("claim")]
    assert [(mount["mountPath"], mount["readOnly"]) for mount in claims] == [(f"{VOLUMES_DIR}/runs", True)]
    volume = make_plan(model={"source": "volume://bases/m"})
    assert f"--model={VOLUMES_DIR}/bases/m" in containers(volume)["vllm"]["args"]


def test_a_server_gets_its_gpus_from_its_own_pool() -> None:
    """Selector, tolerations, zones and the resource are the pool's; the queue's flavor adds to them."""
    plan = make_plan(rollout={"pool": "h100", "tensorParallel": 2, "gpus": 2}, **GPUS)
    spec = pod_of(plan, Placement(node_selector={"flavor": "f"}, tolerations=({"key": "t"},)))
    assert spec["nodeSelector"] == {"gpu": "h100", "topology.kubernetes.io/zone": "a", "flavor": "f"}
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu", "t"]
    (server,) = [each for each in spec["containers"] if each["name"] == "vllm"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "--tensor-parallel-size=2" in server["args"]


def test_of_the_jobs_pod_options_servers_take_what_is_not_the_trainers_alone() -> None:
    """Labels, annotations, environment and tolerations; the node selector only in the same pool; no volume."""
    options = {
        "labels": {"team": "a"}, "annotations": {"note": "b"}, "nodeSelector": {"disk": "ssd"},
        "env": [{"name": "HTTPS_PROXY", "value": "p"}, {"name": "HOME", "value": "/root"}],
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "volumes": [{"name": "code", "mountPath": "/code", "configMap": {"name": "code"}}],
    }  # fmt: skip
    plan = make_plan(compute={"gpusPerNode": 0, "pod": options})
    template = rollout.build(plan, ANYWHERE)["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["annotations"]["note"] == "b"
    spec = template["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert [each["key"] for each in spec["tolerations"]] == ["spot"]
    assert env(spec["containers"][0])["HTTPS_PROXY"] == "p"
    assert env(spec["containers"][0])["HOME"] == "/tmp"
    assert not [each for each in spec["volumes"] if "configMap" in each]
    elsewhere = make_plan(rollout={"pool": "cpu"}, compute={"gpusPerNode": 0, "pod": options})
    assert "nodeSelector" not in pod_of(elsewhere)


async def test_with_a_claim_of_one_node_all_pods_of_the_job_go_there() -> None:
    """The scheduler does not look at where a volume is attached, and a pod elsewhere would never start."""
    template, trainer = await made_on("ReadWriteOnce")
    for spec in (template, trainer):
        (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"] == {OWNER_UID_LABEL: "uid-bot"}
        assert term["labelSelector"]["matchExpressions"][0]["values"] == ["trainer", "rollout"]


async def test_with_a_claim_of_many_nodes_pods_go_where_there_is_room() -> None:
    """Also where one that is only read from can only be read."""
    for spec in await made_on("ReadWriteMany", "ReadOnlyMany"):
        assert "affinity" not in spec


async def test_a_claim_of_one_node_that_is_only_read_from_binds_them_too() -> None:
    """Trainer and servers both mount it."""
    for spec in await made_on("ReadWriteMany", "ReadWriteOnce"):
        assert spec["affinity"]["podAffinity"]


async def made_on(*modes: str) -> tuple[Obj, Obj]:
    """The pod specs of servers and trainer, where the job's claim and the one with its data have these modes."""
    simulation = Simulation()
    simulation.machinery.training = [[KILLED], [TRAINED]]
    for name, mode in zip(("runs", "data"), modes, strict=False):
        metadata = {"name": name, "namespace": "team"}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
        simulation.api.insert({**body, "spec": {"accessModes": [mode]}})
    simulation.add(make_grpo_job(datasets=[{"source": f"volume://{'data' if modes[1:] else 'runs'}/train.jsonl"}]))
    await simulation.until("Running")
    (servers,), (trainer,) = simulation.api.of(DEPLOYMENT), simulation.api.of(PYTORCH_JOB)
    (replicas,) = trainer["spec"]["pytorchReplicaSpecs"].values()
    # What is known of claims stays so between attempts: they are not made anew.
    await simulation.until("Succeeded")
    assert len([kind for kind, _, _ in simulation.api.created if kind == DEPLOYMENT]) == 1
    return servers["spec"]["template"]["spec"], replicas["template"]["spec"]


def test_servers_on_cpus_share_a_node() -> None:
    """Each computes with the threads of its request instead of one for each core of the node."""
    found = env(containers(make_plan(rollout={"cpu": "3"}))["vllm"])
    assert (found["VLLM_CPU_OMP_THREADS_BIND"], found["OMP_NUM_THREADS"]) == ("nobind", "3")


def test_the_loader_is_the_operators_image_and_answers_for_a_server_with_adapters() -> None:
    """It is asked whether the server is ready and alive; whether it has started, the server itself."""
    found = containers(make_plan(rollout={"startTimeoutSeconds": 61}))
    assert found["loader"]["image"] == make_settings().operator_image
    probes = {kind: found["vllm"][f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"startup": VLLM_PORT, "readiness": LOADER_PORT, "liveness": LOADER_PORT}
    startup = found["vllm"]["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 61
    shared = [{each["name"] for each in container["volumeMounts"]} for container in found.values()]
    assert all("adapters" in names for names in shared)


def test_with_nccl_there_is_no_loader_and_each_attempt_meets_fresh_servers() -> None:
    """The trainer speaks to the server itself; what it set up there ends with its attempt."""
    plan = make_plan(adapter=None, rollout={"weightSync": "nccl"}, **GPUS)
    assert set(containers(plan)) == {"vllm"}
    made = [rollout.made_of(rollout.build(plan, ANYWHERE, attempt=number)) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    adapter = make_plan()
    assert len({rollout.made_of(rollout.build(adapter, ANYWHERE, attempt=number)) for number in (1, 2)}) == 1


def test_every_server_is_addressed_by_itself_and_by_the_job_alone() -> None:
    """A headless Service names the pods; the job's policy covers them; the trainer is told the name."""
    plan = make_plan()
    service = rollout.service(plan)
    assert (service["spec"]["clusterIP"], service["metadata"]["name"]) == ("None", plan.rollout_name)
    labels = rollout.build(plan, ANYWHERE)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    policy = networkpolicy.build(plan)["spec"]
    assert policy["podSelector"]["matchLabels"] == {OWNER_UID_LABEL: labels[OWNER_UID_LABEL]}
    assert [port["port"] for rule in policy["ingress"] for port in rule.get("ports", [])] == [PROGRESS_PORT]
    trainer = pytorchjob.build(plan, Attempt(number=1, start_time=stamp(0)), ANYWHERE)
    (replicas,) = trainer["spec"]["pytorchReplicaSpecs"].values()
    assert env_of(replicas)["ANNEAL_ROLLOUT_HOST"] == plan.rollout_name


def env_of(replicas: Obj) -> dict[str, Any]:
    """The environment of a training pod."""
    container = replicas["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value") for each in container["env"]}


@pytest.mark.parametrize("mode", ["colocate", "generate"])
def test_other_modes_have_no_servers(mode: str) -> None:
    """The trainer is told of none; one that has vLLM beside it may have an image of its own."""
    plan = make_plan(settings={"colocate_image": "trainer-with-vllm:1"}, rollout={"mode": mode}, **GPUS)
    assert plan.servers is None
    trainer = pytorchjob.build(plan, Attempt(number=1, start_time=stamp(0)), ANYWHERE)
    (replicas,) = trainer["spec"]["pytorchReplicaSpecs"].values()
    assert "ANNEAL_ROLLOUT_HOST" not in env_of(replicas)
    image = replicas["template"]["spec"]["containers"][0]["image"]
    assert image == ("trainer-with-vllm:1" if mode == "colocate" else make_settings().trainer_image)


def test_an_image_of_the_job_comes_before_the_charts() -> None:
    """Default: the chart's, upstream's."""
    assert rollout.image(make_plan()) == make_settings().rollout_image
    assert rollout.image(make_plan(rollout={"image": "own/vllm:v0.30.1"})) == "own/vllm:v0.30.1"


def server_pod(*, state: Obj, last: Obj | None = None, restarts: int = 0, **metadata: Any) -> Server:
    """A server in a state."""
    container = {"name": "vllm", "restartCount": restarts, "state": state, "lastState": last or {}}
    pod = {
        "metadata": {"name": "s-0", "labels": {ROLE_LABEL: "rollout"}, "creationTimestamp": stamp(0), **metadata},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "containerStatuses": [container]},
    }
    return Server(view(pod), "x")


ENDED: Obj = {"terminated": {"exitCode": 1, "reason": "Error", "message": "ValueError: no GPU\n"}}
SHORT: Obj = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
BACKS_OFF: Obj = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (server_pod(state={"running": {"startedAt": stamp(0)}}), "does not answer yet: it loads the model"),
        (
            server_pod(state=BACKS_OFF, last=ENDED),
            "container vllm of pod s-0 ended once, last with code 1 (Error): ValueError: no GPU",
        ),
        (server_pod(state=ENDED, restarts=1), "ended 2 times"),
        (server_pod(state={"waiting": {"reason": "ErrImagePull", "message": "404"}}), "cannot pull its image"),
    ],
    ids=["loads", "ended", "ended-twice", "image"],
)
def test_why_a_server_does_not_serve_is_told(server: Server, words: str) -> None:
    """In its own last words where it has some."""
    assert words in why_not(server).message
    assert not hopeless([server])


@pytest.mark.parametrize(("last", "remedy"), [(ENDED, "rollout.extraArgs"), (SHORT, "raise rollout.memory")])
def test_a_server_that_ended_three_times_will_not_start(last: Obj, remedy: str) -> None:
    """The remedy goes by how it ended."""
    words = hopeless([server_pod(state=BACKS_OFF, last=last, restarts=2)])
    assert "ended 3 times" in words
    assert remedy in words


LOADS: Obj = {"running": {"startedAt": stamp(900)}}


@pytest.mark.parametrize(
    ("server", "since", "due"),
    [
        (server_pod(state=LOADS), None, 960),
        (server_pod(state=LOADS), 1000, 1060),
        (server_pod(state=LOADS), 100, 960),
        (server_pod(state=LOADS, last=ENDED, restarts=1), 100, 160),
        (server_pod(state=LOADS, last=ENDED, restarts=1, creationTimestamp=stamp(800)), 100, 860),
        (server_pod(state=LOADS, deletionTimestamp=stamp(950)), None, None),
        (server_pod(state=BACKS_OFF), 100, None),
    ],
    ids=["first", "served", "made-since", "restarts", "made-since-and-restarts", "is-deleted", "does-not-run"],
)
def test_a_server_has_its_own_time_to_load(server: Server, since: int | None, due: int | None) -> None:
    """Another one may have been gone for long while the job trained on; that does not fail one that begins to load."""
    found, _ = late([server], timedelta(seconds=60), since=parse_time(stamp(since)) if since is not None else None)
    assert found == (parse_time(stamp(due)) if due is not None else None)


async def test_a_job_says_how_many_servers_are_ready() -> None:
    """While they load, the trainer is not made, and the job says what it waits for."""
    simulation = Simulation()
    simulation.machinery.servers.loads = [Load(3), Load(20)]
    simulation.add(make_grpo_job(rollout={"replicas": 2}))
    await simulation.until("Starting")
    await simulation.run(8)
    status = simulation.status()
    assert status["rollout"]["readyText"] == "1/2"
    assert "begins when the servers are ready: 1 of 2 servers are ready; pod" in status["message"]
    assert conditions(status)["RolloutReady"] == ("False", "RolloutStarting")
    assert not simulation.api.of(PYTORCH_JOB)
    status = await simulation.until("Running")
    assert conditions(status)["RolloutReady"] == ("True", "RolloutServing")
    assert status["children"]["rollout"] == simulation.api.of(SERVICE)[0]["metadata"]["name"]


async def test_a_lost_server_is_told_of_and_nothing_is_stopped() -> None:
    """The job trains on; its sentence is the servers'."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(60, words=TRAINED.words)]]
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    simulation.machinery.servers.end(simulation.machinery.servers.ready()[0], 139, "Segmentation fault")
    await simulation.run(2)
    status = simulation.status()
    assert (status["phase"], len(status["attempts"])) == ("Running", 1)
    assert "0 of 1 server is ready; container vllm of pod" in status["message"]
    assert "Segmentation fault" in status["message"]


async def test_servers_that_cannot_start_end_the_job_in_their_own_words() -> None:
    """Nothing was trained, so a corrected manifest starts it anew."""
    simulation = Simulation()
    simulation.machinery.servers.loads = [Load(2, 1, "unrecognized arguments: --fast"), Load()]
    simulation.add(make_grpo_job(rollout={"extraArgs": ["--fast"]}))
    status = await simulation.until("Failed")
    assert "unrecognized arguments: --fast" in status["message"]
    assert conditions(status)["RolloutReady"] == ("False", "RolloutFailed")
    await simulation.run(5)
    assert not simulation.machinery.servers.pods()
    simulation.edit(rollout={})
    await simulation.until("Succeeded")


async def test_gpu_hours_count_servers_from_when_they_run() -> None:
    """Two GPUs of servers that ran longer than the trainer's one, and those of servers that were before."""
    simulation = Simulation()
    simulation.machinery.servers.loads = [Load(360)]
    simulation.machinery.training = [[Run(3600, words=TRAINED.words)]]
    simulation.add(make_grpo_job(rollout={"replicas": 2}, **GPUS))
    await simulation.until("Running")
    simulation.edit(runPolicy={"suspend": True})
    status = await simulation.until("Suspended")
    first = status["gpuHours"]
    assert first == pytest.approx(2 * 360 / 3600, rel=0.1)
    assert status["rollout"]["gpuHours"] == pytest.approx(first, rel=0.05)
    simulation.edit(runPolicy={"suspend": False})
    await simulation.until("Running")
    await simulation.run(3700, step=10)
    status = simulation.status()
    assert status["phase"] == "Succeeded"
    assert status["gpuHours"] == pytest.approx(2 * (360 + 360 + 3600) / 3600 + 1, rel=0.1)


async def test_deleting_the_job_leaves_no_server() -> None:
    """Garbage collection takes them, whether an operator is there or not."""
    simulation = Simulation()
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    simulation.api.vanish(RLHF_JOB, simulation.job())
    for _ in range(10):
        simulation.machinery.tick()
    left = [kind for kind in (DEPLOYMENT, SERVICE, PYTORCH_JOB) if simulation.api.of(kind)]
    assert not left
    assert not simulation.machinery.servers.pods()


async def test_servers_are_not_asked_for_progress() -> None:
    """Rank 0 is, though a server is the newer pod."""
    simulation = Simulation()
    simulation.machinery.training = [[Run(60, words=TRAINED.words)]]
    simulation.add(make_grpo_job())
    await simulation.until("Running")
    simulation.machinery.servers.end(simulation.machinery.servers.ready()[0], 1, "x")
    await simulation.run(12)
    assert simulation.machinery.servers.ready()
    poller = Poller(simulation.controller, None, 10)  # type: ignore[arg-type]
    assert [pod.role for _, pod in poller._reporting_pods()] == ["trainer"]


async def test_other_jobs_have_no_such_condition() -> None:
    """A fine-tune knows nothing of servers."""
    simulation = Simulation()
    simulation.add(make_job())
    status = await simulation.until("Succeeded")
    assert "RolloutReady" not in conditions(status)
    assert "rollout" not in status


async def test_what_was_made_goes_with_its_time_to_live() -> None:
    """The Service too, which nobody watches."""
    simulation = Simulation()
    simulation.add(make_grpo_job(runPolicy={"ttlSecondsAfterFinished": 10}))
    await simulation.until("Succeeded")
    assert simulation.api.of(SERVICE)
    await simulation.run(20)
    assert not simulation.api.of(SERVICE)
