"""The programs that a cluster is made of, built from their Go modules and kept by what they were built from.

No program is downloaded: the versions below and the checksums in `gobuild/*/go.sum` (and Go's checksum database)
decide what is built. A program whose key has not changed is never built again; an older one is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.layout import SOURCE, STATE_ROOT, cache_root
from cluster.shell import locked, run, run_logged, step

if TYPE_CHECKING:
    from collections.abc import Sequence

KUBERNETES = "v1.36.3"
TRAINING_OPERATOR = "v1.9.4"
HELM = "v4.3.1"
KUEUE_VERSION = "v0.19.2"
PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
_TRAINING_OPERATOR_MODULE = "github.com/kubeflow/training-operator"
_KUEUE_MODULE = "sigs.k8s.io/kueue"


@dataclass(frozen=True)
class Program:
    """One thing to build: from a directory here with its own go.mod, or from a package at a version.

    `module` is the module that the package lies in, where `kept`, a directory of it, is copied beside the program.
    `in_module` builds in that directory: `go install` of a version refuses a module that replaces or excludes others.
    """

    name: str
    title: str
    source: str = ""
    package: str = ""
    link_flags: str = ""
    module: str = ""
    kept: str = ""
    in_module: bool = False

    def key(self, go_version: str) -> str:
        """Changes when anything that decides the result does."""
        digest = hashlib.sha256()
        for text in (self.name, self.package, self.link_flags, go_version):
            digest.update(text.encode() + b"\0")
        if self.source:
            for file in sorted((SOURCE / "gobuild" / self.source).iterdir()):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()[:16]


def _version_flags() -> str:
    _, minor, _ = KUBERNETES.split(".")
    package = "k8s.io/component-base/version"
    # Clients refuse or misjudge a server that does not know its own version.
    return f"-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"


PROGRAMS = (
    Program("node", f"Kubernetes {KUBERNETES}", source="node", link_flags=_version_flags()),
    Program("coredns", "CoreDNS", source="coredns"),
    Program(
        "training-operator",
        f"Kubeflow training-operator {TRAINING_OPERATOR}",
        package=f"{_TRAINING_OPERATOR_MODULE}/cmd/training-operator.v1@{TRAINING_OPERATOR}",
        module=_TRAINING_OPERATOR_MODULE,
        kept="manifests",
    ),
    Program("helm", f"Helm {HELM}", package=f"helm.sh/helm/v4/cmd/helm@{HELM}"),
)
# Built when it is first asked for, and not with the others: most clusters never run it, and it takes minutes.
KUEUE = Program(
    "kueue",
    f"Kueue {KUEUE_VERSION}",
    package=f"{_KUEUE_MODULE}/cmd/kueue@{KUEUE_VERSION}",
    module=_KUEUE_MODULE,
    kept="charts/kueue",
    in_module=True,
)


@dataclass(frozen=True)
class Binaries:
    """Where the built programs lie."""

    directories: tuple[tuple[str, Path], ...]

    def directory(self, program: str) -> Path:
        return dict(self.directories)[program]

    def part(self, name: str) -> Path:
        return self.directory("node") / name

    def program(self, name: str) -> Path:
        return self.directory(name) / name

    @property
    def manifests(self) -> Path:
        """The training-operator's own kustomize files."""
        return self.directory("training-operator") / "manifests"


def go_version() -> str:
    """Such as go1.26.8; an empty text if there is no Go."""
    if shutil.which("go") is None:
        return ""
    return run(["go", "env", "GOVERSION"], env={**os.environ, "GOTOOLCHAIN": "local"}).strip()


def missing_programs(version: str, programs: Sequence[Program] = PROGRAMS) -> list[Program]:
    return [program for program in programs if not _directory(program, version).exists()]


def ensure_binaries(programs: Sequence[Program] = PROGRAMS) -> Binaries:
    """Build what is not there yet."""
    version = go_version()
    if missing_programs(version, programs):
        with locked(cache_root() / "programs" / ".lock", "another process that builds programs"):
            for program in missing_programs(version, programs):
                with step(f"building {program.title}"):
                    _build(program, _directory(program, version))
    return Binaries(tuple((program.name, _directory(program, version)) for program in programs))


def _directory(program: Program, version: str) -> Path:
    return cache_root() / "programs" / f"{program.name}-{program.key(version)}"


def _build(program: Program, target: Path) -> None:
    """Build beside the final place and move at the end: a directory that exists is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        _compile(program, work)
        if program.name == "node":
            for part in PARTS:
                (work / part).symlink_to("node")
        if program.kept:
            # Files of the module cache are read-only; copies without their modes can be removed again.
            shutil.copytree(
                _module_directory(program) / program.kept, work / program.kept, copy_function=shutil.copyfile
            )
        _remove_older(program, target.parent)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compile(program: Program, work: Path) -> None:
    log = cache_root() / "logs" / f"build-{program.name}.log"
    env = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(work), "GOTOOLCHAIN": "local"}
    flags = ("-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {program.link_flags}")
    if program.source:
        source = SOURCE / "gobuild" / program.source
        run_logged(["go", "build", *flags, "-o", work / program.name, "."], log, env=env, cwd=source)
        return
    if program.in_module:
        path, _, _ = program.package.partition("@")
        command = ["go", "build", *flags, "-o", work / program.name, path]
        run_logged(command, log, env=env, cwd=_module_directory(program))
        return
    # Outside the repository, so that no go.mod of ours is looked at.
    run_logged(["go", "install", *flags, program.package], log, env=env, cwd=work)
    built = next(file for file in work.iterdir() if file.is_file())
    built.rename(work / program.name)


def _module_directory(program: Program) -> Path:
    """Where Go keeps the module's files; fetched if they are not there yet."""
    _, _, version = program.package.partition("@")
    answer = run(["go", "mod", "download", "-json", f"{program.module}@{version}"], cwd=Path("/"), timeout=600)
    return Path(json.loads(answer)["Dir"])


def _remove_older(program: Program, parent: Path) -> None:
    if any(STATE_ROOT.glob("*/cluster.json")):
        return  # a cluster may be running from them, and a test may be calling them
    length = len(f"{program.name}-") + 16
    for other in parent.glob(f"{program.name}-*"):
        if len(other.name) == length:
            shutil.rmtree(other)
