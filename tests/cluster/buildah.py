"""buildah with its storage in the cache directory, and the base image that stands in for `python:3.11-slim-bookworm`.

No registry of images can be reached from a machine that has only package registries, so the base is made from Debian's
packages. Nothing is shared with a person's own buildah or podman.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.layout import cache_root
from cluster.shell import locked, run, run_logged, step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "libnuma1", "python3", "python3-pip", "python3-venv")
# Documentation, translations and package lists: half of what debootstrap leaves, and nothing runs on it.
_USELESS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_CERTIFICATES = Path("/etc/ssl/certs")
# Each build of changed code leaves about ten small ones.
_MANY_IMAGES = 200


def images_root() -> Path:
    return cache_root() / "images"


def log_file(name: str) -> Path:
    return cache_root() / "logs" / f"image-{name}.log"


def command(*arguments: str | Path) -> list[str]:
    """A buildah command line in a mount namespace of its own: what a failed build leaves mounted goes with it."""
    storage = ("--root", str(images_root() / "buildah"), "--runroot", str(_run_root()), "--storage-driver", "overlay")
    private = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(_run_root()))
    return [*private, "buildah", *storage, *map(str, arguments)]


def _run_root() -> Path:
    # What buildah believes to be mounted lives and dies with the mounts.
    directory = images_root() / "run"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def environment() -> dict[str, str]:
    temporary = images_root() / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}


def alone() -> AbstractContextManager[None]:
    """Whoever builds, pushes or unpacks images does it alone."""
    return locked(images_root() / ".lock", "another process that builds images")


def exists(reference: str) -> bool:
    return reference in _listed()


def build(
    dockerfile: Path, reference: str, *, context: Path, arguments: Sequence[str], stage: str | None, log: Path
) -> None:
    """Build with this machine's certificates and package cache in sight of the RUN steps, neither in the image."""
    _share_package_cache()
    mounts = ("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro") if _CERTIFICATES.is_dir() else ()
    log.unlink(missing_ok=True)
    run_logged(
        command(
            *("build", "--layers", "--format", "oci", "--network", "host", *mounts),
            *(word for argument in arguments for word in ("--build-arg", argument)),
            *(("--target", stage) if stage else ()),
            *("--file", dockerfile, "--ignorefile", context / ".dockerignore", "--tag", reference, context),
        ),
        log,
        env=environment(),
    )


def remove_images(*keep: str) -> None:
    """Forget all images and layers but those that the kept ones are made of."""
    if not (images_root() / "buildah").exists():
        return
    run(command("rm", "--all"), env=environment())
    for reference in _listed():
        if not reference.startswith("<none>") and reference not in keep:
            run(command("rmi", reference), env=environment())
    run(command("rmi", "--prune"), env=environment(), timeout=300)


def tidy(*keep: str) -> None:
    """Forget layers of older code when many have come together."""
    if len(_listed()) >= _MANY_IMAGES:
        remove_images(*keep)


def _listed() -> list[str]:
    return run(command("images", "--all", "--format", "{{.Name}}:{{.Tag}}"), env=environment()).split()


def base_key() -> str:
    return hashlib.sha256(" ".join((SUITE, *_PACKAGES, *_USELESS)).encode()).hexdigest()[:12]


def base_reference() -> str:
    return f"localhost/anneal-base:{base_key()}"


def ensure_base() -> str:
    """The base image's name; made from Debian's packages if it is not there."""
    reference = base_reference()
    if exists(reference):
        return reference
    tree = images_root() / "base"
    with step("base image from Debian's packages"):
        shutil.rmtree(tree, ignore_errors=True)
        try:
            _bootstrap(tree)
            _commit(tree, reference)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
    return reference


def _bootstrap(tree: Path) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True)
    log = log_file("base")
    include = f"--include={','.join(_PACKAGES)}"
    run_logged(
        ["debootstrap", "--variant=minbase", include, SUITE, tree, *_mirror()], log, env={**os.environ, "LC_ALL": "C"}
    )
    for name in _USELESS:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir()


def _mirror() -> tuple[str, ...]:
    """The mirror that apt uses here for this suite; debootstrap's own choice on another distribution."""
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"])
    for line in targets.splitlines():
        uri, _, codename = line.partition(" ")
        if codename == SUITE:
            return (uri,)
    return ()


def _commit(tree: Path, reference: str) -> None:
    env = environment()
    container = run(command("from", "scratch"), env=env).strip()
    run_logged(command("add", "--quiet", container, tree, "/"), log_file("base"), env=env)
    run(command("config", "--cmd", "python3", container), env=env)
    run_logged(command("commit", "--rm", "--quiet", container, reference), log_file("base"), env=env)


def _share_package_cache() -> None:
    """Show this machine's uv cache to `RUN --mount=type=cache,id=anneal-uv`: 2.5 GB are then downloaded once, not twice."""
    packages = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    packages.mkdir(parents=True, exist_ok=True)
    mounted = images_root() / "tmp" / "buildah-cache" / "anneal-uv"
    mounted.parent.mkdir(parents=True, exist_ok=True)
    if not mounted.is_symlink():
        mounted.symlink_to(packages)
