"""What an online method makes of rewards and log-probabilities: one object for either block of the API.

Not here: the formulas (`online_losses`).
"""

from dataclasses import dataclass
from typing import Any

from anneal_api.online import GrpoSpec, RlooSpec
from anneal_trainer.methods import online_losses
from anneal_trainer.methods.losses import Loss
from anneal_trainer.methods.online_losses import Answers, Measures


@dataclass(frozen=True)
class Objective:
    """The method with its block. `most_tokens`: of an answer; `cap`: the most that terms are weighed by, 0: never."""

    spec: GrpoSpec | RlooSpec
    most_tokens: int
    cap: float = 0.0

    @property
    def rewards_need_policy(self) -> bool:
        """Whether the divergence from the reference is part of the reward."""
        return isinstance(self.spec, RlooSpec) and self.spec.beta > 0

    @property
    def skips_equal_groups(self) -> bool:
        """Whether groups that teach nothing are left out of averages."""
        return isinstance(self.spec, GrpoSpec) and self.spec.skip_equal_groups

    def advantages(self, rewards: Any, kl: Any) -> Any:
        """Of all answers of a step."""
        spec, size = self.spec, self.spec.num_generations
        if isinstance(spec, GrpoSpec):
            return online_losses.group_advantages(rewards, size=size, scale=spec.scale_rewards)
        return online_losses.rloo_advantages(
            rewards, kl, beta=spec.beta, size=size, normalize=spec.normalize_advantages
        )

    def loss(self, answers: Answers) -> Loss:
        """Of a part of the step."""
        factor = self._factor(answers)
        if isinstance(self.spec, GrpoSpec):
            return online_losses.grpo(answers, self.spec, most_tokens=self.most_tokens, factor=factor)
        return online_losses.rloo(answers, self.spec, factor=factor)

    def measures(self, answers: Answers, entropy: Any) -> Measures:
        """What is measured of it."""
        drawn = online_losses.sampler_measures(answers, self._factor(answers))
        if isinstance(self.spec, GrpoSpec):
            return drawn | online_losses.grpo_measures(answers, self.spec, entropy)
        return drawn | online_losses.rloo_measures(answers, self.spec, entropy)

    def _factor(self, answers: Answers) -> Any:
        """What terms are weighed by: of tokens with grpo, of answers with rloo; None where the trainer drew them."""
        if answers.sampler is None or not self.cap:
            return None
        of = online_losses.correction if isinstance(self.spec, GrpoSpec) else online_losses.answer_correction
        return of(answers.old, answers.sampler, answers.mask, cap=self.cap)
