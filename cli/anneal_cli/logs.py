"""`anneal logs`: what the pods of a job print, all ranks together, for running and finished pods.

With `-f` the whole job is followed: its prepare pod, then every attempt, until the job ends. Which pods are wanted is
decided in `log_choice`; here are the streams.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from anneal_cli.options import Context, Kubeconfig, Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anneal_cli.cluster import Cluster
    from anneal_cli.log_choice import PodLog, Wanted

_POLL_SECONDS = 1.0


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The job, or KIND/NAME.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="An attempt. Default: the last.")] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="The pod that prepared the data.")] = False,
    servers: Annotated[bool, typer.Option("--servers", help="The vLLM servers that draw answers.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the output of a job's pods."""
    from anneal_cli.cluster import Cluster, Target
    from anneal_cli.log_choice import Wanted

    if sum(map(bool, (prepare, attempt, servers))) > 1:
        raise typer.BadParameter("--prepare, --attempt and --servers name different pods: write one of them")
    cluster = Cluster(Target(namespace, context, kubeconfig))
    wanted = Wanted(prepare=prepare, attempt=attempt, servers=servers)
    if follow:
        _follow(cluster, name, wanted)
    else:
        _print_all(cluster, name, wanted)


def _print_all(cluster: "Cluster", name: str, wanted: "Wanted") -> None:
    from anneal_api import exitcodes
    from anneal_cli.log_choice import chosen, nothing_to_show
    from anneal_cli.output import failed, note

    job = cluster.job(name)
    pods = chosen(_pods(cluster, job), wanted)
    started = [pod for pod in pods if pod.started]
    if not started:
        raise failed(nothing_to_show(job, wanted, pods), code=exitcodes.NO_INPUT)
    if len(started) < len(pods):
        note(f"{len(pods) - len(started)} of {len(pods)} pods have not started")
    for pod in started:
        for line in cluster.log(pod.name, follow=False, container=pod.container):
            typer.echo(pod.prefix(len(pods)) + line)


def _follow(cluster: "Cluster", name: str, wanted: "Wanted") -> None:
    """Stream pods as they start until the job, or the one thing that was asked for, has ended."""
    import time

    from anneal_api import exitcodes
    from anneal_cli.log_choice import chosen, is_over, nothing_to_show
    from anneal_cli.output import failed, note

    shown: set[str] = set()
    said = ""
    while True:
        job = cluster.job(name)
        over = is_over(job, wanted)
        pods = chosen(_pods(cluster, job), wanted)
        fresh = [pod for pod in pods if pod.started and pod.uid not in shown]
        if fresh and len(fresh) == len([pod for pod in pods if pod.uid not in shown]):
            _stream(cluster, fresh)
            shown |= {pod.uid for pod in fresh}
            continue
        if over:
            break
        message = str((job.get("status") or {}).get("message") or "waiting for the operator to see the job")
        if message != said and not shown:
            note(message)
            said = message
        time.sleep(_POLL_SECONDS)
    if not shown:
        raise failed(nothing_to_show(job, wanted, pods), code=exitcodes.NO_INPUT)


def _pods(cluster: "Cluster", job: dict[str, Any]) -> list[dict[str, Any]]:
    from anneal_api.meta import OWNER_UID_LABEL

    return cluster.pods(f"{OWNER_UID_LABEL}={job['metadata']['uid']}")


def _stream(cluster: "Cluster", pods: "Sequence[PodLog]") -> None:
    """Print the lines of all pods as they come, until the last of them has ended."""
    for line in _merged(cluster, pods):
        typer.echo(line)


def _merged(cluster: "Cluster", pods: "Sequence[PodLog]") -> "Iterator[str]":
    from queue import Queue
    from threading import Thread

    lines: Queue[str | None] = Queue()

    def read(pod: "PodLog") -> None:
        try:
            for line in cluster.log(pod.name, follow=True, container=pod.container):
                lines.put(pod.prefix(len(pods)) + line)
        except typer.Exit:  # it has said why
            pass
        finally:
            lines.put(None)

    for pod in pods:
        Thread(target=read, args=(pod,), daemon=True).start()
    running = len(pods)
    while running:
        line = lines.get()
        if line is None:
            running -= 1
        else:
            yield line
