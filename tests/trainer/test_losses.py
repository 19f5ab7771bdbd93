"""Every loss, on fixed numbers: against its paper's formula written out, and against TRL's own implementation."""

import math
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from anneal_api.methods import CpoSpec, DpoLoss, DpoSpec, OrpoSpec, SimpoSpec

torch = pytest.importorskip("torch")

from anneal_trainer.methods import losses  # noqa: E402 - torch is an extra
from anneal_trainer.methods.losses import Pairs  # noqa: E402

# Policy and reference on chosen and rejected answers (nats), and their lengths in tokens.
CHOSEN, REJECTED = [-12.5, -30.25, -7.125, -19.0], [-14.0, -22.5, -9.75, -18.5]
REF_CHOSEN, REF_REJECTED = [-13.0, -28.0, -7.5, -21.5], [-13.25, -24.0, -8.0, -20.0]
CHOSEN_LENGTH, REJECTED_LENGTH = [6, 11, 3, 8], [5, 9, 4, 10]
BETA, NOISE, TAU = 0.3, 0.2, 0.05
ROWS = range(4)


def s(x: float) -> float:
    """The sigmoid."""
    return 1 / (1 + math.exp(-x))


def log_s(x: float) -> float:
    """Its logarithm."""
    return math.log(s(x))


R_W = [CHOSEN[i] - REF_CHOSEN[i] for i in ROWS]
R_L = [REJECTED[i] - REF_REJECTED[i] for i in ROWS]
D = [R_W[i] - R_L[i] for i in ROWS]
PER_TOKEN = [R_W[i] / CHOSEN_LENGTH[i] - R_L[i] / REJECTED_LENGTH[i] for i in ROWS]


def fixed_pairs(*, reference: bool = True) -> Pairs:
    """The numbers above, in fp64, with gradients for the policy's."""
    own = [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in (CHOSEN, REJECTED)]
    other = [torch.tensor(values, dtype=torch.float64) * reference for values in (REF_CHOSEN, REF_REJECTED)]
    lengths = [torch.tensor(values, dtype=torch.float64) for values in (CHOSEN_LENGTH, REJECTED_LENGTH)]
    return Pairs(*own, *other, *lengths)


def with_partners(pairs: Pairs) -> Pairs:
    """The same, with what sorting losses need."""
    chosen, rejected, ref_chosen, ref_rejected = pairs.chosen, pairs.rejected, pairs.ref_chosen, pairs.ref_rejected
    lengths = pairs.chosen_length, pairs.rejected_length
    return Pairs(chosen, rejected, ref_chosen, ref_rejected, *lengths, losses.rank_partners(pairs))


def value(loss: losses.Loss, tokens: float = sum(CHOSEN_LENGTH)) -> float:
    """A step's loss."""
    return float(loss.rows.mean() + loss.tokens.sum() / tokens)


def mean(each: Callable[[int], float]) -> float:
    """The mean of a formula over the rows."""
    return sum(map(each, ROWS)) / len(ROWS)


def sorted_margins() -> float:
    """AOT for pairs: the margins of policy and reference, each sorted."""
    own = sorted(CHOSEN[i] - REJECTED[i] for i in ROWS)
    other = sorted(REF_CHOSEN[i] - REF_REJECTED[i] for i in ROWS)
    return mean(lambda i: smoothed(BETA * (own[i] - other[i])))


def smoothed(x: float) -> float:
    """The logistic loss with labels that are wrong at times."""
    return -(1 - NOISE) * log_s(x) - NOISE * log_s(-x)


def exo(i: int) -> float:
    """The divergence of two distributions over two answers."""
    p, q = (s(BETA * D[i]), s(-BETA * D[i])), (1 - NOISE, NOISE)
    return sum(p[k] * math.log(p[k] / q[k]) for k in (0, 1))


def discopop(i: int) -> float:
    """A logistic and an exponential loss, mixed by the sign of the difference."""
    b = BETA * D[i]
    return -(1 - s(b / TAU)) * log_s(b) + s(b / TAU) * math.exp(-b)


FORMULAS: dict[str, Callable[[], float]] = {
    "sigmoid": lambda: mean(lambda i: -log_s(BETA * D[i])),
    "sigmoid_norm": lambda: mean(lambda i: -log_s(BETA * PER_TOKEN[i])),
    "hinge": lambda: mean(lambda i: max(0.0, 1 - BETA * D[i])),
    "ipo": lambda: mean(lambda i: (PER_TOKEN[i] - 1 / (2 * BETA)) ** 2),
    "exo_pair": lambda: mean(exo),
    "nca_pair": lambda: mean(lambda i: -log_s(BETA * R_W[i]) - (log_s(-BETA * R_W[i]) + log_s(-BETA * R_L[i])) / 2),
    "robust": lambda: mean(
        lambda i: (-(1 - NOISE) * log_s(BETA * D[i]) + NOISE * log_s(-BETA * D[i])) / (1 - 2 * NOISE)
    ),
    "bco_pair": lambda: mean(lambda i: -log_s(BETA * R_W[i]) - log_s(-BETA * R_L[i])),
    "sppo_hard": lambda: mean(lambda i: (R_W[i] - 1 / (2 * BETA)) ** 2 + (R_L[i] + 1 / (2 * BETA)) ** 2),
    "aot": sorted_margins,
    "aot_unpaired": lambda: mean(lambda i: smoothed(BETA * (sorted(R_W)[i] - sorted(R_L)[i]))),
    "apo_zero": lambda: mean(lambda i: 1 - s(BETA * R_W[i]) + s(BETA * R_L[i])),
    "apo_down": lambda: mean(lambda i: s(BETA * R_W[i]) + 1 - s(BETA * D[i])),
    "discopop": lambda: mean(discopop),
    "sft": lambda: -sum(CHOSEN) / sum(CHOSEN_LENGTH),
}


def spec_of(*names: str, **fields: Any) -> DpoSpec:
    """The block of a DPO job with these losses."""
    return DpoSpec.model_validate(
        {"losses": list(names), "beta": BETA, "labelSmoothing": NOISE, "discopopTau": TAU, **fields}
    )


@pytest.mark.parametrize("name", get_args(DpoLoss))
def test_each_loss_of_dpo_is_its_papers_formula(name: str) -> None:
    """All fifteen names of the API."""
    found = value(losses.dpo(with_partners(fixed_pairs()), spec_of(name)))
    assert found == pytest.approx(FORMULAS[name](), rel=1e-9)


def test_losses_are_mixed_by_their_weights() -> None:
    """A weighted sum, of terms over pairs and terms over tokens."""
    found = value(losses.dpo(fixed_pairs(), spec_of("sigmoid", "sft", "hinge", lossWeights=[0.5, 2.0, 0.25])))
    expected = 0.5 * FORMULAS["sigmoid"]() + 2 * FORMULAS["sft"]() + 0.25 * FORMULAS["hinge"]()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", losses.SORTING)
def test_sorting_losses_have_the_gradients_of_the_whole_step(name: str) -> None:
    """Where each row sees its partner as a number, gradients are still those of the sorted tensors."""
    pairs = fixed_pairs()
    losses.dpo(with_partners(pairs), spec_of(name)).rows.mean().backward()
    whole = fixed_pairs()
    if name == "aot":
        left, right = whole.chosen - whole.rejected, whole.ref_chosen - whole.ref_rejected
    else:
        left, right = whole.chosen_ratio, whole.rejected_ratio
    wins = BETA * (left.sort().values - right.sort().values)
    log = torch.nn.functional.logsigmoid
    (-(1 - NOISE) * log(wins) - NOISE * log(-wins)).mean().backward()
    assert pairs.chosen.grad.allclose(whole.chosen.grad)
    assert pairs.rejected.grad.allclose(whole.rejected.grad)


def test_ipo_as_a_method_of_its_own() -> None:
    """The same as dpo's loss of that name."""
    assert value(losses.ipo(fixed_pairs(), BETA)) == pytest.approx(FORMULAS["ipo"](), rel=1e-9)


def test_orpo() -> None:
    """The likelihood of the chosen answers, and the log odds ratio of mean token probabilities."""

    def odds(log_p: float) -> float:
        return math.log(math.exp(log_p) / (1 - math.exp(log_p)))

    def ratio(i: int) -> float:
        return odds(CHOSEN[i] / CHOSEN_LENGTH[i]) - odds(REJECTED[i] / REJECTED_LENGTH[i])

    found = value(losses.orpo(fixed_pairs(reference=False), OrpoSpec(beta=BETA)))
    assert found == pytest.approx(FORMULAS["sft"]() - BETA * mean(lambda i: log_s(ratio(i))), rel=1e-9)


def test_orpo_of_an_answer_that_is_certain_is_finite() -> None:
    """Its odds have no bound; loss and gradients have."""
    zero = torch.zeros(1, requires_grad=True)
    pairs = Pairs(zero, torch.tensor([-900.0]), zero.detach(), zero.detach(), torch.ones(1), torch.ones(1))
    loss = losses.orpo(pairs, OrpoSpec())
    loss.rows.sum().backward()
    assert math.isfinite(value(loss, 1))
    assert math.isfinite(zero.grad.item())


def test_simpo() -> None:
    """Likelihood a token as the reward, and a margin."""
    spec = SimpoSpec.model_validate({"beta": 2.5, "gamma": 0.75, "sftWeight": 0.5})

    def margin(i: int) -> float:
        return 2.5 * CHOSEN[i] / CHOSEN_LENGTH[i] - 2.5 * REJECTED[i] / REJECTED_LENGTH[i] - 0.75

    expected = mean(lambda i: -log_s(margin(i))) + 0.5 * FORMULAS["sft"]()
    assert value(losses.simpo(fixed_pairs(reference=False), spec)) == pytest.approx(expected, rel=1e-9)


CPO_FORMS: dict[str, Callable[[int], float]] = {
    "sigmoid": lambda i: smoothed(BETA * (CHOSEN[i] - REJECTED[i])),
    "hinge": lambda i: max(0.0, 1 - BETA * (CHOSEN[i] - REJECTED[i])),
    "ipo": lambda i: (CHOSEN[i] / CHOSEN_LENGTH[i] - REJECTED[i] / REJECTED_LENGTH[i] - 1 / (2 * BETA)) ** 2,
}


@pytest.mark.parametrize("form", CPO_FORMS)
def test_cpo(form: str) -> None:
    """Each form of the preference term, and the likelihood with its weight."""
    noise = NOISE if form == "sigmoid" else 0.0
    spec = CpoSpec.model_validate({"beta": BETA, "loss": form, "sftWeight": 1.5, "labelSmoothing": noise})
    expected = mean(CPO_FORMS[form]) + 1.5 * FORMULAS["sft"]()
    assert value(losses.cpo(fixed_pairs(reference=False), spec)) == pytest.approx(expected, rel=1e-9)


def test_kto() -> None:
    """Each side has its own form and weight, against a baseline that is never below 0."""
    ratio = torch.tensor([*R_W, *R_L], dtype=torch.float64)
    desirable = torch.tensor([True] * 4 + [False] * 4)
    baseline = losses.kl_baseline(torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64))
    found = losses.kto(ratio, desirable, baseline, BETA, (1.25, 0.75))
    expected = mean(lambda i: 1.25 * (1 - s(BETA * (R_W[i] - 0.5))) + 0.75 * (1 - s(BETA * (0.5 - R_L[i])))) / 2
    assert value(found, 1) == pytest.approx(expected, rel=1e-9)
    assert losses.kl_baseline(torch.tensor([-3.0])).item() == 0


def test_reward() -> None:
    """Bradley-Terry with the data's margin, and scores pulled to a sum of zero."""
    chosen, rejected, margin = [1.5, -0.25, 3.0], [0.5, 0.75, -1.0], [0.0, 1.0, 0.5]
    found = losses.reward(*(torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected, margin)), 0.01)
    rows = zip(chosen, rejected, margin, strict=True)
    expected = sum(-log_s(c - r - m) + 0.01 * (c + r) ** 2 for c, r, m in rows) / 3
    assert value(found, 1) == pytest.approx(expected, rel=1e-9)


def test_steps() -> None:
    """Cross entropy where there is a label, nothing elsewhere."""
    logits = torch.tensor([[0.5, -1.0], [2.0, 2.5], [9.0, -9.0]])
    found = losses.steps(logits, torch.tensor([1, 0, -100]))
    assert value(found, 2) == pytest.approx((-log_s(-1.5) - log_s(-0.5)) / 2, rel=1e-6)


# Against TRL ------------------------------------------------------------------------------------------------------


def accelerator() -> SimpleNamespace:
    """One process."""
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


def per_token(totals: list[float], lengths: list[int], width: int) -> Any:
    """Log-probabilities of tokens that have these sums, after a prompt of one token."""
    rows = [[total / length] * length + [0.0] * (width - length) for total, length in zip(totals, lengths, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", get_args(DpoLoss))
def test_each_loss_of_dpo_is_trls(name: str) -> None:
    """Its trainer's own function, given our log-probabilities as its model's answers."""
    from trl import DPOTrainer

    width = max(CHOSEN_LENGTH + REJECTED_LENGTH)
    tokens = torch.cat([per_token(CHOSEN, CHOSEN_LENGTH, width), per_token(REJECTED, REJECTED_LENGTH, width)])
    mask = torch.nn.functional.pad((tokens != 0).long(), (1, 0))
    extra = dict.fromkeys(("entropy", "mean_logits", "is_top1"), torch.zeros_like(tokens).bool())
    outputs = SimpleNamespace(log_probs=tokens, aux_loss=None, **extra)
    peer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator(), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[name], loss_weights=[1.0], beta=BETA,
        label_smoothing=NOISE, args=SimpleNamespace(discopop_tau=TAU), use_weighting=False, _total_train_tokens=0,
        _tp_size=1, _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    inputs = {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": torch.tensor(REF_CHOSEN, dtype=torch.float64),
        "ref_rejected_logps": torch.tensor(REF_REJECTED, dtype=torch.float64),
    }  # fmt: skip
    expected = DPOTrainer._compute_loss(peer, lambda **_inputs: outputs, inputs, return_outputs=False)
    assert value(losses.dpo(with_partners(fixed_pairs()), spec_of(name))) == pytest.approx(expected.item(), rel=1e-6)
    ours = {"rewards/chosen": BETA * sum(R_W) / 4, "rewards/rejected": BETA * sum(R_L) / 4}
    assert {key: peer._metrics["train"][key][0] for key in ours} == pytest.approx(ours)


def test_kto_is_trls() -> None:
    """Its trainer's own function, with the baseline of one batch."""
    from trl import KTOTrainer

    width = max(CHOSEN_LENGTH)
    tokens = per_token(CHOSEN, CHOSEN_LENGTH, width)
    mask = torch.nn.functional.pad((tokens != 0).long(), (1, 0))
    extra = dict.fromkeys(("entropy", "mean_logits", "is_top1"), torch.zeros_like(tokens).bool())
    outputs = SimpleNamespace(log_probs=tokens, aux_loss=None, **extra)
    desirable, others, ref_others = [True, False, False, True], [-9.0, -8.0, -7.0, -6.0], [-10.0, -8.5, -8.0, -5.0]
    peer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator(), aux_loss_enabled=False, calculate_KL=True,
        precompute_ref_logps=True, loss_type="kto", beta=BETA, desirable_weight=1.25, undesirable_weight=0.75,
        _compute_kl_logps=lambda _model, _batch: torch.tensor(others), _total_train_tokens=0, _tp_size=1,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    inputs = {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask, "label": torch.tensor(desirable),
        "ref_logps": torch.tensor(REF_CHOSEN, dtype=torch.float64), "ref_KL_logps": torch.tensor(ref_others),
    }  # fmt: skip
    expected = KTOTrainer._compute_loss(peer, lambda **_inputs: outputs, inputs, return_outputs=False)
    baseline = losses.kl_baseline(torch.tensor(others) - torch.tensor(ref_others))
    ratio = torch.tensor(R_W, dtype=torch.float64)
    found = losses.kto(ratio, torch.tensor(desirable), baseline, BETA, (1.25, 0.75))
    assert value(found, 1) == pytest.approx(expected.item(), rel=1e-6)
    assert peer._metrics["train"]["kl"] == [pytest.approx(baseline.item())]


@pytest.mark.parametrize("form", ["sigmoid", "hinge", "ipo", "simpo"])
def test_cpo_and_simpo_are_trls(form: str) -> None:
    """Its preference term; two of the forms are given log-probabilities a token."""
    from trl.experimental.cpo import CPOTrainer

    pairs = fixed_pairs(reference=False)
    noise = NOISE if form == "sigmoid" else 0.0
    given = [pairs.chosen, pairs.rejected]
    if form in ("ipo", "simpo"):
        given = [pairs.chosen / pairs.chosen_length, pairs.rejected / pairs.rejected_length]
    peer = SimpleNamespace(
        accelerator=accelerator(), beta=BETA, label_smoothing=noise, loss_type=form, simpo_gamma=0.5, alpha=0.0
    )
    expected = CPOTrainer.cpo_loss(peer, *given)[0].mean().item()
    if form == "simpo":
        found = losses.simpo(pairs, SimpoSpec.model_validate({"beta": BETA, "gamma": 0.5}))
    else:
        found = losses.cpo(pairs, CpoSpec.model_validate({"beta": BETA, "loss": form, "labelSmoothing": noise}))
    assert float(found.rows.mean()) == pytest.approx(expected, rel=1e-9)


def test_orpo_is_trls() -> None:
    """Its odds ratio term, which computes in fp32."""
    from trl.experimental.orpo import ORPOTrainer

    pairs = fixed_pairs(reference=False)
    given = (pairs.chosen / pairs.chosen_length, pairs.rejected / pairs.rejected_length)
    expected = -ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=BETA, accelerator=accelerator()), *given)[0].mean()
    assert float(losses.orpo(pairs, OrpoSpec(beta=BETA)).rows.mean()) == pytest.approx(expected.item(), rel=1e-5)


def test_reward_is_trls() -> None:
    """Its trainer's own function, given our scores as its model's answers."""
    from trl import RewardTrainer

    chosen, rejected, margin = (torch.tensor(each) for each in ([1.5, -0.25], [0.5, 0.75], [0.0, 1.0]))
    outputs = SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])
    peer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator(), _total_train_tokens=0, _tp_size=1,
        args=SimpleNamespace(center_rewards_coefficient=0.01), _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    inputs = {"attention_mask": torch.ones(4, 3), "margin": margin}
    expected = RewardTrainer.compute_loss(peer, lambda **_inputs: outputs, inputs)
    assert value(losses.reward(chosen, rejected, margin, 0.01), 1) == pytest.approx(expected.item(), rel=1e-6)
