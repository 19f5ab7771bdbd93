"""Advantages and losses of methods that generate while they train, as pure functions: GRPO, its descendants, and RLOO.

Tensors are of N answers with at most T tokens. Log-probabilities are those of the tokens that were drawn, in nats, of
the distribution that they were drawn from (so, at its temperature). What stands where `mask` is false is never looked
at. In the formulas w = pi / old is the ratio of policy and old policy, A the advantage, e and h are `epsilon` and
`epsilon_high`, and sg(x) is x without its gradient.

A loss is a sum, so that parts of a step add up to the step whatever the parts are; the caller divides by what the whole
step has, on all ranks:

| loss | an answer's entry | is in | and is divided by |
|---|---|---|---|
| grpo, sapo | the mean over its tokens | `Loss.rows` | the answers |
| dr_grpo | the sum over its tokens / the most that there could be | `Loss.rows` | the answers |
| dapo, cispo | the sum over its tokens | `Loss.tokens` | the trained tokens |
| rloo | one term | `Loss.rows` | the answers |

An answer without trained tokens adds nothing. Whether it still counts among the answers is the caller's to say.

TRL's bnpo divides by the tokens of a pass. A step is one pass here: the micro batch is whatever fits into memory, and
must not change what is learnt. So it is another name of dapo.

Not here: generation, rewards, which answers are trained on, and PPO's value function.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from anneal_api.online import GrpoSpec, RlooSpec
from anneal_trainer.methods.losses import Loss

Tensor = Any
Measures = dict[str, tuple[Tensor, Tensor]]

# Added to a standard deviation before it divides, as TRL does: groups that hardly differ are not blown up.
LEAST_DEVIATION = 1e-4
# exp() of more than 88 is infinite in fp32. A ratio as far away as this (5e8) says nothing, so its gradient is cut.
MOST_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Answers:
    """Log-probabilities `[N, T]` of drawn tokens, and what the answers are worth, `[N]`.

    `old`: under the policy before the first step over these answers; at that step, `policy` without its gradient.
    `reference`: None where `beta` is 0. `sampler`: as what drew them computed them, NaN where it told nothing; None
    where the trainer drew them itself.
    """

    policy: Tensor
    old: Tensor
    mask: Tensor
    advantages: Tensor
    reference: Tensor | None = None
    sampler: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Trained tokens of each answer, `[N]`."""
        return self.mask.sum(1)


# Advantages -------------------------------------------------------------------------------------------------------


def group_advantages(rewards: Tensor, *, size: int, scale: Literal["group", "batch", "none"]) -> Tensor:
    """(r - mean of its group) / standard deviation: GRPO, arXiv 2402.03300, section 4.1.2.

    `rewards` are `[N]`, a group after the other, finite, or NaN where nothing judged the answer: left out of means, and
    its advantage is 0. So is that of a group of equal rewards. The deviation (of a sample: over n - 1) is the group's,
    that of all answers (`batch`, which therefore needs the whole step's: arXiv 2508.08221), or none is divided by
    (Dr. GRPO, arXiv 2503.20783, section 3.2).
    """
    groups = rewards.view(-1, size)
    advantages = groups - groups.nanmean(1, keepdim=True)
    match scale:
        case "group":
            advantages = advantages / (_deviation(groups) + LEAST_DEVIATION)
        case "batch":
            advantages = advantages / (_deviation(rewards[None]) + LEAST_DEVIATION)
    return _without_nothing(advantages, groups)


def rloo_advantages(rewards: Tensor, kl: Tensor, *, beta: float, size: int, normalize: bool) -> Tensor:
    """R_i - mean of the R_j of the group's others, R = r - beta kl: RLOO, arXiv 2402.14740, section 2.3, equation 3.

    `rewards` as in `group_advantages`; `kl` is `answer_divergence`, `[N]`, zeros without a reference. An answer without
    a judged other has advantage 0. `normalize`: to mean 0 and deviation 1 over all answers, so it needs the whole
    step's.
    """
    groups = (rewards - beta * kl).view(-1, size)
    others = (~groups.isnan()).sum(1, keepdim=True) - 1
    advantages = groups - (groups.nansum(1, keepdim=True) - groups) / others
    if normalize:
        deviation = _deviation(advantages.view(1, -1))
        advantages = (advantages - advantages.nanmean()) / (deviation + LEAST_DEVIATION)
    return _without_nothing(advantages, groups)


def equal_groups(rewards: Tensor, *, size: int) -> Tensor:
    """Whether the judged answers of each group all have one reward, `[N / size]`; with one of them or none, they do."""
    groups = rewards.view(-1, size)
    most = torch.where(groups.isnan(), -torch.inf, groups).amax(1)
    return most <= torch.where(groups.isnan(), torch.inf, groups).amin(1)


def _deviation(lines: Tensor) -> Tensor:
    """The standard deviation of each line, over n - 1 of its n numbers; NaN where n is less than 2."""
    squares = (lines - lines.nanmean(1, keepdim=True)) ** 2
    return (squares.nansum(1, keepdim=True) / ((~lines.isnan()).sum(1, keepdim=True) - 1)).sqrt()


def _without_nothing(advantages: Tensor, groups: Tensor) -> Tensor:
    # Rounding would leave a little of what is exactly nothing, and dividing would make it more.
    nothing = equal_groups(groups.flatten(), size=groups.shape[1])[:, None] | advantages.isnan()
    return torch.where(nothing, 0.0, advantages).flatten()


# Ratios and divergences -------------------------------------------------------------------------------------------


def answer_divergence(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Log pi(y|x) - log ref(y|x) of whole answers, `[N]`: RLOO's KL, arXiv 2402.14740, equation 3."""
    return torch.where(mask, policy - reference, 0.0).sum(1)


def divergence(answers: Answers, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """An estimate of KL(pi || ref) at each token, `[N, T]`, with d = log ref - log pi.

    Names and means are of Schulman, Approximating KL Divergence; gradients are in the mean, at the first step.
    k3: exp(d) - d - 1, as in GRPO (arXiv 2402.03300, equation 4): never negative, and its mean is the divergence; its
    gradient is that of KL(ref || pi). k2: d^2 / 2: its gradient is that of KL(pi || ref), its mean is not quite it.
    k1: -w d: both are; without the ratio its gradient would be 0.
    """
    assert answers.reference is not None, "a divergence is one from a reference"
    distance = torch.where(answers.mask, answers.reference - answers.policy, 0.0)
    match estimator:
        case "k1":
            return -_bounded_exp(_log_ratio(answers)) * distance
        case "k2":
            return distance**2 / 2
        case "k3":
            return _bounded_exp(distance) - distance - 1


def correction(old: Tensor, sampler: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """min(old / sampler, cap) at each token, `[N, T]`: truncated importance sampling.

    What draws the answers computes a little differently from what trains (Yao et al. 2025, On the Rollout-Training
    Mismatch in Modern RL Systems), and may have older weights. The ratio of a loss stays that to `old`, the trainer's
    own policy when they were drawn, so that clipping bounds how far steps go; what drew them is weighed for apart (the
    decoupled objective: Hilton et al., arXiv 2110.00641; AReaL, 2505.24298). `sampler` has its log-probabilities; where
    it gave none (NaN), the factor is 1.
    """
    return _apart(old, sampler, mask).exp().clamp(max=cap).detach()


def answer_correction(old: Tensor, sampler: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """The same of whole answers, `[N]`, whose term is one: min(old(y|x) / sampler(y|x), cap)."""
    return _apart(old, sampler, mask).sum(1).exp().clamp(max=cap).detach()


def _apart(old: Tensor, sampler: Tensor, mask: Tensor) -> Tensor:
    """Log old - log sampler; 0 where one of them is not known."""
    return torch.where(mask, old - sampler, 0.0).nan_to_num(nan=0.0)


def _log_ratio(answers: Answers) -> Tensor:
    return torch.where(answers.mask, answers.policy - answers.old, 0.0)


def _ratio(answers: Answers, level: Literal["token", "sequence"]) -> Tensor:
    """W of each token, `[N, T]`, or (pi(y|x) / old(y|x))^(1/|y|), `[N, 1]`: GSPO, arXiv 2507.18071, equation 7."""
    log_ratio = _log_ratio(answers)
    if level == "sequence":
        log_ratio = (log_ratio.sum(1) / answers.lengths.clamp(min=1))[:, None]
    return _bounded_exp(log_ratio)


def _bounded_exp(values: Tensor) -> Tensor:
    return values.clamp(max=MOST_LOG_RATIO).exp()


# Losses -----------------------------------------------------------------------------------------------------------


def grpo(answers: Answers, spec: GrpoSpec, *, most_tokens: int, factor: Tensor | None = None) -> Loss:
    """The loss that the job names: its term at each token, and how tokens are added up (the table above).

    The means: grpo arXiv 2402.03300, equation 3; dapo 2503.14476, section 3.3; dr_grpo 2503.20783, section 3.2; cispo
    2506.13585, equation 4; sapo 2511.20347, equation 5. Where a paper's mean is over the tokens of a group, it is over
    those of the step, as everywhere in practice. `most_tokens`: the most that an answer could have, dr_grpo's divisor.
    `factor`: what `correction` found; it weighs the policy's term, not the divergence's.
    """
    terms = _policy_terms(answers, spec)
    if factor is not None:
        terms = terms * factor
    if spec.beta:
        terms = terms + spec.beta * divergence(answers, spec.kl_estimator)
    totals = torch.where(answers.mask, terms, 0.0).sum(1)
    match spec.loss:
        case "grpo" | "sapo":
            return Loss(totals / answers.lengths.clamp(min=1), torch.zeros_like(totals))
        case "dr_grpo":
            return Loss(totals / most_tokens, torch.zeros_like(totals))
        case "dapo" | "bnpo" | "cispo":
            return Loss(torch.zeros_like(totals), totals)


def rloo(answers: Answers, spec: RlooSpec, *, factor: Tensor | None = None) -> Loss:
    """-min(w A, clip(w, 1 - e, 1 + h) A), w that of the whole answer: RLOO, arXiv 2402.14740, section 2.3.

    At the first step over the answers its gradient is the paper's, -A times that of log pi(y|x); over further ones it
    is clipped as PPO's is (arXiv 1707.06347, equation 7). `factor`: what `answer_correction` found.
    """
    rows = _clipped(_answer_ratio(answers), answers.advantages, spec.epsilon, _high(spec))
    if factor is not None:
        rows = rows * factor
    rows = torch.where(answers.mask.any(1), rows, 0.0)
    return Loss(rows, torch.zeros_like(rows))


def _answer_ratio(answers: Answers) -> Tensor:
    return _bounded_exp(_log_ratio(answers).sum(1))


def _policy_terms(answers: Answers, spec: GrpoSpec) -> Tensor:
    """The terms without the divergence, `[N, T]`, or `[N, 1]` where the ratio is the answer's."""
    ratio, advantages = _ratio(answers, spec.importance_sampling), answers.advantages[:, None]
    match spec.loss:
        case "cispo":
            return _weighted(ratio, advantages, answers.policy, _high(spec))
        case "sapo":
            return _softly_clipped(ratio, advantages, (spec.sapo_temperature, spec.sapo_temperature_negative))
        case _:
            return _clipped(ratio, advantages, spec.epsilon, _high(spec))


def _clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(w A, clip(w, 1 - e, 1 + h) A): GRPO, arXiv 2402.03300, equation 3; its two bounds: DAPO, section 3.1."""
    return -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def _weighted(ratio: Tensor, advantages: Tensor, policy: Tensor, high: float) -> Tensor:
    """-sg(min(w, 1 + h)) A log pi: CISPO, arXiv 2506.13585, equations 4 and 5; without a bound below, as there."""
    return -ratio.clamp(max=1 + high).detach() * advantages * policy


def _softly_clipped(ratio: Tensor, advantages: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """-(4 / t) s(t (w - 1)) A, s the sigmoid, t by whether A is positive: SAPO, arXiv 2511.20347, equation 6."""
    temperature = torch.where(advantages > 0, *(ratio.new_tensor(each) for each in temperatures))
    return -4 / temperature * functional.sigmoid(temperature * (ratio - 1)) * advantages


def _high(spec: GrpoSpec | RlooSpec) -> float:
    return spec.epsilon if spec.epsilon_high is None else spec.epsilon_high


# What is measured: for each name values and weights, whose weighted mean over a step is the measure -----------------


def grpo_measures(answers: Answers, spec: GrpoSpec, entropy: Tensor | None = None) -> Measures:
    """Shares of ratios that were clipped, the divergence and the entropy. `entropy` is `[N, T]`, as `entropies` has it.

    A ratio counts as clipped where that takes its gradient away; cispo's, where its weight is cut. sapo clips none.
    """
    ratio = _ratio(answers, spec.importance_sampling).detach()
    weights = answers.mask.any(1, keepdim=True) if spec.importance_sampling == "sequence" else answers.mask
    found = {}
    if spec.loss == "cispo":
        found["clip_ratio/high_mean"] = _share(ratio > 1 + _high(spec), weights)
    elif spec.loss != "sapo":
        found = _clip_shares(ratio, answers.advantages[:, None], weights, spec)
    if spec.beta:
        found["kl"] = _over(divergence(answers, spec.kl_estimator).detach(), answers.mask)
    return found | _entropy(entropy, answers.mask)


def rloo_measures(answers: Answers, spec: RlooSpec, entropy: Tensor | None = None) -> Measures:
    """As of grpo, but for the divergence, which belongs to the rewards."""
    ratio = _answer_ratio(answers).detach()
    return _clip_shares(ratio, answers.advantages, answers.mask.any(1), spec) | _entropy(entropy, answers.mask)


def sampler_measures(answers: Answers, factor: Tensor | None) -> Measures:
    """How far what drew the answers is from the policy that learns, a token; and what terms are weighed by for it."""
    if answers.sampler is None:
        return {}
    known = answers.mask & ~answers.sampler.isnan()
    found = {"rollout/logp_difference": _over(_apart(answers.old, answers.sampler, answers.mask).abs(), known)}
    if factor is not None:
        weights = answers.mask if factor.dim() == answers.mask.dim() else answers.mask.any(1)
        found["rollout/importance"] = _over(factor, weights)
    return found


def entropies(logits: Tensor) -> Tensor:
    """-sum p log p of each distribution, in nats: logits `[..., V]` to `[...]`."""
    log_p = functional.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def _clip_shares(ratio: Tensor, advantages: Tensor, weights: Tensor, spec: GrpoSpec | RlooSpec) -> Measures:
    return {
        "clip_ratio/low_mean": _share((ratio < 1 - spec.epsilon) & (advantages < 0), weights),
        "clip_ratio/high_mean": _share((ratio > 1 + _high(spec)) & (advantages > 0), weights),
    }


def _entropy(entropy: Tensor | None, mask: Tensor) -> Measures:
    return {} if entropy is None else {"entropy": _over(entropy.detach(), mask)}


def _share(chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    return _over(chosen.float(), weights)


def _over(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(mask, values, 0.0), mask.to(values.dtype)
