"""`anneal prepare`: the prepare step of a job on this machine, into a directory of a person's choosing.

The same code as in the pods and in `anneal run`. Not here: reading manifests and command lines (the CLI does).
"""

import time
from dataclasses import replace
from pathlib import Path

from anneal_api import Job, ProgressReport, resolve
from anneal_api.datasetreport import DatasetReport
from anneal_api.exitcodes import OK
from anneal_trainer import console, earlier, lastwords, quiet_libraries
from anneal_trainer.prepare import prepare_into
from anneal_trainer.reporter import Reporter


def prepare(
    job: Job,
    volumes: dict[str, Path],
    out: Path,
    *,
    reward_modules: dict[str, Path] | None = None,
    pack: bool,
    quiet: bool = False,
) -> tuple[int, DatasetReport | None, bool]:
    """Write train/, eval/ and report.json below `out`; return exit code, report, and whether it was there already.

    `pack=False` leaves rows apart whatever the job says. The job's storage is needed for job:// sources alone, and not
    touched. `reward_modules` maps ConfigMaps with reward functions to directories. What a user can mend is printed, as
    `anneal run` prints it.
    """
    quiet_libraries.apply()
    spec = resolve(job.spec)
    if not pack:
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"packing": False})})
    try:
        looked = earlier.looking(job.model_copy(update={"spec": spec}), volumes)
        context = replace(looked, reward_modules=reward_modules or {}, local=True)
        with console.listener(quiet=quiet) as listen:
            ready = prepare_into(context, out, Reporter(ProgressReport(time=time.time()), listen))
    except Exception as error:
        named = lastwords.as_named(error)
        if named is None:
            raise
        words = lastwords.of_error(named, None)
        console.say(f"error: {words.message}")
        return words.exit_code, None, False
    return OK, ready.report, ready.reused
