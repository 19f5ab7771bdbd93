"""One process of a job: it prepares, or is one rank of training. Its parent is the launcher, or torchrun below it.

    python -m anneal_trainer.worker prepare|train CONTEXT

Whatever happens, it leaves its last words in the records directory and exits with the code that they say.
Not here: anything about the pod (`launcher`).
"""

import os
import sys
import time
import traceback
from pathlib import Path

from anneal_api import ProgressReport, TerminationMessage
from anneal_trainer import console, lastwords, quiet_libraries
from anneal_trainer.context import Context
from anneal_trainer.files import replace_text
from anneal_trainer.reporter import Reporter, into_file, silent, together
from anneal_trainer.stop import Stop


def main(command: str, context_file: Path) -> int:
    """Do it, and say how it ended."""
    context = Context.decode(context_file.read_text(encoding="utf-8"))
    assert context.records is not None, "a worker is started by a launcher"
    rank = int(os.environ.get("RANK", "0"))
    quiet_libraries.apply()
    role = "prepare" if command == "prepare" else "trainer"
    report = ProgressReport(role=role, attempt=context.attempt, world_size=context.world_size, time=time.time())
    listen = together(into_file(context.records), console.Lines()) if rank == 0 else silent
    reporter = Reporter(report, listen)
    log = str(context.log(command).relative_to(context.layout.storage))
    try:
        words = _prepare(context, reporter) if command == "prepare" else _train(context, reporter)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        words = lastwords.of_error(error, reporter)
        if lastwords.as_named(error) is None:
            traceback.print_exc()
        else:
            print(f"{words.outcome}: {words.message}", file=sys.stderr, flush=True)  # noqa: T201
    reporter.flush()
    replace_text(context.records / f"words-{rank}.json", words.model_copy(update={"log": log}).encode())
    return words.exit_code


def _prepare(context: Context, reporter: Reporter) -> TerminationMessage:
    from anneal_trainer.estimate import records
    from anneal_trainer.prepare import prepare

    Stop()
    report = prepare(context, reporter).report
    # Last, as it imports the model's class: while rows are read that would only take memory from their processes.
    return lastwords.of_prepared(report, records(context))


def _train(context: Context, reporter: Reporter) -> TerminationMessage:
    from anneal_trainer.preview import kept
    from anneal_trainer.train import find_ready, train

    stop = Stop()
    ready = find_ready(context)
    if int(os.environ.get("RANK", "0")) == 0:
        # The operator may have missed it: a prepare pod can be gone within seconds.
        kept.publish(context, ready.prepared.path, reporter)
    return lastwords.of_result(train(context, ready, reporter=reporter, stop=stop))


if __name__ == "__main__":
    code = main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after a failed collective the interpreter's clean-up can wait for peers that are gone.
    os._exit(code)
