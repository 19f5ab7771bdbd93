"""What a machine lacks is said all at once, a line each, and before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import prerequisites
from cluster.layout import REPOSITORY, STATE_ROOT
from cluster.shell import PrerequisiteError


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    """A machine with neither Go nor room gets both lines from one call."""
    with pytest.raises(PrerequisiteError) as raised:
        prerequisites.check_machine(go_version="", needs_go=True, disk={tmp_path: 1e6})
    subjects = {problem.partition(":")[0] for problem in raised.value.problems}
    assert subjects >= {"Go", "disk"}
    assert all("\n" not in problem for problem in raised.value.problems)


def test_the_command_line_exits_with_2_and_starts_nothing(tmp_path: Path) -> None:
    """`up` on a machine with an old Go prints the line, exits with 2 and leaves no state or cache."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho go1.20.1\n")
    go.chmod(0o755)
    env = {**os.environ, "PATH": f"{go.parent}:{os.environ['PATH']}", "ANNEAL_CACHE": str(tmp_path / "cache")}
    env["PYTHONPATH"] = str(REPOSITORY / "tests")
    command = [sys.executable, "-m", "cluster", "up", "--name", "never-started", "--no-images"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Go: this is go1.20.1; Kubernetes is built from source with Go 1.26 or newer" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (STATE_ROOT / "never-started").exists()
    assert not (tmp_path / "cache" / "programs").exists()


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("go1.26.8", True), ("go1.27", True), ("go2.0", True), ("go1.25.9", False), ("", False), ("devel", False)],
)
def test_go_versions_are_compared_as_numbers(version: str, accepted: bool) -> None:  # noqa: FBT001 (a table's column)
    """1.26 and newer will do; anything else is named with what is needed."""
    assert (prerequisites.go_problems(version) == []) is accepted


def test_room_is_added_up_for_each_file_system(tmp_path: Path) -> None:
    """Two directories of one file system need their sum, although either alone would fit."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / prerequisites.GIB
    one, other = tmp_path / "not" / "there", tmp_path
    assert prerequisites.disk_problems({one: free * 0.6}) == []
    (problem,) = prerequisites.disk_problems({one: free * 0.6, other: free * 0.6})
    assert str(one) in problem
    assert f"{free * 1.2:.1f} GiB are needed" in problem


@pytest.mark.parametrize(
    ("found", "subject"),
    [
        (prerequisites.root_problems(1000), "root: this is user 1000"),
        (prerequisites.platform_problems("darwin", "x86_64"), "operating system: this is darwin"),
        (prerequisites.platform_problems("linux", "riscv64"), "processor: this is riscv64"),
        (prerequisites.memory_problems("MemAvailable:    1048576 kB\n"), "memory: 1.0 GiB are available"),
    ],
    ids=["root", "system", "processor", "memory"],
)
def test_a_lack_is_one_line_with_its_value(found: list[str], subject: str) -> None:
    """Each lack is one line that starts with the subject and what was found."""
    (problem,) = found
    assert problem.startswith(subject)


def test_packages_that_cannot_be_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt-get every missing package is named in one line; with nothing missing there is no line."""
    assert prerequisites.package_problems([]) == []
    monkeypatch.setenv("PATH", "/nonexistent")
    (problem,) = prerequisites.package_problems(["containerd", "runc"])
    assert problem.startswith("packages:")
    assert problem.endswith("containerd runc")
