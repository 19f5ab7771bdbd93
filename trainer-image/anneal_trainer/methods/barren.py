"""Whether what is drawn still teaches anything: a run whose rewards never differ goes to its end for nothing.

It is told and not ended: the model may be at its goal, and where rewards are rare the next draw may have one. Not here:
what is measured of a draw (`asked`).
"""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from anneal_api.online_rules import block_of, most_tokens
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.words import counted
from anneal_trainer import console
from anneal_trainer.reporter import Reporter

# In a row: a few are chance, where rewards are rare.
_DRAWS = 10
_NAMED = 3


class Barren(TrainerCallback):  # type: ignore[misc]
    """The callback of the first rank."""

    def __init__(self, spec: RLHFSpec, reporter: Reporter) -> None:
        self._spec, self._reporter = spec, reporter
        self._steps = _DRAWS * block_of(spec).iterations
        self._since: int | None = None
        self._why_not: str | None = None
        self._taught = False

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_options: Any) -> None:
        """What an earlier attempt learnt is not known here."""
        self._taught = state.global_step > 0

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_options: Any
    ) -> None:
        """Of each step."""
        if not logs or "frac_reward_zero_std" not in logs:
            return
        self._why_not = why = self._why(logs)
        if why is None:
            self._since, self._taught = None, True
            if self._reporter.report.warning:
                self._reporter.update(warning=None)
            return
        self._since = self._since or state.global_step
        if state.global_step - self._since + 1 >= self._steps:
            self._tell(f"nothing is learnt from rewards since step {self._since}: {why}")

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_options: Any) -> None:
        """A run of fewer draws that learnt nothing at all says so in its last words."""
        untold = self._why_not is not None and self._reporter.report.warning is None
        if untold and not self._taught and state.global_step >= state.max_steps:
            self._reporter.update(warning=f"nothing was learnt from rewards: {self._why_not}")

    def _tell(self, warning: str) -> None:
        """Into the report as it is now; into the log once."""
        first = self._reporter.report.warning is None
        self._reporter.update(warning=warning)
        if first:
            console.say(f"warning: {warning}")

    def _why(self, logs: Mapping[str, float]) -> str | None:
        """What keeps this step from teaching anything, and what helps; None if it does teach."""
        if block_of(self._spec).mask_truncated and logs["completions/clipped_ratio"] == 1:
            return (
                f"every answer is cut off at sampling.maxTokens {most_tokens(self._spec)}, and "
                f"{self._spec.method}.maskTruncated trains none of those; raise the one, or leave out the other"
            )
        if logs["frac_reward_zero_std"] < 1:
            return None
        if "reward" not in logs:
            return (
                f"no answer has a reward ({self._worth(logs)}); mend the rewards, or the columns that they read: with "
                "onError: fail the first failure ends the job and says why"
            )
        return (
            f"all answers to a prompt are worth the same ({self._worth(logs)}); look at some (anneal logs, or samples/ "
            "beside the run) and mend a reward that never fires; else raise sampling.temperature or numGenerations, or "
            "take prompts that are less hard, or less easy"
        )

    def _worth(self, logs: Mapping[str, float]) -> str:
        """Of each reward, over all answers of the step."""
        names = [reward.name for reward in self._spec.rewards]
        said = [_said(name, logs) for name in names[:_NAMED]]
        more = [counted(len(names) - _NAMED, "more reward")] if len(names) > _NAMED else []
        return ", ".join([*said, *more])


def _said(name: str, logs: Mapping[str, float]) -> str:
    mean, failures = logs.get(f"rewards/{name}"), int(logs.get(f"rewards/{name}/failures", 0))
    failed = f", failed for {counted(failures, 'answer')}" if failures else ""
    if mean is None:
        return f"{name} judged none{failed}"
    return f"{name} {mean:.4g}" + (" on average" if logs.get(f"rewards/{name}/std") else "") + failed
