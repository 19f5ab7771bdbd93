"""What the demo applies beside the example itself: a restricted namespace, a claim, and one-off Jobs. Pure."""

from typing import Any

NAMESPACE = "anneal-demo"
CLAIM = "runs"
MOUNT = f"/anneal/volumes/{CLAIM}"
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(name: str) -> dict[str, Any]:
    """A namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim() -> dict[str, Any]:
    """The claim that the example names, of the cluster's default class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }


def one_off_job(name: str, image: str, arguments: list[str], *, command: list[str] | None = None) -> dict[str, Any]:
    """A Job that runs the trainer image once with the claim mounted; meets the restricted standard."""
    container = {
        "name": name,
        "image": image,
        "args": arguments,
        "securityContext": _RESTRICTED,
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "volumeMounts": [{"name": "runs", "mountPath": MOUNT}, {"name": "tmp", "mountPath": "/tmp"}],
        **({"command": command} if command else {}),
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def seed(image: str) -> dict[str, Any]:
    """Puts the model and the data of `make run` on the claim."""
    return one_off_job("seed", image, ["quickstart", "--out", f"{MOUNT}/quickstart"])


def read_samples(image: str, run_directory: str) -> dict[str, Any]:
    """Prints the sample answers before and after training, a JSON list a line."""
    samples = f"{MOUNT}/{run_directory}/samples"
    code = "import pathlib, sys; [print(pathlib.Path(p).read_text().replace(chr(10), ' ')) for p in sys.argv[1:]]"
    return one_off_job(
        "show-samples", image, [f"{samples}/before.json", f"{samples}/after.json"], command=["python", "-c", code]
    )


def values(operator_image: str, trainer_image: str) -> dict[str, Any]:
    """Chart values: the images, and a pool without GPUs for examples that train on CPUs."""
    return {
        "images": {"operator": image(operator_image), "trainer": image(trainer_image)},
        "pools": {"default": {"resourceName": ""}},
        "progressIntervalSeconds": 5,
    }


def image(reference: str) -> dict[str, str]:
    """A reference `REPOSITORY[:TAG][@DIGEST]` as the chart's image block.

    >>> image("localhost:5000/anneal-operator:1")
    {'repository': 'localhost:5000/anneal-operator', 'tag': '1', 'digest': ''}
    """
    rest, _, digest = reference.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        return {"repository": rest, "tag": "latest", "digest": digest}
    return {"repository": repository, "tag": tag, "digest": digest}
