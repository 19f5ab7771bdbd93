"""`anneal version`: what is installed, read from package metadata so that nothing heavy is imported."""

import typer

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "kubernetes", "kopf")


def version() -> None:
    """Print the version of Anneal, and of the libraries that are installed beside it."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    typer.echo(f"anneal {installed('anneal')}")
    typer.echo(f"python {platform.python_version()}")
    for library in LIBRARIES:
        try:
            typer.echo(f"{library} {installed(library)}")
        except PackageNotFoundError:
            continue
