"""What the chart of Kueue is given, and what simulated hardware says of itself; no cluster."""

import json
from pathlib import Path

import pytest

from cluster import devices, kueue
from cluster.binaries import KUEUE, PROGRAMS
from cluster.devices import SimulatedNode
from cluster.layout import REPOSITORY
from cluster.scratch_images import kueue_image


def test_kueue_is_not_among_the_programs_of_every_cluster() -> None:
    """Bringing a cluster up builds nothing that most clusters never run."""
    assert KUEUE not in PROGRAMS


def test_the_chart_is_given_the_image_that_was_built_here() -> None:
    """The image is named by the program's key, runs as no root, and is never pulled."""
    image = kueue_image(Path("/cache/programs/kueue-0123456789abcdef/kueue"))
    manager = kueue.chart_values(image.reference, {})["controllerManager"]["manager"]
    assert manager["image"] == {
        "repository": "localhost/anneal-kueue-0123456789abcdef",
        "tag": "1",
        "pullPolicy": "Never",
    }
    assert not image.user.startswith("0")
    assert image.command == ("/manager",)


def test_changes_of_the_configuration_reach_the_chart() -> None:
    """The chart reads the configuration as text."""
    config = {**kueue.configuration(), "manageJobsWithoutQueueName": False}
    text = kueue.chart_values("localhost/kueue:1", config)["managerConfig"]["controllerManagerConfigYaml"]
    assert json.loads(text)["manageJobsWithoutQueueName"] is False


def test_the_page_shows_the_settings_that_are_tested() -> None:
    """What docs/kueue.md tells an administrator to write is what the tests' Kueue is set up with."""
    page = (REPOSITORY / "docs" / "kueue.md").read_text()
    for kind in kueue.configuration()["integrations"]["externalFrameworks"]:
        assert f"- {kind}" in page
    assert f"[{', '.join(kueue.UNMANAGED)}]" in page
    (rule,) = kueue.reader()["items"][0]["rules"]
    for values in rule.values():
        assert f"[{', '.join(values)}]" in page


@pytest.mark.parametrize(
    ("devices_wanted", "present", "expected"),
    [
        ({"nvidia.com/gpu": 4}, {}, [("add", "4"), ("add", "4")]),
        ({"nvidia.com/gpu": 2}, {"nvidia.com/gpu": "4"}, [("add", "2"), ("add", "2")]),
        ({"nvidia.com/gpu": 0}, {"nvidia.com/gpu": "4"}, [("remove", None), ("remove", None)]),
        ({"nvidia.com/gpu": 0}, {}, []),
    ],
    ids=["new", "changed", "taken away", "was never there"],
)
def test_devices_are_patched_into_the_nodes_status(
    devices_wanted: dict[str, int], present: dict[str, str], expected: list[tuple[str, str | None]]
) -> None:
    """Capacity and allocatable, with the name escaped as JSON pointers are."""
    patch = devices.device_patch(devices_wanted, present)
    assert [(operation["op"], operation.get("value")) for operation in patch] == expected
    assert {operation["path"].rsplit("/", 1)[1] for operation in patch} <= {"nvidia.com~1gpu"}


def test_a_simulated_node_has_its_devices_and_no_room_for_pods() -> None:
    """Discovery and the scheduler see GPUs; nothing is ever bound there."""
    status = devices.status(SimulatedNode("sim", {"nvidia.com/gpu.product": "NVIDIA-L4"}, {"nvidia.com/gpu": 8}))
    allocatable = status["status"]["allocatable"]
    assert allocatable["nvidia.com/gpu"] == "8"
    assert allocatable["pods"] == "0"
    assert status["status"]["conditions"][0]["status"] == "True"


def test_a_simulated_node_claims_no_taints_that_it_was_not_given() -> None:
    """Kubernetes adds and removes taints of its own."""
    taint = {"key": "team", "value": "a", "effect": "NoSchedule"}
    assert devices.manifest(SimulatedNode("sim"))["spec"] == {}
    assert devices.manifest(SimulatedNode("sim", taints=(taint,)))["spec"] == {"taints": [taint]}
