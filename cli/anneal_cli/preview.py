"""`anneal preview`: the exact tokens of the first rows, the trained ones marked.

Reads only what it shows, and needs neither storage nor weights. Not here: how it looks (`anneal_trainer.preview`).
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from anneal_cli import here

ROWS = 3


def preview(
    file: here.File,
    *,
    volume: here.Volume = None,
    name: here.Name = None,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, max=1000, help="Rows of each source.")] = ROWS,
    dataset: Annotated[
        int | None, typer.Option("--dataset", min=0, metavar="I", help="Only spec.datasets[I]; the first is 0.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Write the token ids beside the text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write a self-contained page.")] = None,
) -> None:
    """Show the tokens of the first rows and which of them are trained. Exit 1 if a shown row cannot be used."""
    from anneal_api import exitcodes
    from anneal_cli.output import failed, note

    job = here.chosen(file, name)
    if dataset is not None and dataset >= len(job.spec.datasets):
        raise failed(f"--dataset {dataset}: the job has {len(job.spec.datasets)}, counted from 0", code=exitcodes.USAGE)
    volumes = here.mapped(job, file, volume or [], storage=False)
    here.need_trainer(("transformers", "datasets"))
    from anneal_trainer import quiet_libraries
    from anneal_trainer.errors import TrainerError
    from anneal_trainer.preview import page, read, terminal

    quiet_libraries.apply()
    try:
        found = read.preview(job, volumes, rows=rows, dataset=dataset)
    except TrainerError as error:
        raise failed(str(error), code=error.exit_code) from error
    if html:
        try:
            html.write_text(page.html(found), encoding="utf-8")
        except OSError as error:
            words = f"--html {html} cannot be written: {error.strerror}; name a file in a directory that is there"
            raise failed(words, code=exitcodes.CONFIG) from error
        note(f"written: {html}")
    elif as_json:
        typer.echo(json.dumps(found.dump(), ensure_ascii=False, indent=1))
    else:
        for line in terminal.lines(found, colour=sys.stdout.isatty(), ids=ids):
            typer.echo(line)
    raise typer.Exit(1 if any(row.problem for row in found.rows) else 0)
