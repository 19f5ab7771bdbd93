"""The program as a process: it starts at once, imports nothing heavy for it, and says what an extra is called."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pydantic", "yaml", "kubernetes", "torch", "transformers", "rich", "asyncio")


def anneal(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, `before` being Python that runs first."""
    code = f"import sys\n{before}\nfrom anneal_cli.__main__ import main\nsys.argv = ['anneal', *sys.argv[1:]]\nmain()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_starts_fast() -> None:
    """`anneal --help` takes less than half a second of processor time, whatever else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = anneal("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("run", "validate", "status", "logs", "version"))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_imports_nothing_heavy() -> None:
    """What a command needs is imported by that command, not to list the commands."""
    check = "import atexit; atexit.register(lambda: print('LOADED', *sorted(m for m in sys.modules if '.' not in m)))"
    loaded = anneal("--help", before=check).stdout.rpartition("LOADED")[2].split()
    assert "typer" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        pytest.param(["status"], "kubernetes", "[cluster]", id="cluster"),
        pytest.param(["run", "FILE"], "torch", "[trainer]", id="trainer"),
    ],
)
def test_a_missing_extra_is_one_line(tmp_path: Path, arguments: list[str], missing: str, extra: str) -> None:
    """Without an extra's libraries, the command that needs them says which extra to install."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {name: a}\n"
        "spec: {model: {source: hf://a/b}, datasets: [{source: hf://a/c}]}\n"
    )
    hide = (
        "import importlib.abc, importlib.util\n"
        "real = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else real(name, *rest)\n"
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        f"    def find_spec(self, name, *rest):\n"
        f"        if name.partition('.')[0] == {missing!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    done = anneal(*(str(file) if word == "FILE" else word for word in arguments), before=hide)
    assert done.returncode == 78
    assert extra in done.stderr
    assert done.stderr.count("\n") == 1


def test_version_names_anneal_and_the_libraries() -> None:
    """`anneal version` prints Anneal's version first, then what training would use."""
    lines = anneal("version").stdout.splitlines()
    assert lines[0].startswith("anneal 0.")
    assert any(line.startswith("torch ") for line in lines)


def test_the_shell_completes_commands() -> None:
    """What the completion script calls answers with the commands that begin like the word."""
    asked = {"_ANNEAL_COMPLETE": "complete_bash", "COMP_WORDS": "anneal sta", "COMP_CWORD": "1"}
    done = anneal(before=f"import os; os.environ.update({asked})")
    assert done.stdout.split() == ["status"]
