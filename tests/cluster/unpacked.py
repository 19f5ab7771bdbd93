"""The images as a node keeps them, unpacked once and shared by every cluster that is started afterwards.

Unpacking the trainer's image takes a minute and 6 GB. So containerd does it once, in a node made for that; a cluster's
own containerd then starts from a copy of the small files and links to the large ones, which it only reads. A cluster
whose images have changed since pulls the small layers that differ.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import buildah, processes
from cluster.images import generation, preload, registry_storage
from cluster.layout import STATE_ROOT, Paths
from cluster.node import start_containerd, start_registry
from cluster.shell import step

if TYPE_CHECKING:
    from cluster.images import ImageNames

_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
# Not a name that a cluster can have.
_WORKSHOP = ".unpacking"


def ensure_unpacked(names: ImageNames) -> Path:
    """The directory of unpacked images for the current generation; made if it is not there."""
    wanted = _current()
    with buildah.alone():
        if not wanted.exists():
            remove_unused()
            with step("unpacking the images"):
                _unpack(names, wanted)
    return wanted


def link_copy(unpacked: Path, root: Path) -> None:
    """A containerd root that has the same images: large things are links, small files copies."""
    linked = [unpacked / _SNAPSHOTS, unpacked / _BLOBS]

    def skipped(directory: str, entries: list[str]) -> list[str]:
        return entries if Path(directory) in linked else []

    shutil.copytree(unpacked, root, ignore=skipped)
    for directory in linked:
        for entry in directory.iterdir():
            (root / entry.relative_to(unpacked)).symlink_to(entry)


def users(unpacked: Path) -> list[str]:
    """The clusters whose files are links into it."""
    records = STATE_ROOT.glob("*/cluster.json")
    return [file.parent.name for file in records if json.loads(file.read_text()).get("unpacked") == str(unpacked)]


def remove_unused() -> None:
    """Remove what older generations left, once no cluster's files are links into it."""
    for other in buildah.images_root().glob("unpacked-*"):
        if other != _current() and not users(other):
            shutil.rmtree(other)


def _current() -> Path:
    return buildah.images_root() / f"unpacked-{generation()[:16]}"


def _unpack(names: ImageNames, wanted: Path) -> None:
    paths = Paths(_WORKSHOP)
    half = wanted.with_name(f".{wanted.name}")
    _clear(paths, half)
    paths.state.mkdir(parents=True)
    node = processes.create_node(paths)
    try:
        start_containerd(node, half)
        start_registry(node, registry_storage())
        preload(node, *names.all)
        processes.stop(node, "containerd")
        processes.destroy_node(node)
        _share_blobs(half)
        half.rename(wanted)
    finally:
        processes.destroy_node(node)
        _clear(paths, half)


def _clear(paths: Paths, half: Path) -> None:
    """Remove what an unpacking that was killed has left."""
    left = processes.find_node(paths)
    if left is not None:
        processes.destroy_node(left)
    shutil.rmtree(paths.state, ignore_errors=True)
    shutil.rmtree(half, ignore_errors=True)


def _share_blobs(root: Path) -> None:
    """The registry keeps the same compressed blobs: one copy on the disk is enough."""
    kept = registry_storage() / "docker/registry/v2/blobs/sha256"
    for blob in (root / _BLOBS).iterdir():
        same = kept / blob.name[:2] / blob.name / "data"
        if same.exists():
            blob.unlink()
            os.link(same, blob)
