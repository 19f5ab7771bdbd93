"""From how a run ended to the sentence that a person needs: exceptions to exit codes and termination messages.

Out of memory has many spellings; they are all here. Not here: where the message goes (`launcher`, `local`).
"""

import traceback
from pathlib import Path

from anneal_api import Outcome, TerminationMessage
from anneal_api.datasetreport import DatasetReport
from anneal_api.exitcodes import OK
from anneal_api.modelrecord import ModelRecord
from anneal_api.words import counted
from anneal_trainer.errors import Interrupted, MemoryShortError, StoppedError, TrainerError
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result

_OUT_OF_MEMORY = ("DefaultCPUAllocator: not enough memory", "CUDA out of memory", "out of memory", "std::bad_alloc")


def of_result(result: Result) -> TerminationMessage:
    """A run that reached its end."""
    return TerminationMessage(
        outcome=Outcome.SUCCEEDED,
        message=f"trained {counted(result.steps, 'step')}" + (f"; {result.warning}" if result.warning else ""),
        exit_code=OK,
        step=result.steps,
        total_steps=result.steps,
        resumed_from_step=result.resumed_from_step,
        loss=result.loss,
        first_loss=result.first_loss,
        eval_loss=result.eval_loss,
        metrics=result.metrics,
        tokens_per_second=result.tokens_per_second,
        device=result.device,
        peak_memory_bytes=result.peak_memory_bytes,
        dataset=result.dataset,
        outputs=result.outputs,
    )


def warning_of(words: TerminationMessage) -> str:
    """What a run that reached its end warns of, or nothing."""
    return words.message.partition("; ")[2]


def of_prepared(report: DatasetReport, models: list[ModelRecord]) -> TerminationMessage:
    """Data that is ready, and the shapes of the models."""
    return TerminationMessage(
        outcome=Outcome.SUCCEEDED,
        message=f"ready: {report.used:,} of {counted(report.rows, 'row')}, "
        + (counted(report.trained_tokens, "trained token") if report.trained_tokens else "prompts without answers"),
        dataset=report,
        models=models,
    )


def of_error(error: BaseException, reporter: Reporter | None) -> TerminationMessage:
    """A run that did not; what it had reported is kept."""
    named = as_named(error)
    report = reporter.report if reporter else None
    return TerminationMessage(
        outcome=named.outcome if named else Outcome.INFRASTRUCTURE,
        message=str(named) if named else unexpected(error),
        exit_code=named.exit_code if named else 1,
        step=report.step if report and report.total_steps else None,
        total_steps=report.total_steps or None if report else None,
        resumed_from_step=report.resumed_from_step if report else None,
        loss=report.loss if report else None,
        metrics=report.metrics if report else {},
        device=report.device if report else None,
        peak_memory_bytes=report.peak_memory_bytes if report else None,
    )


def as_named(error: BaseException) -> TrainerError | None:
    """The named ending that `error` is, if it is one."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, Interrupted):
        return StoppedError(str(error))
    if _is_out_of_memory(error):
        return MemoryShortError(
            f"out of memory: {_first_line(error)}; a smaller training.microBatchSize or sequenceLength, "
            "gradientCheckpointing, or quantization nf4 takes less"
        )
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unexpected(error: BaseException) -> str:
    """One sentence about an error that no one foresaw: what, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_first_line(error)}{place}"
