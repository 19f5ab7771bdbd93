"""Why a pod does not start, named for a person."""

from typing import Any

import pytest

from anneal_api.conditions import Reason
from anneal_operator.pods import view
from anneal_operator.waiting import no_pod, waiting_for
from simulated.builders import make_pod


def unscheduled(message: str) -> dict[str, Any]:
    """A pod that the scheduler could not place."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return make_pod(phase="Pending", node=None, conditions=[condition])


def blocked(reason: str, message: str) -> dict[str, Any]:
    """A pod whose container waits."""
    return make_pod(phase="Pending", waiting={"reason": reason, "message": message})


CASES = {
    "claim": (unscheduled('persistentvolumeclaim "runs" not found'), Reason.WAITING_FOR_CLAIM, '"runs" not found'),
    "unbound": (
        unscheduled("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        Reason.WAITING_FOR_CLAIM, "unbound",
    ),
    "volume-zone": (
        unscheduled("0/3 nodes are available: 3 node(s) had volume node affinity conflict."),
        Reason.WAITING_FOR_CLAIM, "affinity",
    ),
    "gpus": (unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), Reason.WAITING_FOR_NODE, "nvidia"),
    "secret": (
        blocked("CreateContainerConfigError", 'secret "hf-token" not found'), Reason.WAITING_FOR_SECRET, "hf-token",
    ),
    "config-map": (
        blocked("CreateContainerConfigError", 'configmap "bot-1" not found'), Reason.WAITING_FOR_CONFIG_MAP, "bot-1",
    ),
    "image": (blocked("ImagePullBackOff", "Back-off pulling image x"), Reason.WAITING_FOR_IMAGE, "ImagePullBackOff"),
    "bad-image": (blocked("InvalidImageName", "couldn't parse image"), Reason.WAITING_FOR_IMAGE, "InvalidImageName"),
    "scheduling": (make_pod(phase="Pending", node=None), Reason.STARTING, "being scheduled"),
    "starting": (blocked("ContainerCreating", ""), Reason.STARTING, "starting on node-1"),
}  # fmt: skip


@pytest.mark.parametrize(("pod", "reason", "names"), CASES.values(), ids=CASES)
def test_the_reason_and_the_missing_thing_are_named(pod: dict[str, Any], reason: Reason, names: str) -> None:
    """Each state has its own reason, and the message says which object or resource it is."""
    waits = waiting_for(view(pod))
    assert waits.reason is reason
    assert names in waits.message
    assert "bot-1-master-0" in waits.message


@pytest.mark.parametrize(
    ("warning", "reason"),
    [
        ('MountVolume.SetUp failed for volume "extra-0" : secret "certificates" not found', Reason.WAITING_FOR_SECRET),
        ('MountVolume.SetUp failed for volume "extra-0" : configmap "tuning" not found', Reason.WAITING_FOR_CONFIG_MAP),
        ("something else", Reason.STARTING),
    ],
)
def test_events_tell_what_a_pod_does_not(warning: str, reason: Reason) -> None:
    """A volume that cannot be mounted shows in Events only; until they are read the pod is a puzzle."""
    pod = view(blocked("ContainerCreating", ""))
    assert waiting_for(pod).puzzling
    waits = waiting_for(pod, warning=warning)
    assert waits.reason is reason
    assert warning in waits.message
    assert ("correct its name in the manifest" in waits.message) == ("not found" in warning)


@pytest.mark.parametrize("case", ["claim", "secret", "config-map"])
def test_what_is_missing_comes_with_what_to_do(case: str) -> None:
    """A name that is not there is to be made, or to be corrected."""
    pod, _reason, _words = CASES[case]
    assert waiting_for(view(pod)).message.endswith("; create it in this namespace, or correct its name in the manifest")


def test_a_refused_pod_is_told_with_the_refusal() -> None:
    """A quota or an admission rule is named; before it is known, the pod is simply not there yet."""
    assert no_pod("Job", "bot-prep").reason is Reason.STARTING
    told = no_pod("Job", "bot-prep", warning="exceeded quota: team, requested: pods=1")
    assert told.reason is Reason.POD_REJECTED
    assert "exceeded quota" in told.message
