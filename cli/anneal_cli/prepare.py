"""`anneal prepare`: tokens and labels of a job as a data set on disk, and the report about them.

Not here: the work (`anneal_trainer.local_prepare`).
"""

from pathlib import Path
from typing import Annotated

import typer

from anneal_cli import here


def prepare(
    file: here.File,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Gets train/, eval/ and report.json.")],
    volume: here.Volume = None,
    config_map: here.ConfigMap = None,
    name: here.Name = None,
    no_pack: Annotated[bool, typer.Option("--no-pack", help="One row a sequence, whatever the job says.")] = False,
) -> None:
    """Prepare a job's data into DIR, and open its rewards; `datasets.load_from_disk(DIR/train)` opens the data.

    Exits with the trainer's codes.
    """
    from anneal_cli.data_view import data_lines, length_lines
    from anneal_cli.output import note

    job = here.chosen(file, name)
    volumes = here.mapped(job, file, volume or [], storage=False)
    modules = here.mapped_config_maps(job, file, config_map or [])
    here.need_trainer(("transformers", "datasets"))
    from anneal_trainer import local_prepare

    code, report, reused = local_prepare.prepare(job, volumes, out, reward_modules=modules, pack=not no_pack)
    if report is None:
        raise typer.Exit(code)
    for line in [*data_lines(report), "", "Lengths", *length_lines(report.lengths)]:
        typer.echo(line)
    note(f"{out}: {'is up to date' if reused else 'written'}; report.json has every place")
