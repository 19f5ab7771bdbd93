"""What is kept is named by what it is made of: a change of any input is a new name, anything else is not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import images
from cluster.binaries import KUEUE, PROGRAMS, Program
from cluster.layout import REPOSITORY
from cluster.shell import ClusterError

DIRECTORIES = ("crds", "operator", "trainer-image", "cli", "requirements")
FILES = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore")
ALL_PROGRAMS = (*PROGRAMS, KUEUE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the images are made of."""
    for name in DIRECTORIES:
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        "pyproject.toml",
        "requirements/trainer.txt",
        "requirements/uv-version",
        "trainer-image/Dockerfile",
        "trainer-image/anneal_trainer/__main__.py",
        "crds/anneal_api/new_module.py",
    ],
)
def test_any_input_changes_the_image_name(checkout: Path, changed: str) -> None:
    """A byte more in an input, or a new module, is another image."""
    before = images.reference(images.TRAINER, checkout)
    with (checkout / changed).open("a") as file:
        file.write("\n")
    assert images.reference(images.TRAINER, checkout) != before


@pytest.mark.parametrize(
    "unrelated",
    ["crds/anneal_api/__pycache__/x.pyc", "tests/new.py", "requirements/operator.txt", "operator/Dockerfile"],
)
def test_what_is_not_in_the_image_does_not_change_its_name(checkout: Path, unrelated: str) -> None:
    """Bytecode, tests and the other image's files leave the trainer's name as it is."""
    before = images.reference(images.TRAINER, checkout)
    file = checkout / unrelated
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    assert images.reference(images.TRAINER, checkout) == before


def test_what_vllm_is_made_of_changes_its_image_alone(checkout: Path) -> None:
    """Other versions beside the trainer's are another image of the servers and the same one of the trainer."""
    before, trainer = images.reference(images.VLLM, checkout), images.reference(images.TRAINER, checkout)
    with (checkout / "requirements/vllm-cpu.txt").open("a") as file:
        file.write("\n")
    assert images.reference(images.VLLM, checkout) != before
    assert images.reference(images.TRAINER, checkout) == trainer


def test_a_missing_input_is_named(checkout: Path) -> None:
    """All files that are not there are in one message."""
    (checkout / "LICENSE").unlink()
    (checkout / "requirements/operator.txt").unlink()
    with pytest.raises(ClusterError, match=r"operator image is made of LICENSE, requirements/operator\.txt"):
        images.reference(images.OPERATOR, checkout)


def test_the_two_images_have_names_of_their_own() -> None:
    """Operator and trainer are different repositories of the registry that nodes see as local."""
    names = images.current_names()
    assert names.operator.startswith("localhost:5000/anneal-operator:")
    assert names.trainer.startswith("localhost:5000/anneal-trainer:")


@pytest.mark.parametrize("program", ALL_PROGRAMS, ids=lambda program: program.name)
def test_a_program_is_built_again_when_go_or_its_version_changes(program: Program) -> None:
    """Another Go, other flags or another module version is another program; the same is the same."""
    key = program.key("go1.26.8")
    assert program.key("go1.26.8") == key
    assert program.key("go1.26.9") != key
    assert replace(program, link_flags="-X other").key("go1.26.8") != key
    assert replace(program, package="example.com/other@v1").key("go1.26.8") != key


def test_programs_do_not_share_a_key() -> None:
    """No two programs could overwrite each other."""
    assert len({program.key("go1.26.8") for program in ALL_PROGRAMS}) == len(ALL_PROGRAMS)
