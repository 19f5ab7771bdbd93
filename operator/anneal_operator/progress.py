"""From a trainer's report to `status.progress`, with the texts that people read in a table. Pure.

Not here: fetching reports (`polling`).
"""

from datetime import UTC, datetime

from anneal_api.memory import BESIDE_TENSORS
from anneal_api.progress import ProgressReport, TerminationMessage
from anneal_api.status import MemoryReport, Progress
from anneal_operator.kinds import format_time

GIB = 1024.0**3
# A measured peak that is so many times what was estimated is told.
_MORE = 1.1
# As many characters as the schema of status lets texts for people have.
_TEXT = 16
_BEFORE_TRAINING = frozenset({"starting", "fetching", "loading"})


def from_report(report: ProgressReport, *, fallback: Progress | None) -> Progress:
    """Where training is. What a report does not know yet (the evaluation loss, say) stays as it was."""
    old = fallback or Progress()
    if report.phase in _BEFORE_TRAINING:
        # It does not know its step yet: an attempt that resumes must not look as if it began at none.
        return old.model_copy(update={"phase": report.phase, "warning": None, "eta_seconds": None, "eta": None})
    total = report.total_steps or old.total_steps
    seconds = report.eta_seconds
    return Progress(
        phase=report.phase,
        step=report.step,
        total_steps=total,
        steps=f"{report.step}/{total}" if total else None,
        epoch=_kept(report.epoch, old.epoch),
        percent=round(100.0 * report.step / total, 1) if total else None,
        loss=_kept(report.loss, old.loss),
        loss_text=_text(_kept(report.loss, old.loss)),
        reward_text=_text((old.metrics | report.metrics).get("reward")),
        eval_loss=_kept(report.eval_loss, old.eval_loss),
        metrics=old.metrics | report.metrics,
        samples=report.samples or old.samples,
        completions=report.completions or old.completions,
        warning=report.warning,
        learning_rate=_kept(report.learning_rate, old.learning_rate),
        grad_norm=_kept(report.grad_norm, old.grad_norm),
        tokens_per_second=_tenths(_kept(report.tokens_per_second, old.tokens_per_second)),
        eta_seconds=None if seconds is None else int(seconds),
        eta=None if seconds is None else duration(seconds),
        last_report_time=format_time(datetime.fromtimestamp(report.time, UTC)) if report.time else None,
    )


def at_end(words: TerminationMessage, *, fallback: Progress | None) -> Progress:
    """Where training was when the container ended."""
    old = fallback or Progress()
    step = old.step if words.step is None else words.step
    total = words.total_steps or old.total_steps
    loss = _kept(words.loss, old.loss)
    return old.model_copy(
        update={
            "phase": None,
            "step": step,
            "total_steps": total,
            "steps": f"{step}/{total}" if total else None,
            "percent": round(100.0 * step / total, 1) if total else None,
            "loss": loss,
            "loss_text": _text(loss),
            "reward_text": _text((old.metrics | words.metrics).get("reward")),
            "eval_loss": _kept(words.eval_loss, old.eval_loss),
            "metrics": old.metrics | words.metrics,
            "tokens_per_second": _tenths(_kept(words.tokens_per_second, old.tokens_per_second)),
            "eta_seconds": None,
            "eta": None,
        }
    )


def memory(peak_bytes: int | None, *, known: MemoryReport | None) -> MemoryReport | None:
    """What was estimated, with the measured peak of the busiest device."""
    if not peak_bytes:
        return known
    peak, known = round(peak_bytes / GIB, 2), known or MemoryReport()
    allocated = sum(part.gib for part in known.parts if part.name not in BESIDE_TENSORS)
    update: dict[str, object] = {"peak_gib": peak}
    # Of a process on CPUs more is measured than its tensors, of which alone there is an estimate.
    if known.gpu_gib and allocated and peak > _MORE * allocated:
        update["message"] = f"measured {peak:.1f} GiB of tensors, where {allocated:.1f} GiB were estimated"
    return known.model_copy(update=update)


def duration(seconds: float) -> str:
    """A time left, in the two largest units that matter.

    >>> [duration(s) for s in (7, 61, 4830, 200000)]
    ['7s', '1m', '1h20m', '2d7h']
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m" if minutes else f"{rest}s"


def _kept(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _text(value: float | None) -> str | None:
    """Three decimals, or as many digits as the schema has room for: a reward can be any number."""
    if value is None:
        return None
    text = f"{value:.3f}"
    return text if len(text) <= _TEXT else f"{value:.3e}"
