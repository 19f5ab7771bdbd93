"""What every command prints alike: problems with their file, and one-line failures with an exit code.

Errors and notes go to standard error, so that standard output holds only what was asked for.
"""

from collections.abc import Iterable

import typer

from anneal_api.problems import Problem


def note(message: str) -> None:
    """A line for people that is not the result."""
    typer.echo(message, err=True)


def failed(message: str, *, code: int) -> typer.Exit:
    """Print why, and what to raise to end with `code`."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def report(file: str, problems: Iterable[Problem]) -> None:
    """`FILE: spec.path: message`, one line a problem."""
    for problem in problems:
        note(f"{file}: {problem}")
