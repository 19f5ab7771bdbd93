"""`anneal status`: one job in full, or a table of all, from what the operator recorded in the objects."""

from enum import StrEnum
from typing import Annotated

import typer

from anneal_cli.options import Context, Kubeconfig, Namespace


class Format(StrEnum):
    """Output for people, or the objects as the API server holds them."""

    TEXT = "text"
    JSON = "json"


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The job, or KIND/NAME. Without: a table of all.")
    ] = None,
    *,
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="The jobs of every namespace.")] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="Output format.")] = Format.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a job or all jobs, running or finished."""
    import json
    from datetime import UTC, datetime

    from anneal_cli.cluster import Cluster, Target
    from anneal_cli.status_view import job_lines, jobs_table

    if name and everywhere:
        raise typer.BadParameter("a NAME needs one namespace: use -n NAMESPACE instead of -A")
    cluster = Cluster(Target(namespace, context, kubeconfig))
    found = cluster.job(name) if name else {"items": cluster.jobs(everywhere=everywhere)}
    if output is Format.JSON:
        typer.echo(json.dumps(found if name else {"apiVersion": "v1", "kind": "List", **found}, indent=2))
        return
    now = datetime.now(UTC)
    if name:
        typer.echo("\n".join(job_lines(found, now)))
    elif found["items"]:
        typer.echo("\n".join(jobs_table(found["items"], now, with_namespace=everywhere)))
    else:
        typer.echo(f"no jobs{'' if everywhere else f' in namespace {cluster.namespace!r}'}", err=True)
