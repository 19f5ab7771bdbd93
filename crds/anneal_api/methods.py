"""The blocks of RLHFJob's methods: what each loss can be told, with the field's accepted values and where they are from.

A method's block is named like the method; a job has at most that one. Not here: the learning rates that go with them
(`resolve`), the ranges outside of which `anneal validate` warns (`usual`), and the formulas (the trainer's `losses`).
"""

from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from anneal_api.base import Block, Rule, ShortText
from anneal_api.model import CLUSTER_SOURCE_RULE
from anneal_api.sources import SourceText

DpoLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
]
# Half of the labels wrong would tell nothing. Inclusive: the API server compares a whole number, like 0, with a bound
# cut to a whole number, so that 0 would not be less than 0.5.
MOST_NOISE: Final = 0.49
# Of these the noise of the labels is a part.
_SMOOTHED: Final = ("exo_pair", "robust")


def _beta(default: float, description: str) -> Any:
    return Field(default=default, gt=0, le=1000, description=description)


class DpoSpec(Block):
    """Direct preference optimization (arXiv 2305.18290) and its family."""

    beta: float = _beta(
        0.1, "How strongly the model is held to the reference: more stays closer (section 4; 0.1 is the paper's)."
    )
    losses: list[DpoLoss] = Field(
        default=["sigmoid"],
        min_length=1,
        max_length=4,
        description="The loss, or several that are added: sigmoid (DPO), sigmoid_norm (per token, as in Tulu 3, arXiv 2411.15124), hinge (SLiC, 2305.10425), ipo (2310.12036), exo_pair (2402.00856), nca_pair (2402.05369), robust (2403.00409), bco_pair (2404.04656), sppo_hard (2405.00675), aot and aot_unpaired (2406.05882), apo_zero and apo_down (2408.06266), discopop (2406.08414), sft (the likelihood of the chosen answer). Example: [sigmoid, sft].",
    )
    loss_weights: list[float] | None = Field(
        default=None, min_length=1, max_length=4, description="One weight for each of the losses. Default: 1 each."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        le=MOST_NOISE,
        description="The share of pairs that are believed to be the wrong way round: for exo_pair and robust, which need it, aot and aot_unpaired.",
    )
    discopop_tau: float = Field(default=0.05, gt=0, le=100, description="The temperature of discopop (its section 4).")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.lossWeights) || self.lossWeights.size() == (has(self.losses) ? self.losses.size() : 1)",
            message="lossWeights has one weight for each entry of losses",
            holds=lambda d: d.loss_weights is None or len(d.loss_weights) == len(d.losses),
            field="lossWeights",
        ),
        Rule(
            cel=f"!has(self.losses) || !self.losses.exists(l, l in {list(_SMOOTHED)}) || self.labelSmoothing > 0.0",
            message="exo_pair and robust are about noisy labels: set labelSmoothing to the share of wrong ones, like 0.001 (exo_pair) or 0.1 (robust)",
            holds=lambda d: not set(d.losses) & set(_SMOOTHED) or d.label_smoothing > 0,
            field="labelSmoothing",
        ),
    )


class IpoSpec(Block):
    """Identity preference optimization (arXiv 2310.12036), per token as its authors do it."""

    beta: float = _beta(0.1, "The paper's tau: the margin aimed at is 1/(2 beta) (equation 17).")


class KtoSpec(Block):
    """Kahneman-Tversky optimization (arXiv 2402.01306): answers that are judged one by one."""

    beta: float = _beta(0.1, "How strongly the model is held to the reference (section 4.2).")
    desirable_weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Weight of desirable answers. Balanced data: desirableWeight x desirable rows is 1 to 4/3 of undesirableWeight x undesirable rows (section 4.2).",
    )
    undesirable_weight: float = Field(default=1.0, gt=0, le=1000, description="Weight of undesirable answers.")


class OrpoSpec(Block):
    """Odds-ratio preference optimization (arXiv 2403.07691): likelihood and preference at once, without a reference."""

    beta: float = _beta(0.1, "The paper's lambda: the weight of the odds-ratio term (section 5.1).")


class SimpoSpec(Block):
    """Simple preference optimization (arXiv 2405.14734): likelihood a token as the reward, without a reference."""

    beta: float = _beta(2.0, "The scale of the reward; 2 to 10 (table 7).")
    gamma: float = Field(
        default=1.0, ge=0, le=100, description="The margin aimed at, of that scale; half of beta or less (section 4.2)."
    )
    sft_weight: float = Field(
        default=0.0, ge=0, le=100, description="Weight of the chosen answer's likelihood, as CPO adds it."
    )


class CpoSpec(Block):
    """Contrastive preference optimization (arXiv 2401.08417): DPO with a uniform reference, and likelihood."""

    beta: float = _beta(0.1, "The scale of the log-probabilities (section 3).")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field(default="sigmoid", description="The form of the preference term.")
    sft_weight: float = Field(
        default=1.0, ge=0, le=100, description="Weight of the chosen answer's likelihood (the paper's is 1)."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=MOST_NOISE, description="The share of pairs that are believed to be the wrong way round."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.labelSmoothing == 0.0 || self.loss == 'sigmoid'",
            message="labelSmoothing is for loss: sigmoid",
            holds=lambda c: c.label_smoothing == 0 or c.loss == "sigmoid",
            field="labelSmoothing",
        ),
    )


class RewardSpec(Block):
    """A reward model that scores answers (Bradley-Terry; arXiv 2203.02155, section 3.5)."""

    center_coefficient: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Pulls the sum of a pair's two rewards to zero, so that rewards of different prompts compare; 0.01 is usual (arXiv 2312.09244).",
    )


class ReferenceSpec(Block):
    """What the trained model is compared with, where the method has a reference."""

    source: SourceText | None = Field(
        default=None,
        description="The reference model, written as model.source is. Default: the model as it is before training (of an adapter job: the same weights with the adapter switched off).",
    )
    revision: ShortText = Field(default="main", description="Branch, tag or commit of an hf:// reference.")
    precompute: bool = Field(
        default=False,
        description="Its log-probabilities are computed once, before the first step, and kept with the prepared data: no second model while training, and jobs over the same data share them.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!has(self.source) || {CLUSTER_SOURCE_RULE.cel}",
            message=CLUSTER_SOURCE_RULE.message,
            field="source",
        ),
    )
