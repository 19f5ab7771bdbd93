"""`anneal validate`: the checks that a cluster would make, without one.

It finds what the schema and its rules refuse, all of it at once, and notes what is allowed and unusual. What only a
cluster or the data can tell (an unknown pool, a missing claim, a broken row) is not looked for here.
"""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anneal_api import Job

INVALID = 2  # as compilers and linters exit: the arguments were fine, the files are not
STDIN = "-"


def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Manifests; - reads standard input.")],
    *,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print each job with every default filled.")] = False,
) -> None:
    """Check manifests and report every problem at once; exit 2 if there is one."""
    jobs: list[Job] = []
    valid = True
    for file in files:
        found = _checked(file)
        valid = valid and found is not None
        jobs += found or []
    if not valid:
        raise typer.Exit(INVALID)
    if resolved:
        typer.echo(resolved_yaml(jobs), nl=False)


def _checked(file: str) -> "list[Job] | None":
    """The jobs of a file, or None after its problems were printed."""
    from anneal_api import ManifestError
    from anneal_api.usual import unusual
    from anneal_cli.output import note, report

    shown = "<stdin>" if file == STDIN else file
    try:
        jobs = _read(file)
    except ManifestError as error:
        report(shown, error.problems)
        return None
    for job in jobs:
        of = f"{shown}: {_called(job)}" if len(jobs) > 1 else shown
        for path, source in local_sources(job):
            note(f"{of}: {path}: note: {source!r} works with `anneal run` only; a cluster refuses a local path")
        for found in unusual(job.spec):
            note(f"{of}: {found.path}: note: {found.message}")
    return jobs


def _called(job: "Job") -> str:
    return job.name or f"{job.metadata['generateName']}…"


def _read(file: str) -> "list[Job]":
    import sys
    from pathlib import Path

    from anneal_api import ManifestError, Problem, jobs_in, load_jobs

    if file != STDIN:
        return load_jobs(Path(file))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise ManifestError([Problem("", f"not UTF-8 text (byte {error.start})")]) from error
    return jobs_in(text)


def local_sources(job: "Job") -> list[tuple[str, str]]:
    """Path and text of every source that a cluster cannot read."""
    from anneal_api.sources import is_local
    from anneal_cli.volumes import sources

    return [(path, text) for path, text in sources(job) if is_local(text)]


def resolved_yaml(jobs: "list[Job]") -> str:
    """The jobs as YAML documents, as the trainer would read them."""
    import yaml

    from anneal_api import resolve

    documents = [
        {
            "apiVersion": job.api_version,
            "kind": job.kind,
            "metadata": job.metadata,
            "spec": resolve(job.spec).dump(),
        }
        for job in jobs
    ]
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)
