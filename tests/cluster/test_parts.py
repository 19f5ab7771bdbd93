"""Small pure pieces: control groups as machines mount them, images without a base, volumes, shared image files."""

import json
import tarfile
from pathlib import Path
from threading import Thread

import pytest

from cluster import cgroups, storage
from cluster.layout import Paths, Subnets
from cluster.node import registry_config
from cluster.scratch_images import ScratchImage, write_archive
from cluster.shell import locked, wait_until
from cluster.unpacked import link_copy

V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"
V2 = "38 31 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
OTHER = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755"


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (f"{OTHER}\n{V1}\n{V2}", {"/sys/fs/cgroup/cpu": "cgroup", "/sys/fs/cgroup/unified": "cgroup2"}),
        ("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw", {"/sys/fs/cgroup": "cgroup2"}),
        (OTHER, {}),
        ("", {}),
    ],
    ids=["both versions on a tmpfs", "version 2", "none", "nothing mounted"],
)
def test_control_groups_are_read_from_what_is_mounted(mountinfo: str, expected: dict[str, str]) -> None:
    """Each hierarchy is found with its version, wherever it is mounted."""
    assert cgroups.hierarchies(mountinfo) == {Path(mount): kind for mount, kind in expected.items()}


def test_a_scratch_image_is_the_program_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    """The archive holds the program, executable, under its name; a second one is identical."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    image = ScratchImage("localhost/x:1", program, "bin/program", ("/bin/program",))
    for name in ("one.tar", "two.tar"):
        write_archive(image, tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        layer = archive.extractfile("layer.tar")
        manifest = archive.extractfile("manifest.json")
        assert layer is not None
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["localhost/x:1"]
        with tarfile.open(fileobj=layer) as content:
            assert content.getmember("bin/program").mode == 0o755


def test_only_directories_of_the_pool_are_emptied(tmp_path: Path) -> None:
    """A volume that is not one of the pool's own directories is left alone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    with pytest.raises(ValueError, match="left alone"):
        storage._empty(elsewhere, below=tmp_path / "volumes")
    assert (elsewhere / "precious").exists()


def test_shared_image_files_are_links_and_the_rest_is_a_copy(tmp_path: Path) -> None:
    """A cluster's containerd can write its own records, and reads the gigabytes where they are."""
    unpacked, root = tmp_path / "unpacked", tmp_path / "root"
    snapshot = unpacked / "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"
    blob = unpacked / "io.containerd.content.v1.content/blobs/sha256/abc"
    record = unpacked / "io.containerd.metadata.v1.bolt/meta.db"
    for file in (snapshot / "large", blob, record):
        file.parent.mkdir(parents=True)
        file.write_text("x")
    link_copy(unpacked, root)
    copied = root / record.relative_to(unpacked)
    copied.write_text("changed")
    assert record.read_text() == "x"
    assert (root / blob.relative_to(unpacked)).is_symlink()
    assert (root / snapshot.parent.relative_to(unpacked)).is_symlink()
    assert (root / snapshot.relative_to(unpacked) / "large").read_text() == "x"


def test_the_registry_listens_on_loopback_only(tmp_path: Path) -> None:
    """Images are served to the node and to nobody else."""
    config = json.loads(registry_config(tmp_path))
    assert config["http"]["addr"] == "127.0.0.1:5000"
    assert config["storage"]["filesystem"]["rootdirectory"] == str(tmp_path)


def test_volumes_of_the_pool_bind_on_their_own_node_only() -> None:
    """A pool volume names the cluster's node and offers every access mode that a claim may ask for."""
    volume = storage._volume(Paths("unit"), "pool-00")["spec"]
    (term,) = volume["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["anneal-unit"]
    assert {"ReadWriteOnce", "ReadWriteMany"} <= set(volume["accessModes"])
    assert Subnets(0).node_ip == "10.96.0.2"


def test_a_lock_whose_file_was_deleted_holds_nobody_off(tmp_path: Path) -> None:
    """Deleting the file under the lock, as `down` does, lets the next one in with a file of its own."""
    file = tmp_path / "lock"
    with locked(file, "nobody"):
        file.unlink()
        with locked(file, "nobody"):
            assert file.exists()


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A second holder says what it waits for, and comes in only when the first has left."""
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock", "the first"):
            order.append("second")

    thread = Thread(target=second)
    with locked(tmp_path / "lock", "nobody"):
        thread.start()
        assert wait_until(lambda: "waiting for the first" in capfd.readouterr().err, timeout=10)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
