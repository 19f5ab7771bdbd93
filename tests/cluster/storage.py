"""Volumes: a default StorageClass and a pool of directories that claims bind to.

There is no provisioner to install: claims, also those that an operator makes, bind to volumes made beforehand.
Kubernetes cannot clean `local` volumes, so a released one is emptied and offered again by `recycle_volumes`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.addons import kubectl

if TYPE_CHECKING:
    from cluster.binaries import Binaries
    from cluster.layout import Paths

STORAGE_CLASS = "local"
POOL_SIZE = 40
# Nominal: a directory has no quota, and a claim binds only to a volume at least as large as it asks for.
_CAPACITY = "2Ti"
_GROUP = 1000


def create_storage(paths: Paths, binaries: Binaries) -> None:
    names = [f"pool-{number:02d}" for number in range(POOL_SIZE)]
    for name in names:
        _make_directory(paths.volumes / name)
    items = [_storage_class(), *(_volume(paths, name) for name in names)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl(paths, binaries, "apply", "--server-side", "-f", "-", stdin=manifest)


def recycle_volumes(paths: Paths, binaries: Binaries) -> int:
    """Empty the volumes whose claim was deleted and make them available again; how many there were."""
    volumes = json.loads(kubectl(paths, binaries, "get", "persistentvolumes", "-o", "json"))["items"]
    released = [volume for volume in volumes if volume["status"].get("phase") == "Released"]
    for volume in released:
        _empty(Path(volume["spec"]["local"]["path"]), below=paths.volumes)
        patch = json.dumps({"spec": {"claimRef": None}})
        kubectl(
            paths, binaries, "patch", "persistentvolume", volume["metadata"]["name"], "--type=merge", f"--patch={patch}"
        )
    return len(released)


def _make_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 0, _GROUP)
    directory.chmod(0o2775)


def _empty(directory: Path, *, below: Path) -> None:
    if directory.parent != below:
        raise ValueError(f"volume directory {directory} is not one of the pool in {below}: it is left alone")
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    _make_directory(directory)


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }


def _volume(paths: Paths, name: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [paths.node_name]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _CAPACITY},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": str(paths.volumes / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
