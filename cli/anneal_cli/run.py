"""`anneal run`: one job, here and now, without a cluster.

Checks everything that can be checked before the slow imports, then hands over to the trainer's local runner.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anneal_api import FineTuneJob

INSTALL = "pip install '.[trainer]' in Anneal's checkout"


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The manifest of a FineTuneJob.")],
    *,
    volume: Annotated[
        list[str] | None,
        typer.Option("--volume", metavar="CLAIM=DIR", help="The directory that stands for a claim. Repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Which job, if the file has several.")] = None,
) -> None:
    """Run a job on this machine; a second run of the same job resumes it. Exits with the trainer's own codes."""
    from anneal_cli.output import note

    job = _chosen(file, name)
    volumes = _mapped(job, file, volume or [])
    for claim in sorted(volumes.keys() - _needed(job)):
        note(f"note: --volume {claim}=… is not used by {job.name}")
    raise typer.Exit(_run_local(job, volumes))


def _chosen(file: Path, name: str | None) -> "FineTuneJob":
    from anneal_api import ManifestError, exitcodes, load_jobs
    from anneal_cli.output import failed, report

    try:
        jobs = load_jobs(file)
    except ManifestError as error:
        report(str(file), error.problems)
        unreadable = isinstance(error.__cause__, OSError)
        raise typer.Exit(exitcodes.NO_INPUT if unreadable else exitcodes.CONFIG) from error
    matching = [job for job in jobs if name in (None, job.name)]
    if len(matching) == 1 and matching[0].name:
        return matching[0]
    names = ", ".join(job.name or "(no name)" for job in jobs)
    if len(matching) == 1:
        raise failed(
            f"{file}: metadata.name: is required to run a job here; generateName is a cluster's", code=exitcodes.USAGE
        )
    if not matching:
        raise failed(f"{file} has no job called {name!r}; it has: {names}", code=exitcodes.USAGE)
    raise failed(f"{file} has {len(matching)} jobs ({names}): choose one with --name NAME", code=exitcodes.USAGE)


def _mapped(job: "FineTuneJob", file: Path, options: list[str]) -> dict[str, Path]:
    from anneal_api import exitcodes
    from anneal_cli.output import note, report
    from anneal_cli.volumes import parse_mappings, unmapped

    volumes, problems = parse_mappings(options)
    for problem in problems:
        note(f"error: {problem}")
    named = {option.partition("=")[0] for option in options}
    missing = unmapped(job, named)
    report(str(file), missing)
    if problems or missing:
        raise typer.Exit(exitcodes.USAGE)
    return volumes


def _needed(job: "FineTuneJob") -> set[str]:
    from anneal_cli.volumes import used_claims

    return set(used_claims(job))


def _run_local(job: "FineTuneJob", volumes: dict[str, Path]) -> int:
    from importlib.util import find_spec

    from anneal_api import exitcodes
    from anneal_cli.output import failed

    if any(find_spec(library) is None for library in ("torch", "transformers", "trl", "peft", "datasets")):
        raise failed(f"training needs the trainer's libraries: {INSTALL}", code=exitcodes.CONFIG)
    from anneal_trainer import local

    return local.run(job, volumes)
