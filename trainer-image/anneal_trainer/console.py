"""What `anneal run` shows: a progress bar on a terminal, a line now and then elsewhere, and a summary at the end.

Everything goes to stderr. Not here: deciding anything.
"""

import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Self

from anneal_api import Layout, ProgressReport, TerminationMessage
from anneal_api.status import JudgedAnswer
from anneal_api.words import counted, on_one_line
from anneal_trainer import completions, lastwords, metrics, samples
from anneal_trainer.methods.times import PREFIX
from anneal_trainer.samples import Sample

_LINE_EVERY_SECONDS = 10.0
_ANSWER_SHOWN = 200
_LEAST_SHARE = 0.005
# What tells most of how a method goes, the first of which all is measured: of answers that are drawn (whose rewards a
# person names, margins perhaps), of kto, of pairs, of reward and prm.
_TELLING = (
    ("reward", "completions/mean_length"),
    ("rewards/margins", "kl"),
    ("rewards/margins", "rewards/accuracies"),
    ("accuracy",),
)
_SHORT = {"rewards/margins": "margin", "rewards/accuracies": "accuracy", "completions/mean_length": "length"}
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
    known += [f"{_SHORT.get(name, name)} {report.metrics[name]:.2f}" for name in _telling(report.metrics)]
    if report.tokens_per_second is not None:
        known.append(f"{report.tokens_per_second:,.0f} tokens/s")
    if report.eta_seconds is not None:
        known.append(f"{clock(report.eta_seconds)} left")
    return " · ".join(known)


def _telling(measured: Collection[str]) -> tuple[str, ...]:
    return next((names for names in _TELLING if all(name in measured for name in names)), ())


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
    for answer in completions.latest(layout.samples):
        say(f"Drawn    {drawn(answer)}\n")
    say(f"{words.outputs[0].kind.capitalize():9}{layout.output}")
    log = layout.logs / "metrics.jsonl"
    for line in _head(words, log):
        say(line)
    eval_before = metrics.first(log, "eval_loss")
    if eval_before is not None and words.eval_loss is not None:
        say(f"Holdout  {eval_before:.3f} → {words.eval_loss:.3f}")
    if measured := _measured(words.metrics, log):
        say(f"Measured {measured}")
    if spent := _spent(metrics.totals(log, PREFIX)):
        say(f"Spent    {spent}")
    pace = f", {words.tokens_per_second:,.0f} tokens/s" if words.tokens_per_second else ""
    say(f"Time     {clock(seconds)} on {words.device}{pace}")


def _head(words: TerminationMessage, log: Path) -> Iterator[str]:
    """What was to become less, or more: of answers that are drawn a loss says nothing."""
    steps = f"in {counted(words.total_steps or 0, 'step')}"
    if rewards := _rewards(words.metrics):
        yield f"Reward   {_moved(words.metrics, 'reward', log) or 'none: no answer was judged'} {steps}"
        failed = metrics.totals(log, "rewards/")
        for name in rewards if len(rewards) > 1 else ():
            told = ", failed at times" if failed.get(f"{name}/failures") else ""
            yield f"  {name} {_moved(words.metrics, f'rewards/{name}', log) or 'judged none'}{told}"
    elif words.first_loss is not None and words.loss is not None:
        yield f"Loss     {words.first_loss:.3f} → {words.loss:.3f} {steps}"
    if warning := lastwords.warning_of(words):
        yield f"Warning  {warning}"


def _rewards(measured: Collection[str]) -> list[str]:
    """The names of a job's rewards, in its order: each tells its seconds."""
    kept = [name for name in measured if name.startswith("rewards/") and name.endswith("/seconds")]
    return [name.removeprefix("rewards/").removesuffix("/seconds") for name in kept]


def _moved(last: dict[str, float], name: str, log: Path) -> str:
    """`0.13 → 0.50 (holdout 0.10 → 0.45)`."""
    held = _change(last, f"eval_{name}", log)
    return f"{_change(last, name, log)}{held and f' (holdout {held})'}"


def _measured(last: dict[str, float], log: Path) -> str:
    """`accuracy 0.63 → 1.00 (holdout 0.58 → 1.00)`: from the first step, or evaluation, to the last."""
    # The head has it.
    names = [name for name in _telling(last) if name != "reward"]
    return " · ".join(f"{_SHORT.get(name, name)} {_moved(last, name, log)}" for name in names)


def _spent(seconds: dict[str, float]) -> str:
    """`generate 61% · train 35% · sync 4%`: of the seconds of all steps, where steps tell what they went into."""
    whole = sum(seconds.values())
    most = sorted(seconds.items(), key=lambda entry: -entry[1])
    return " · ".join(f"{kind} {part / whole:.0%}" for kind, part in most if part / whole >= _LEAST_SHARE)


def _change(last: dict[str, float], name: str, log: Path) -> str:
    begun = metrics.first(log, name)
    return f"{begun:.2f} → {last[name]:.2f}" if begun is not None and name in last else ""


def _shown(sample: Sample) -> str:
    return on_one_line(sample.answer, _ANSWER_SHOWN)


def drawn(answer: JudgedAnswer) -> str:
    """An answer with its reward: `reward 0.750: Say red: → red`."""
    worth = "no reward" if answer.reward is None else f"reward {answer.reward:.3f}"
    prompt = on_one_line(answer.prompt, _ANSWER_SHOWN)
    return f"{worth}: {prompt} → {on_one_line(answer.answer, _ANSWER_SHOWN)}"
