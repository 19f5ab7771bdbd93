"""Our reader of YAML sees what kubectl sends: the same manifest must mean the same with and without a cluster.

`kubectl label --local` parses a file and prints it as JSON without asking a server, so it is the reference.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from anneal_api import ManifestError, documents
from cluster.binaries import ensure_binaries

# Every form in which YAML 1.1, YAML 1.2, PyYAML and go-yaml differ, or are commonly believed to.
SCALARS = (
    "1e-5", "2.0e-4", "1E5", "1e5", "1e+3", "5.", ".5", "-.5", "+.5", ".5e3", "1.5", "-1.5e-3", "1.0", "100.0", "1e21",
    "1_000", "1_0.5", "._5", "0", "-0", "+1", "-7", "007", "017", "08", "0o17", "0O17", "0b101", "0B11", "-0b11", "0x1F",
    "0XaF", "0x", "0b2", "-a", "+", ".", "..", "1.2.3", "12:30", "1:30:00", "190:20:30.15", "9223372036854775807",
    "2026-01-01", "2026-01-01T10:00:00Z", "2026-01-01 10:00:00", "y", "Y", "n", "N", "yes", "Yes", "YES", "no", "on",
    "On", "off", "OFF", "true", "True", "TRUE", "tRUE", "false", "~", "null", "Null", "NULL", "nUll", "none", "None",
    '"1e-5"', "'017'", '"yes"', "16Gi", "500m", "0.5", "4", "v1", "hf://org/model", "e5", "1e", "1e5x", "0.1.0", "inf",
    "nan", "infinity", "=", "100%", "a: b", "[1, 2e3, yes]", "{a: 1e2, b: no}", "!!str 1", "!!int '5'", "''", "",
    "3_", "1__0", "0_8", "-08", "1e400x", "0x1p-2", "0.0", "1.7976931348623157e308", "12e03", "tr", "Of", "ON",
)  # fmt: skip


@pytest.fixture(scope="module")
def kubectl() -> Path:
    """The kubectl of the test cluster's Kubernetes version; no cluster is needed."""
    return ensure_binaries().part("kubectl")


def as_kubectl(kubectl: Path, text: str, tmp_path: Path) -> dict[str, Any]:
    """The manifest as kubectl would send it."""
    file = tmp_path / "manifest.yaml"
    file.write_text(text)
    command = [str(kubectl), "label", "--local", "-f", str(file), "a=b", "-o", "json", "--kubeconfig=/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def manifest(spec: str) -> str:
    """A manifest around the lines of a spec."""
    return f"apiVersion: anneal.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {{name: x}}\nspec:\n{spec}"


def typed(value: Any) -> Any:
    """A value with its type, as 1 and True and 1.0 are equal in Python and not in JSON."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value).__name__, value


def test_every_scalar_is_read_as_kubectl_reads_it(kubectl: Path, tmp_path: Path) -> None:
    """Value and type are the same for each form of number, boolean, null, date and text."""
    lines = "".join(
        f"  k{index}: {scalar}\n" if not scalar.startswith("a:") else f"  k{index}:\n    {scalar}\n"
        for index, scalar in enumerate(SCALARS)
    )
    ours = documents(manifest(lines))[0]["spec"]
    theirs = as_kubectl(kubectl, manifest(lines), tmp_path)["spec"]
    differing = {
        scalar: (ours[f"k{index}"], theirs[f"k{index}"])
        for index, scalar in enumerate(SCALARS)
        if typed(ours[f"k{index}"]) != typed(theirs[f"k{index}"])
    }
    assert differing == {}


@pytest.mark.parametrize("key", ["on", "y", "8", "0x10", "a", '"on"', "1.5"])
def test_every_key_is_read_as_kubectl_reads_it(kubectl: Path, tmp_path: Path, key: str) -> None:
    """Keys that look like booleans or numbers become the same text."""
    text = manifest(f"  labels: {{{key}: x}}\n")
    assert documents(text)[0]["spec"] == as_kubectl(kubectl, text, tmp_path)["spec"]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param("  a: &x {b: 1}\n  c: *x\n", id="alias"),
        pytest.param("  a: &x {b: 1, c: 2}\n  d:\n    <<: *x\n    b: 3\n", id="merge"),
        pytest.param("  a: |\n    one\n    two\n  b: >\n    one\n    two\n", id="block-text"),
        pytest.param("  a: one\n    two\n", id="folded-plain"),
        pytest.param("  a: \"tab\\t \\u00e9\"\n  b: 'it''s'\n", id="escapes"),
    ],
)
def test_structure_is_read_as_kubectl_reads_it(kubectl: Path, tmp_path: Path, spec: str) -> None:
    """Aliases, merge keys and multi-line text give the same tree."""
    ours = documents(manifest(spec))[0]["spec"]
    assert typed(ours) == typed(as_kubectl(kubectl, manifest(spec), tmp_path)["spec"])


def test_a_key_written_twice_is_refused_though_kubectl_may_not(kubectl: Path, tmp_path: Path) -> None:
    """Where kubectl would keep the last one without a server to object, we refuse and say the line."""
    text = manifest("  a: 1\n  a: 2\n")
    assert as_kubectl(kubectl, text, tmp_path)["spec"] == {"a": 2}
    with pytest.raises(ManifestError, match="line 6: the key 'a' is written twice"):
        documents(text)


def test_the_reference_differs_from_plain_pyyaml() -> None:
    """The reason for a reader of our own: PyYAML reads a learning rate of 1e-5 as text."""
    assert yaml.safe_load("1e-5") == "1e-5"
    assert documents("1e-5") == [1e-5]
