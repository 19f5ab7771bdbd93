"""`anneal run`: one job on this machine, with no cluster, by the same steps as in pods.

A job of one process is prepared and trained in this very process, so that nothing is imported or loaded twice; one of
several GPUs goes through the launcher, as in a pod. Not here: reading manifests and command lines (the CLI does).
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from anneal_api import Job, Outcome, ProgressReport, TerminationMessage, resolve
from anneal_api.exitcodes import OK
from anneal_api.jobfile import JobFile
from anneal_api.resolve import digest, largest_divisor
from anneal_trainer import console, earlier, lastwords, local_fit, quiet_libraries
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError, Interrupted, UserError
from anneal_trainer.files import read_json, write_json
from anneal_trainer.reporter import Reporter
from anneal_trainer.stop import Stop

_LOCK = "run.lock"


def run(
    job: Job,
    volumes: dict[str, Path],
    *,
    reward_modules: dict[str, Path] | None = None,
    again: bool = False,
    default_storage: Path = earlier.DEFAULT_STORAGE,
    quiet: bool = False,
) -> int:
    """Prepare and train `job` here, tell how it goes on stderr, and return an exit code of `anneal_api.exitcodes`.

    `job` need not be resolved. `volumes` maps claim names to existing directories (`--volume CLAIM=DIR`). The job's
    `reward_modules` maps ConfigMaps with reward functions likewise (`--config-map NAME=DIR`). The job's
    storage is its `spec.storage` claim, which must be mapped; without one, `default_storage` (made if absent).
    The run directory is `runs/NAME` on the storage, of an RLHFJob `runs/NAME-rlhf`. The same manifest run again resumes
    at its last checkpoint if it was interrupted; if it had ended, it is trained anew only with `again`. One that has
    changed starts anew. `quiet` leaves out progress bar, summary and notes, not errors. Never raises for what a user
    can mend: every such problem is printed, one line each, and has its own exit code. SIGINT and SIGTERM save a
    checkpoint and return 75.
    """
    begun = time.monotonic()
    try:
        context = replace(_context(job, volumes, default_storage), reward_modules=reward_modules or {})
    except UserError as error:
        console.say(f"error: {error}")
        return error.exit_code
    quiet_libraries.apply()
    try:
        with _alone(context):
            if not _begin(context, again=again, quiet=quiet):
                return OK
            return _reported(context, auto=local_fit.asks_for_auto(job), quiet=quiet, begun=begun)
    except ConfigError as error:
        console.say(f"error: {error}")
        return error.exit_code


def _context(job: Job, volumes: dict[str, Path], default_storage: Path) -> Context:
    spec = resolve(job.spec)
    if spec.storage is None:
        default_storage.mkdir(parents=True, exist_ok=True)
    claim, volumes = earlier.storage_of(spec, volumes, default_storage)
    job = job.model_copy(update={"spec": spec})
    file = JobFile(job=job, storage_claim=claim, sources=earlier.sources(job, volumes[claim]))
    return Context(file, {name: path.resolve() for name, path in volumes.items()}, local=True)


@contextmanager
def _alone(context: Context) -> Iterator[None]:
    """Two processes in one run directory would each go on from the other's checkpoints.

    The kernel holds the lock, so that it ends with the process however that ends.
    """
    context.layout.run_dir.mkdir(parents=True, exist_ok=True)
    with (context.layout.run_dir / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"job {context.job.name} is running in {context.layout.run_dir} already (process {file.read()}): "
                "wait for it, or give this job another metadata.name"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _begin(context: Context, *, again: bool, quiet: bool) -> bool:
    """Start anew unless the same manifest was interrupted here; False if it has ended, and nothing is to be done."""
    mark = _mark(context)
    before = read_json(context.layout.run_dir / earlier.RECORD) or {}
    _check_owner(context, before)
    same, ended = before.get("manifest") == mark, bool(before.get("done"))
    say = _silent if quiet else console.say
    if same and ended and not again and _has_output(context):
        say(
            f"{context.job.name} has been run to its end already; its result: {context.layout.output}\n"
            "to train it again, as with other data under the same names: anneal run --again"
        )
        return False
    if not (same and not ended) and context.layout.checkpoints.exists():
        kept = _set_aside(context)
        say(f"note: the earlier run here had {'the same' if same else 'another'} manifest: {kept}")
    _note(context, done=False, made=before.get(earlier.RESULT))
    return True


def _silent(_: str) -> None:
    """For `quiet`."""


def _has_output(context: Context) -> bool:
    return context.layout.output.is_dir() and any(context.layout.output.iterdir())


def _set_aside(context: Context) -> str:
    """Move what an earlier run has left to a directory of its own, as nothing of any run is removed; say so."""
    names = (f"previous-{number}" if number > 1 else "previous" for number in count(1))
    aside = next(place for name in names if not (place := context.layout.run_dir / name).exists())
    aside.mkdir()
    for path in (context.layout.checkpoints, context.layout.logs, context.layout.samples):
        if path.exists():
            path.rename(aside / path.name)
    stays = "; its result stays until this run has one" if _has_output(context) else ""
    return (
        f"this one starts anew; what it left is kept in {aside} (checkpoints, logs, samples: remove it when it is not "
        f"needed){stays}"
    )


def _check_owner(context: Context, before: dict[str, Any]) -> None:
    """Names that differ only in what a directory's name has no place for would overwrite one another's results."""
    kind, name = before.get("kind"), before.get("name")
    if name and (kind, name) != (context.job.kind, context.job.name):
        raise ConfigError(
            f"{context.layout.run_dir} holds the run of the {kind} {name}: give this job another metadata.name, or "
            "another storage"
        )


def _note(context: Context, *, done: bool, made: dict[str, Any] | None) -> None:
    """What this run is, and the latest result here: `made` stays until a run has made another one."""
    whose = {"kind": context.job.kind, "name": context.job.name, earlier.RESULT: made}
    write_json(context.layout.run_dir / earlier.RECORD, {"manifest": _mark(context), "done": done, **whose})


def _mark(context: Context) -> str:
    """Equal for runs that may go on from one another's checkpoints."""
    return digest([context.spec.dump(), [pin.dump() for pin in context.file.sources]])


def _reported(context: Context, *, auto: bool, quiet: bool, begun: float) -> int:
    """Run, and tell how it ended."""
    stop = Stop()
    try:
        with console.listener(quiet=quiet) as listen:
            words = _run(context, Reporter(ProgressReport(time=time.time()), listen), stop, auto=auto)
    except (Exception, Interrupted) as error:
        named = lastwords.as_named(error)
        if named is None:
            raise
        words = lastwords.of_error(named, None)
    finally:
        stop.restore()
    if words.exit_code != OK:
        stopped = words.outcome == Outcome.PREEMPTED
        console.say(f"{words.message}; the same command goes on" if stopped else f"error: {words.message}")
        return words.exit_code
    _note(context, done=True, made=earlier.made(context, words.outputs))
    if not quiet:
        console.summary(words, context.layout, time.monotonic() - begun)
    return OK


def _run(context: Context, reporter: Reporter, stop: Stop, *, auto: bool) -> TerminationMessage:
    from anneal_trainer.prepare import prepare
    from anneal_trainer.train import train

    ready = prepare(context, reporter)
    for warning in ready.report.warnings:
        console.say(f"note: {warning.message}")
    processes = _processes(context)
    context = local_fit.fitted(context, local_fit.gpu_here(context.spec, processes), auto=auto, processes=processes)
    if processes > 1:
        from anneal_trainer import launcher

        return launcher.launch("train", replace(context, processes=processes), port=0)
    return lastwords.of_result(train(context, ready, reporter=reporter, stop=stop))


def _processes(context: Context) -> int:
    """One for each GPU that is here and asked for, and that the global batch can be shared by."""
    wanted = context.spec.compute.gpus_per_node
    if wanted < 2:  # noqa: PLR2004 - one process needs no count, and torch is slow to import
        return 1
    import torch

    return largest_divisor(context.spec.training.global_batch, max(1, min(wanted, torch.cuda.device_count())))
