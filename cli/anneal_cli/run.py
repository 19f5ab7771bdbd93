"""`anneal run`: one job, here and now, without a cluster.

Checks everything that can be checked before the slow imports, then hands over to the trainer's local runner.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from anneal_cli import here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anneal_api import Job

# What says where and when a cluster runs a job.
_OF_JOB = ("queue", "priorityClass")
_OF_COMPUTE = ("pool", "gpuType", "nodes", "minNodes")


def run(
    file: here.File,
    *,
    volume: here.Volume = None,
    config_map: here.ConfigMap = None,
    name: here.Name = None,
    again: Annotated[bool, typer.Option("--again", help="Train anew a job that has been run to its end.")] = False,
) -> None:
    """Run a job on this machine; run again, it goes on where it was stopped. Exits with the trainer's own codes.

    A job that has been run to its end is left as it is, until its manifest changes or --again is given.
    """
    from anneal_cli.output import note

    job = here.chosen(file, name)
    if unread := list(_unread(job)):
        note(f"note: {', '.join(unread)} {'is' if len(unread) == 1 else 'are'} for a cluster, and not used here")
    volumes = here.mapped(job, file, volume or [])
    for claim in sorted(volumes.keys() - _needed(job)):
        note(f"note: --volume {claim}=… is not used by {job.name}")
    modules = here.mapped_config_maps(job, file, config_map or [])
    here.need_trainer()
    from anneal_trainer import local

    raise typer.Exit(local.run(job, volumes, reward_modules=modules, again=again))


def _unread(job: "Job") -> "Iterator[str]":
    """The fields that are set and have no meaning on one machine."""
    from anneal_api.rollout import OF_SERVERS

    given = job.spec.model_dump(by_alias=True, exclude_defaults=True)
    blocks = (("", given, _OF_JOB), ("compute.", given.get("compute"), _OF_COMPUTE))
    for prefix, block, names in (*blocks, ("rollout.", given.get("rollout"), OF_SERVERS)):
        yield from (f"{prefix}{name}" for name in names if name in (block or {}))


def _needed(job: "Job") -> set[str]:
    from anneal_cli.volumes import used_claims

    return set(used_claims(job))
