"""Images that hold one static program and nothing else: pause, CoreDNS, the training-operator, Kueue.

They are tar files in the format that `docker save` writes, made here because they need no base image and no build tool,
and imported straight into containerd under the very names that upstream's manifests ask for.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.node import PAUSE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.binaries import Binaries
    from cluster.processes import Node

COREDNS_IMAGE = "localhost/anneal-coredns:1"
# The name in upstream's kustomize overlay of this version, so that its manifests are applied unchanged.
TRAINING_OPERATOR_IMAGE = "ghcr.io/kubeflow/training-v1/training-operator:v1-93c5489"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_UNPRIVILEGED = "65532:65532"


@dataclass(frozen=True)
class ScratchImage:
    """A program, the path it gets in the image, and how it is started."""

    reference: str
    program: Path
    target: str
    command: tuple[str, ...]
    user: str = _UNPRIVILEGED


def cluster_images(binaries: Binaries) -> tuple[ScratchImage, ...]:
    return (
        ScratchImage(PAUSE_IMAGE, Path("/bin/busybox"), "busybox", ("/busybox", "tail", "-f", "/dev/null")),
        ScratchImage(COREDNS_IMAGE, binaries.program("coredns"), "coredns", ("/coredns",)),
        ScratchImage(
            TRAINING_OPERATOR_IMAGE, binaries.program("training-operator"), "manager", ("/manager",), user="0:0"
        ),
    )


def kueue_image(program: Path) -> ScratchImage:
    """Named by the key of the program: a cluster that runs for long may see a second one."""
    return ScratchImage(f"localhost/anneal-{program.parent.name}:1", program, "manager", ("/manager",))


def import_images(node: Node, images: Iterable[ScratchImage]) -> None:
    for image in images:
        file = node.paths.state / "image.tar"
        write_archive(image, file)
        node.run(["ctr", "--namespace=k8s.io", "images", "import", file])
        file.unlink()


def write_archive(image: ScratchImage, file: Path) -> None:
    layer = _layer(image)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": list(image.command), "User": image.user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [image.reference], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(file, "w") as archive:
        for name, content in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, name, content, mode=0o644)


def _layer(image: ScratchImage) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = tarfile.TarInfo("tmp")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(directory)
        _add(archive, image.target, image.program.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
