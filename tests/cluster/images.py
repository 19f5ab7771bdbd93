"""The operator's and the trainer's images: built by their own Dockerfiles, named by their content, pushed to a registry.

A name is a hash of all that goes into the image, so "is it there?" needs no build. Layers are kept by buildah and by the
registry: a change of code builds and pushes one small layer, and the node pulls only that. A third image, with vLLM for
CPUs on the trainer's layers, is made only for those who ask for it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster import buildah
from cluster.layout import REGISTRY, REPOSITORY
from cluster.node import registry_config
from cluster.shell import ClusterError, run, run_logged, step

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.processes import Node

# buildah's layers 6 GiB and the copy that is being committed; the registry's compressed blobs 2.7; unpacked for nodes 5.6.
BUILD_GIB = 20.0
_CODE = ("crds", "operator/anneal_operator", "trainer-image/anneal_trainer", "cli/anneal_cli")
_COMMON = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".dockerignore",
    "requirements/build.txt",
    "requirements/uv-version",
)

# The registry is started on the loopback of an empty network namespace: no port of the machine is used, and the image's
# name is the same that nodes pull by.
_PUSH = """
set -e
ip link set lo up
docker-registry serve "$1" & registry=$!
trap 'kill $registry' EXIT
shift
for try in $(seq 100); do
  if (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; then break; fi
  sleep 0.1
done
"$@"
"""


@dataclass(frozen=True)
class Image:
    """One Dockerfile, or a stage of it, and the requirements that only it installs."""

    name: str
    dockerfile: str
    requirements: tuple[str, ...]
    stage: str | None = None

    @property
    def repository(self) -> str:
        return f"anneal-{self.name}"


OPERATOR = Image("operator", "operator/Dockerfile", ("requirements/operator.txt",))
TRAINER = Image("trainer", "trainer-image/Dockerfile", ("requirements/trainer.txt",))
VLLM = Image("vllm-cpu", TRAINER.dockerfile, (*TRAINER.requirements, "requirements/vllm-cpu.txt"), stage="vllm-cpu")


@dataclass(frozen=True)
class ImageNames:
    """The current images, as pods name them."""

    operator: str
    trainer: str

    @property
    def all(self) -> tuple[str, ...]:
        return self.operator, self.trainer


def current_names(root: Path = REPOSITORY) -> ImageNames:
    return ImageNames(reference(OPERATOR, root), reference(TRAINER, root))


def reference(image: Image, root: Path = REPOSITORY) -> str:
    """The name of the image that this checkout would build."""
    digest = hashlib.sha256(buildah.base_key().encode())
    for file in _inputs(image, root):
        digest.update(str(file.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"{REGISTRY}/{image.repository}:{digest.hexdigest()[:16]}"


def registry_storage() -> Path:
    storage = buildah.images_root() / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    return storage


def published(image_reference: str) -> bool:
    repository, _, tag = image_reference.removeprefix(f"{REGISTRY}/").partition(":")
    tags = buildah.images_root() / "registry/docker/registry/v2/repositories" / repository / "_manifests/tags"
    return (tags / tag / "current" / "link").exists()


def missing_images() -> list[Image]:
    return [image for image in (OPERATOR, TRAINER) if not published(reference(image))]


def generation() -> str:
    """What the large layers are made of."""
    digest = hashlib.sha256(buildah.base_key().encode())
    for image in (OPERATOR, TRAINER):
        for name in (*image.requirements, image.dockerfile):
            digest.update((REPOSITORY / name).read_bytes())
    return digest.hexdigest()


def layers_missing() -> bool:
    """Whether gigabytes have to be built: nothing was built yet, or what was built is of another generation."""
    marker = buildah.images_root() / "generation"
    return not marker.exists() or marker.read_text() != generation()


def ensure_images() -> ImageNames:
    """Build and push what is not there yet."""
    with buildah.alone():
        if missing_images():
            _drop_othergeneration()
        names = ImageNames(_ensure(OPERATOR), _ensure(TRAINER))
        buildah.tidy(buildah.base_reference(), names.operator, names.trainer, reference(VLLM))
        (buildah.images_root() / "generation").write_text(generation())
        return names


def ensure_vllm(node: Node) -> str:
    """The image with vLLM for CPUs, on the node; after `ensure_images`, whose layers it shares."""
    with buildah.alone():
        name = _ensure(VLLM)
    preload(node, name)
    return name


def preload(node: Node, *names: str) -> None:
    """Pull to the node now, so that no test waits for gigabytes on its first pod."""
    present = set(node.run(["ctr", "--namespace=k8s.io", "images", "ls", "-q"]).split())
    for name in names:
        if name not in present:
            node.run(["ctr", "--namespace=k8s.io", "images", "pull", "--plain-http", name], timeout=900)


def pushed_layers(image_reference: str) -> list[int]:
    """Sizes in bytes of the image's compressed layers, base first."""
    repository, _, tag = image_reference.removeprefix(f"{REGISTRY}/").partition(":")
    storage = buildah.images_root() / "registry/docker/registry/v2"
    link = storage / "repositories" / repository / "_manifests/tags" / tag / "current/link"
    digest = link.read_text().strip().removeprefix("sha256:")
    manifest = json.loads((storage / "blobs/sha256" / digest[:2] / digest / "data").read_bytes())
    return [layer["size"] for layer in manifest["layers"]]


def _inputs(image: Image, root: Path) -> list[Path]:
    files = [root / name for name in (*_COMMON, image.dockerfile, *image.requirements)]
    absent = [str(file.relative_to(root)) for file in files if not file.exists()]
    if absent:
        raise ClusterError(f"the {image.name} image is made of {', '.join(absent)}: not there in {root}")
    for directory in _CODE:
        found = (root / directory).rglob("*")
        files.extend(file for file in found if file.is_file() and "__pycache__" not in file.parts)
    return sorted(files)


def _ensure(image: Image) -> str:
    """Build until the files did not change meanwhile: a name must not stand for other content."""
    while not published(name := reference(image)):
        base = buildah.ensure_base()
        with step(f"building the {image.name} image"):
            buildah.build(
                REPOSITORY / image.dockerfile,
                name,
                context=REPOSITORY,
                arguments=(f"BASE_IMAGE={base}",),
                stage=image.stage,
                log=buildah.log_file(image.name),
            )
        if reference(image) == name:
            with step(f"pushing the {image.name} image"):
                _push(name)
    return name


def _push(name: str) -> None:
    config = buildah.images_root() / "push-registry.yml"
    config.write_text(registry_config(registry_storage()))
    # Level 1 of zstd halves what is written and read again, at about the cost of hashing it.
    push = buildah.command(
        "push", "--quiet", "--tls-verify=false", "--compression-format=zstd", "--compression-level=1", name
    )
    log = buildah.log_file("push")
    run_logged(["unshare", "--net", "bash", "-c", _PUSH, "push", config, *push], log, env=buildah.environment())


def _drop_othergeneration() -> None:
    """When base, dependencies or a Dockerfile change, the old layers are gigabytes that nothing will use again."""
    marker = buildah.images_root() / "generation"
    if marker.exists() and layers_missing():
        marker.unlink()
        with step("removing images of an older generation"):
            buildah.remove_images(buildah.base_reference())
            run(["find", registry_storage(), "-mindepth", "1", "-delete"])
