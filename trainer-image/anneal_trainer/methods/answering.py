"""Answers to `evaluation.samples` before training, at each evaluation and after it; kept with the run and reported.

Not here: how an answer is generated (`samples`).
"""

from typing import Any

from transformers import TrainerCallback

from anneal_trainer import samples
from anneal_trainer.context import Context
from anneal_trainer.methods.ordered import Ordered
from anneal_trainer.plan import Plan
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter


class Answering(TrainerCallback):  # type: ignore[misc]
    """The callback; only the first rank answers, on every rank it may be asked."""

    def __init__(self, trainer: Ordered, *, context: Context, ready: Ready, plan: Plan, reporter: Reporter) -> None:
        evaluation = context.spec.evaluation
        assert evaluation is not None, "samples are a part of it"
        self._trainer, self._context, self._ready = trainer, context, ready
        self._plan, self._reporter = plan, reporter
        self._prompts = [sample.prompt for sample in evaluation.samples]
        self._most = evaluation.max_sample_tokens
        self._asking = samples.asking(context.spec, ready.report.types[0])

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_options: Any
    ) -> None:
        """After a step has been reported, so that no answer counts as time of a step."""
        step = state.global_step
        if logs and "loss" in logs and step % self._plan.evaluate_every == 0 and step < self._plan.steps:
            self.ask(f"step-{step}", step)

    def ask(self, when: str, step: int) -> None:
        """Answer, keep and report."""
        if not self._trainer.is_world_process_zero():
            return
        self._reporter.update(phase="evaluating")
        found = samples.answers(
            self._trainer.accelerator.unwrap_model(self._trainer.model),
            self._ready.tokenizer,
            self._prompts,
            asking=self._asking,
            most=self._most,
        )
        samples.save(self._context.layout, when, found)
        self._reporter.update(samples=samples.reported(found, step))


def answers_samples(context: Context) -> bool:
    """Whether the job wants any."""
    return bool(context.spec.evaluation and context.spec.evaluation.samples)
