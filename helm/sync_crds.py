"""The chart's copies of `crds/*.yaml`, with the chart's switches around them: `python helm/sync_crds.py`.

CRDs are templates and not in the chart's `crds/` folder, which Helm installs once and never upgrades. The keep policy
leaves them, and with them every job, when the chart is uninstalled. The copies are committed; `make generate` writes
them.
"""
# ruff: noqa: INP001 - a script of the chart, not a package

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "helm" / "anneal" / "templates" / "crds"
HEADER = "{{- /* Generated from crds/%s by `make generate`; never edited. */}}\n{{- if .Values.crds.install }}\n"
KEEP = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
FOOTER = "{{- end }}\n"
# What Go templates would take for an action; a description may hold it.
_OPEN, _ESCAPED = "{{", '{{ "{{" }}'


def template(name: str, crd: str) -> str:
    """The template for the CRD file `name` with this text; ValueError if it is not laid out as generated."""
    body = "".join(line for line in crd.splitlines(keepends=True) if not line.startswith("#"))
    metadata, found, rest = body.replace(_OPEN, _ESCAPED).partition("\nspec:\n")
    if not found or "\n  annotations:" in metadata:
        raise ValueError(f"{name}: expected metadata without annotations, then spec, at the top level")
    return f"{HEADER % name}{metadata}\n{KEEP}spec:\n{rest}{FOOTER}"


def main() -> None:
    """Write a template for each CRD, and remove those whose CRD is gone."""
    sources = sorted((ROOT / "crds").glob("*.yaml"))
    TARGET.mkdir(parents=True, exist_ok=True)
    for stale in set(TARGET.glob("*.yaml")) - {TARGET / source.name for source in sources}:
        stale.unlink()
    for source in sources:
        (TARGET / source.name).write_text(template(source.name, source.read_text()))


if __name__ == "__main__":
    main()
