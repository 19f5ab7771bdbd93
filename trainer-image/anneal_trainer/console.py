"""What `anneal run` shows: a progress bar on a terminal, a line now and then elsewhere, and a summary at the end.

Everything goes to stderr. Not here: deciding anything.
"""

import sys
import time
from typing import Any, Self

from anneal_api import Layout, ProgressReport, TerminationMessage
from anneal_api.words import counted
from anneal_trainer import metrics, samples
from anneal_trainer.samples import Sample

_LINE_EVERY_SECONDS = 10.0
_ANSWER_SHOWN = 200
_WORDS = {
    "starting": "Starting",
    "fetching": "Fetching the model",
    "merging": "Merging adapters",
    "preparing": "Preparing data",
    "loading": "Loading the model",
    "training": "Training",
    "evaluating": "Evaluating",
    "saving": "Saving",
    "done": "Done",
}


def say(text: str) -> None:
    """One line to a person."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the command's output


def facts(report: ProgressReport) -> str:
    """`loss 5.123 · 2,310 tokens/s · 0:01:10 left`, as far as known."""
    known = []
    if report.loss is not None:
        known.append(f"loss {report.loss:.3f}")
    if report.eval_loss is not None:
        known.append(f"eval {report.eval_loss:.3f}")
    if report.tokens_per_second is not None:
        known.append(f"{report.tokens_per_second:,.0f} tokens/s")
    if report.eta_seconds is not None:
        known.append(f"{clock(report.eta_seconds)} left")
    return " · ".join(known)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Lines:
    """A line for each phase, and one every ten seconds of training: for logs and pipes."""

    def __init__(self) -> None:
        self._phase = ""
        self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        pass

    def __call__(self, report: ProgressReport) -> None:
        """The listener."""
        due = report.phase == "training" and report.loss is not None and time.time() - self._said >= _LINE_EVERY_SECONDS
        if due:
            say(f"step {report.step}/{report.total_steps} · {facts(report)}")
            self._said = time.time()
        elif report.phase != self._phase and self._phase not in ("training", "evaluating", "saving"):
            say(_WORDS[report.phase])
        self._phase = report.phase


class Bar:
    """A progress bar, redrawn a few times a second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4, transient=False)
        self._task = self._progress.add_task("Starting", total=None, facts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._progress.stop()

    def __call__(self, report: ProgressReport) -> None:
        """The listener."""
        preparing = report.phase == "preparing" and report.rows
        self._progress.update(
            self._task,
            description=_WORDS[report.phase],
            completed=report.step,
            total=report.total_steps or None,
            facts=counted(report.rows or 0, "row") if preparing else facts(report),
        )


def listener(*, quiet: bool) -> Any:
    """What fits where stderr goes."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        pass

    def __call__(self, _report: ProgressReport) -> None:
        """The listener."""


def summary(words: TerminationMessage, layout: Layout, seconds: float) -> None:
    """What came of it, for a person."""
    say("")
    for before, after in zip(samples.load(layout, samples.BEFORE), samples.load(layout, samples.AFTER), strict=False):
        say(f"Prompt   {before.prompt}\n  before {_shown(before)}\n  after  {_shown(after)}\n")
    say(f"{words.outputs[0].kind.capitalize():9}{layout.output}")
    if words.first_loss is not None and words.loss is not None:
        say(f"Loss     {words.first_loss:.3f} → {words.loss:.3f} in {counted(words.total_steps or 0, 'step')}")
    eval_before = metrics.first(layout.logs / "metrics.jsonl", "eval_loss")
    if eval_before is not None and words.eval_loss is not None:
        say(f"Holdout  {eval_before:.3f} → {words.eval_loss:.3f}")
    pace = f", {words.tokens_per_second:,.0f} tokens/s" if words.tokens_per_second else ""
    say(f"Time     {clock(seconds)} on {words.device}{pace}")


def _shown(sample: Sample) -> str:
    # What a model says may hold control characters, and a terminal obeys them.
    flat = "".join(char if char.isprintable() else "�" for char in " ".join(sample.answer.split()))
    return flat if len(flat) <= _ANSWER_SHOWN else f"{flat[:_ANSWER_SHOWN]}…"
