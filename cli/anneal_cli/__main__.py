"""`anneal` and `kubectl anneal`: one program; each command is one file.

Every command module imports only typer at its top, so that `anneal --help` and shell completion answer at once: the
models, the Kubernetes client and torch are imported inside the command that needs them.
"""

import typer

from anneal_cli import estimate, logs, prepare, preview, run, status, validate, version

app = typer.Typer(
    name="anneal",
    help="Fine-tune and align language models: here, or as jobs on Kubernetes.",
    no_args_is_help=True,
    # A traceback with local variables would print tokens and rows of data into logs.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("validate")(validate.validate)
app.command("preview")(preview.preview)
app.command("prepare")(prepare.prepare)
app.command("estimate")(estimate.estimate)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("version")(version.version)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
