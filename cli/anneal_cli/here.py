"""What the commands that work on this machine share: the job of a file, the directories of its claims, the libraries.

Imports only typer at its top, as every command's file does.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anneal_api import Job

INSTALL = "pip install '.[trainer]' in Anneal's checkout"
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The manifest of a FineTuneJob or RLHFJob.")]
Volume = Annotated[
    list[str] | None,
    typer.Option("--volume", metavar="CLAIM=DIR", help="The directory that stands for a claim. Repeatable."),
]
ConfigMap = Annotated[
    list[str] | None,
    typer.Option(
        "--config-map",
        metavar="NAME=DIR",
        help="The directory that stands for a ConfigMap with reward functions. Repeatable.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Which job, if the file has several.")]


def chosen(file: Path, name: str | None) -> "Job":
    """The one job of a file, or the one that is called `name`; every problem is printed before the exit."""
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


def mapped(job: "Job", file: Path, options: list[str], *, storage: bool = True) -> dict[str, Path]:
    """The directory of each claim. `storage`: the job's storage is among those that must have one."""
    from anneal_api import exitcodes
    from anneal_cli.output import note, report
    from anneal_cli.volumes import parse_mappings, unmapped

    volumes, problems = parse_mappings(options)
    for problem in problems:
        note(f"error: {problem}")
    named = {option.partition("=")[0] for option in options}
    missing = unmapped(job, named, storage=storage)
    report(str(file), missing)
    if problems or missing:
        raise typer.Exit(exitcodes.USAGE)
    return volumes


def mapped_config_maps(job: "Job", file: Path, options: list[str]) -> dict[str, Path]:
    """The directory of each ConfigMap with reward functions."""
    from anneal_api import exitcodes
    from anneal_cli.output import note, report
    from anneal_cli.volumes import CONFIG_MAP, parse_mappings, unmapped_config_maps

    directories, problems = parse_mappings(options, CONFIG_MAP)
    for problem in problems:
        note(f"error: {problem}")
    missing = unmapped_config_maps(job, {option.partition("=")[0] for option in options})
    report(str(file), missing)
    if problems or missing:
        raise typer.Exit(exitcodes.USAGE)
    return directories


def need_trainer(libraries: tuple[str, ...] = LIBRARIES) -> None:
    """Exit with what to install, if the trainer's libraries are not here."""
    from importlib.util import find_spec

    from anneal_api import exitcodes
    from anneal_cli.output import failed

    if any(find_spec(library) is None for library in libraries):
        raise failed(f"this needs the trainer's libraries: {INSTALL}", code=exitcodes.CONFIG)
