"""What happens at every step beside training: it is reported, recorded, judged, and asked whether to go on.

Not here: how a report travels (`reporter`).
"""

import math
import resource
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from anneal_trainer.errors import DataError
from anneal_trainer.metrics import MetricsLog
from anneal_trainer.plan import Plan
from anneal_trainer.reporter import Reporter

_WINDOW = 20
# Logged by every method, and fields of a report by themselves or of no use in one.
_COMMON = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "num_tokens"})


@dataclass
class Pace:
    """Tokens a second and seconds a step over the last steps; saving and evaluating do not count."""

    steps: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def add(self, seconds: float, tokens: int) -> None:
        """One more step."""
        self.steps.append((seconds, tokens))

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first step."""
        seconds = sum(step[0] for step in self.steps)
        return sum(step[1] for step in self.steps) / seconds if seconds else None

    @property
    def seconds_per_step(self) -> float | None:
        """None before the first step."""
        return sum(step[0] for step in self.steps) / len(self.steps) if self.steps else None


class Follow(TrainerCallback):  # type: ignore[misc]
    """The callback. `metrics` is None on ranks that write no files."""

    def __init__(self, trainer: Any, reporter: Reporter, metrics: MetricsLog | None, plan: Plan) -> None:
        self._trainer = trainer
        self._reporter = reporter
        self._metrics = metrics
        self._plan = plan
        self._pace = Pace()
        self._begun = 0.0
        self._tokens = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_options: Any) -> None:
        """A checkpoint brings the intervals that it was made with; this run's own count."""
        state.max_steps, state.save_steps, state.eval_steps = (
            self._plan.steps,
            self._plan.save_every,
            self._plan.evaluate_every,
        )
        state.logging_steps = 1

    def on_step_begin(self, *_args: Any, **_options: Any) -> None:
        """The clock of a step."""
        self._begun = time.perf_counter()
        if self._reporter.report.phase != "training":
            self._reporter.update(phase="training")

    def on_step_end(self, _args: Any, state: Any, control: Any, **_options: Any) -> None:
        """Stop here if asked: the step is whole, so a checkpoint of it is exact."""
        last = state.global_step >= self._plan.steps
        if self._trainer.may_stop and self._trainer.anyone_stops():
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        elif last:
            control.should_save = True
            control.should_evaluate = self._trainer.eval_dataset is not None

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_options: Any
    ) -> None:
        """Report one step. The library's own history would grow into every checkpoint, so it is emptied."""
        state.log_history.clear()
        if logs is None or "loss" not in logs:
            return
        seconds = time.perf_counter() - self._begun + self._trainer.seconds_before_step
        tokens = int(logs.get("num_tokens", 0))
        self._pace.add(seconds, tokens - self._tokens)
        self._tokens = tokens
        _check_finite(state.global_step, logs, self._plan)
        values, measured = self._values(state.global_step, logs), _measured(logs)
        self._reporter.update(**values, metrics=self._reporter.report.metrics | measured)
        if self._metrics:
            known = {key: value for key, value in values.items() if value is not None}
            self._metrics.write({**known, **measured, "time": time.time()})

    def _values(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        pace, left = self._pace.seconds_per_step, self._plan.steps - step
        return {
            "step": step,
            "epoch": self._plan.order.epoch(step),
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_second": self._pace.tokens_per_second,
            "eta_seconds": pace * left if pace is not None else None,
            "peak_memory_bytes": peak_memory(),
        }

    def on_evaluate(self, _args: Any, state: Any, _control: Any, metrics: dict[str, float], **_options: Any) -> None:
        """The holdout's loss, and what else the method measures there."""
        measured = _measured({name: value for name, value in metrics.items() if name != "eval_loss"})
        self._reporter.update(eval_loss=metrics.get("eval_loss"), metrics=self._reporter.report.metrics | measured)
        if self._metrics:
            self._metrics.write({"step": state.global_step, **metrics, "time": time.time()})


def _measured(logs: dict[str, Any]) -> dict[str, float]:
    """What a method logs beside what every method does, in six digits."""
    return {name: float(f"{value:.6g}") for name, value in logs.items() if name not in _COMMON}


def _check_finite(step: int, logs: dict[str, Any], plan: Plan) -> None:
    """A loss that is not a number stays one: going on would only spend time and overwrite good checkpoints."""
    broken = [name for name in ("loss", "grad_norm") if name in logs and not math.isfinite(logs[name])]
    if broken:
        raise DataError(
            f"step {step} of {plan.steps}: {' and '.join(broken)} became {logs[broken[0]]}, "
            f"from which training does not recover: lower training.learningRate (now {logs.get('learning_rate')}), "
            "use more warm-up, or look for extreme rows; no checkpoint was written after it"
        )


def peak_memory() -> int:
    """Bytes: of the device where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
