"""The losses of every method, as pure functions of log-probabilities and scores: shapes, units, formula, paper.

A log-probability is the sum over an answer's trained tokens, in nats. Every tensor has one entry a row, `[N]`; in the
formulas r_w = log pi(y_w|x) - log ref(y_w|x) is the log-ratio of the chosen answer, r_l that of the rejected one, d
their difference, s the sigmoid. What needs more than its own rows (`aot`, `kto`) is given that as numbers without a
gradient, so that a step may be computed in parts. Not here: where log-probabilities come from (`answers`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from anneal_api.methods import CpoSpec, DpoSpec, OrpoSpec, SimpoSpec

Tensor = Any


class Loss(NamedTuple):
    """`rows`: the mean over all rows of a step counts. `tokens`: the sum over all rows, over their trained tokens.

    Both are `[N]`, so that parts of a step add up to the step whatever the parts are.
    """

    rows: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of pairs of answers, `[N]` each; lengths are trained tokens.

    The reference's are zero where the method has none. `partners`: what `rank_partners` found over all rows of the
    step, where the loss is one that sorts.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    partners: "Partners | None" = None

    @property
    def chosen_ratio(self) -> Tensor:
        """r_w."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """r_l."""
        return self.rejected - self.ref_rejected

    @property
    def difference(self) -> Tensor:
        """D = r_w - r_l."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def difference_per_token(self) -> Tensor:
        """r_w / |y_w| - r_l / |y_l|."""
        return self.chosen_ratio / self.chosen_length - self.rejected_ratio / self.rejected_length

    def likelihood(self, weight: float = 1.0) -> Tensor:
        """What the negative log-likelihood of the chosen answers adds to `Loss.tokens`."""
        return -weight * self.chosen

    @classmethod
    def of(cls, columns: Tensor, partners: "Partners | None" = None) -> "Pairs":
        """From a table `[N, 6]`, its columns as the fields here."""
        return cls(*columns.unbind(1), partners)  # type: ignore[call-arg]


PAIR_COLUMNS = len(fields(Pairs)) - 1


@dataclass(frozen=True)
class Partners:
    """For each row, what stands at the same rank on the other side, over all rows of a step; without gradients."""

    margin: Tensor
    chosen: Tensor
    rejected: Tensor

    def part(self, rows: slice) -> "Partners":
        """Those of some of the rows."""
        return Partners(self.margin[rows], self.chosen[rows], self.rejected[rows])


def rank_partners(pairs: Pairs) -> Partners:
    """The partners of all rows of a step."""
    return Partners(
        margin=_at_same_rank(pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected).detach(),
        chosen=_at_same_rank(pairs.chosen_ratio, pairs.rejected_ratio).detach(),
        rejected=_at_same_rank(pairs.rejected_ratio, pairs.chosen_ratio).detach(),
    )


def _at_same_rank(values: Tensor, others: Tensor) -> Tensor:
    ranks = values.argsort(stable=True).argsort(stable=True)
    return others.sort().values[ranks]


# Direct preference optimization and its family --------------------------------------------------------------------


def dpo(pairs: Pairs, spec: DpoSpec) -> Loss:
    """The sum of the losses that the job names, each with its weight."""
    weights = spec.loss_weights or [1.0] * len(spec.losses)
    rows = tokens = torch.zeros_like(pairs.chosen)
    for name, weight in zip(spec.losses, weights, strict=True):
        if name == "sft":
            tokens = tokens + pairs.likelihood(weight)
        else:
            rows = rows + weight * DPO_LOSSES[name](pairs, spec)
    return Loss(rows, tokens)


def _sigmoid(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """-log s(beta d): DPO, arXiv 2305.18290, equation 7."""
    return -functional.logsigmoid(spec.beta * pairs.difference)


def _sigmoid_norm(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """-log s(beta (r_w/|y_w| - r_l/|y_l|)): length-normalised DPO, Tulu 3, arXiv 2411.15124, section 5.1.2."""
    return -functional.logsigmoid(spec.beta * pairs.difference_per_token)


def _hinge(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """max(0, 1 - beta d): SLiC, arXiv 2305.10425, equation 1, as RSO (2309.06657) puts it."""
    return torch.relu(1 - spec.beta * pairs.difference)


def _exo_pair(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """KL(p || q), p = (s(beta d), s(-beta d)), q = (1 - e, e): EXO for two answers, arXiv 2402.00856, equation 16."""
    wins, noise = spec.beta * pairs.difference, spec.label_smoothing
    return torch.sigmoid(wins) * (functional.logsigmoid(wins) - math.log1p(-noise)) + torch.sigmoid(-wins) * (
        functional.logsigmoid(-wins) - math.log(noise)
    )


def _nca_pair(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """-log s(beta r_w) - 1/2 log s(-beta r_w) - 1/2 log s(-beta r_l): NCA, arXiv 2402.05369, algorithm 1, K = 2."""
    chosen, rejected = spec.beta * pairs.chosen_ratio, spec.beta * pairs.rejected_ratio
    log = functional.logsigmoid
    return -log(chosen) - 0.5 * log(-chosen) - 0.5 * log(-rejected)


def _robust(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """(-(1-e) log s(beta d) + e log s(-beta d)) / (1 - 2e): robust DPO, arXiv 2403.00409, equation 9."""
    wins, noise = spec.beta * pairs.difference, spec.label_smoothing
    return (-(1 - noise) * functional.logsigmoid(wins) + noise * functional.logsigmoid(-wins)) / (1 - 2 * noise)


def _bco_pair(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """-log s(beta r_w) - log s(-beta r_l): BCO without its shift, arXiv 2404.04656, section 3."""
    return -functional.logsigmoid(spec.beta * pairs.chosen_ratio) - functional.logsigmoid(
        -spec.beta * pairs.rejected_ratio
    )


def _sppo_hard(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """(r_w - 1/(2 beta))^2 + (r_l + 1/(2 beta))^2: SPPO, arXiv 2405.00675, equation 4.7 with P of 1 and 0."""
    aim = 0.5 / spec.beta
    return (pairs.chosen_ratio - aim) ** 2 + (pairs.rejected_ratio + aim) ** 2


def _aot(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """The DPO loss between sorted margins of policy and reference: AOT for pairs, arXiv 2406.05882, section 3."""
    partners = _partners(pairs)
    return _smoothed(spec.beta * (pairs.chosen - pairs.rejected - partners.margin), spec.label_smoothing)


def _aot_unpaired(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """The DPO loss between sorted r_w and sorted r_l: AOT for unpaired data, arXiv 2406.05882, section 3.

    A row's rejected answer is compared with another row's chosen one: that part gives a gradient and adds nothing.
    """
    partners = _partners(pairs)
    loss = _smoothed(spec.beta * (pairs.chosen_ratio - partners.chosen), spec.label_smoothing)
    other = _smoothed(spec.beta * (partners.rejected - pairs.rejected_ratio), spec.label_smoothing)
    return loss + other - other.detach()


def _partners(pairs: Pairs) -> Partners:
    assert pairs.partners is not None, "a loss that sorts is given what it sorts over"
    return pairs.partners


def _smoothed(wins: Tensor, noise: float) -> Tensor:
    return -(1 - noise) * functional.logsigmoid(wins) - noise * functional.logsigmoid(-wins)


def _apo_zero(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """1 - s(beta r_w) + s(beta r_l): APO-zero, arXiv 2408.06266, equation 7."""
    return 1 - torch.sigmoid(spec.beta * pairs.chosen_ratio) + torch.sigmoid(spec.beta * pairs.rejected_ratio)


def _apo_down(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """S(beta r_w) + 1 - s(beta d): APO-down, arXiv 2408.06266, equation 8."""
    return torch.sigmoid(spec.beta * pairs.chosen_ratio) + 1 - torch.sigmoid(spec.beta * pairs.difference)


def _discopop(pairs: Pairs, spec: DpoSpec) -> Tensor:
    """-(1-m) log s(b) + m exp(-b), b = beta d, m = s(b / tau): DiscoPOP (LRML), arXiv 2406.08414, equation 5."""
    wins = spec.beta * pairs.difference
    mixed = torch.sigmoid(wins / spec.discopop_tau)
    return -functional.logsigmoid(wins) * (1 - mixed) + torch.exp(-wins) * mixed


def _ipo(pairs: Pairs, spec: DpoSpec) -> Tensor:
    return ipo(pairs, spec.beta).rows


DPO_LOSSES: dict[str, Callable[[Pairs, DpoSpec], Tensor]] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
}
SORTING = ("aot", "aot_unpaired")


def ipo(pairs: Pairs, beta: float) -> Loss:
    """(r_w/|y_w| - r_l/|y_l| - 1/(2 beta))^2: IPO, arXiv 2310.12036, equation 17, per token as its authors do it."""
    rows = (pairs.difference_per_token - 1 / (2 * beta)) ** 2
    return Loss(rows, torch.zeros_like(rows))


# Without a reference ----------------------------------------------------------------------------------------------


def orpo(pairs: Pairs, spec: OrpoSpec) -> Loss:
    """NLL(y_w) - beta log s(log odds(y_w) - log odds(y_l)): ORPO, arXiv 2403.07691, equations 6 and 7.

    Odds are p / (1 - p) of the mean probability of a token, p = exp(log pi(y|x) / |y|).
    """
    chosen, rejected = pairs.chosen / pairs.chosen_length, pairs.rejected / pairs.rejected_length
    rows = -spec.beta * functional.logsigmoid(_log_odds(chosen) - _log_odds(rejected))
    return Loss(rows, pairs.likelihood())


def _log_odds(log_probability: Tensor) -> Tensor:
    """Log(p / (1 - p)). An answer that is certain has none, so p ends just below 1."""
    bounded = log_probability.clamp(max=-1e-6)
    return bounded - torch.log(-torch.expm1(bounded))


def simpo(pairs: Pairs, spec: SimpoSpec) -> Loss:
    """-log s(beta log pi(y_w|x)/|y_w| - beta log pi(y_l|x)/|y_l| - gamma): SimPO, arXiv 2405.14734, equation 6."""
    rows = -functional.logsigmoid(spec.beta * pairs.difference_per_token - spec.gamma)
    return Loss(rows, pairs.likelihood(spec.sft_weight))


def cpo(pairs: Pairs, spec: CpoSpec) -> Loss:
    """-log s(beta (log pi(y_w|x) - log pi(y_l|x))) + NLL(y_w): CPO, arXiv 2401.08417, equations 3 to 5."""
    match spec.loss:
        case "sigmoid":
            rows = _smoothed(spec.beta * pairs.difference, spec.label_smoothing)
        case "hinge":
            rows = torch.relu(1 - spec.beta * pairs.difference)
        case "ipo":
            rows = ipo(pairs, spec.beta).rows
    return Loss(rows, pairs.likelihood(spec.sft_weight))


# Answers that are judged one by one -------------------------------------------------------------------------------


def kto(ratio: Tensor, desirable: Tensor, baseline: Tensor, beta: float, weights: tuple[float, float]) -> Loss:
    """W_D (1 - s(beta (r - z))) or w_U (1 - s(beta (z - r))): KTO, arXiv 2402.01306, equations 7 and 8.

    `ratio` is r of the answer; `desirable` bool; `baseline` is z of the whole step (`kl_baseline`); `weights` are those
    of desirable and undesirable answers.
    """
    side = torch.where(desirable, 1.0, -1.0)
    weight = torch.where(desirable, weights[0], weights[1])
    rows = weight * (1 - torch.sigmoid(side * beta * (ratio - baseline)))
    return Loss(rows, torch.zeros_like(rows))


def kl_baseline(ratios: Tensor) -> Tensor:
    """Z: the mean log-ratio of answers to other questions, at least 0: an estimate of KL(pi || ref) (section 4.1)."""
    return ratios.mean().clamp(min=0).detach()


# Scores -----------------------------------------------------------------------------------------------------------


def reward(chosen: Tensor, rejected: Tensor, margin: Tensor, center: float) -> Loss:
    """-log s(c - l - m) + center (c + l)^2 of scores c and l: Bradley-Terry, arXiv 2203.02155, section 3.5.

    m is the data's margin (Llama 2, arXiv 2307.09288, equation 2); centring is arXiv 2312.09244's.
    """
    rows = -functional.logsigmoid(chosen - rejected - margin) + center * (chosen + rejected) ** 2
    return Loss(rows, torch.zeros_like(rows))


def steps(logits: Tensor, labels: Tensor) -> Loss:
    """Cross entropy of right and wrong at each judged step, logits `[T, 2]`: arXiv 2211.14275, section 2.3."""
    tokens = functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")
    return Loss(torch.zeros_like(tokens), tokens)
