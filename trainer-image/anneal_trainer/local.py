"""`anneal run`: one job on this machine, with no cluster, by the same steps as in pods.

Single-process jobs are prepared and trained in this very process, so that nothing is imported or loaded twice.
Not here: reading manifests and command lines (the CLI does), and everything that pods do too.
"""

from pathlib import Path

from anneal_api import FineTuneJob

DEFAULT_STORAGE = Path("anneal-storage")


def run(
    job: FineTuneJob,
    volumes: dict[str, Path],
    *,
    default_storage: Path = DEFAULT_STORAGE,
    quiet: bool = False,
) -> int:
    """Prepare and train `job` here; print progress and a summary to stderr; return an exit code of `anneal_api.exitcodes`.

    `job` need not be resolved. `volumes` maps claim names to existing directories (`--volume CLAIM=DIR`). The job's
    storage is its `spec.storage` claim, which must be mapped; without one, `default_storage` (made if absent).
    The run directory is `runs/NAME` on the storage. The same manifest run again resumes at its last checkpoint if it
    was interrupted, and starts anew if it had ended or has changed. `quiet` leaves out progress bar and summary, not errors.
    Never raises for what a user can mend: every such problem is printed, one line each, and has its own exit code.
    SIGINT and SIGTERM save a checkpoint and return 75.
    """
    raise NotImplementedError
