"""Advantages and losses of GRPO and RLOO on fixed numbers: written out in loops, against TRL's own, and in any parts."""

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anneal_api.online import OF_SEQUENCES, GrpoLoss, GrpoSpec, RlooSpec

torch = pytest.importorskip("torch")

from anneal_trainer.methods import online_losses as online  # noqa: E402 - torch is an extra
from anneal_trainer.methods.objectives import Objective  # noqa: E402
from anneal_trainer.methods.online_losses import Answers  # noqa: E402

# Four answers with their tokens' log-probabilities (nats), now and before; some ratios leave the bounds on either side.
POLICY = [[-1.0, -0.5, -2.25], [-0.75, -3.0], [-1.5, -0.125, -0.25, -4.0], [-2.0]]
OLD = [[-1.125, -1.0, -2.0], [-1.25, -2.25], [-1.5, -0.75, -0.125, -3.25], [-2.5]]
REFERENCE = [[-1.25, -0.75, -2.0], [-0.5, -3.5], [-1.0, -0.25, -0.5, -3.0], [-1.75]]
SAMPLER = [[-1.0, -1.75, -2.125], [-1.5, -2.25], [-1.25, -0.75, -0.25, -3.5], [-2.0]]
ADVANTAGES = [1.25, -0.75, 0.5, -1.0]
LENGTHS, ROWS, TOKENS, MOST = [3, 2, 4, 1], range(4), 10, 6
BETA, LOW, HIGH, CAP = 0.25, 0.2, 0.28, 1.5
WARM, WARM_NEGATIVE = 1.5, 2.5
LOSSES = get_args(GrpoLoss)
LEVELS = ("token", "sequence")
# Ratios of whole answers go with some losses only.
FORMS = [(loss, level) for loss in LOSSES for level in LEVELS if level == "token" or loss in OF_SEQUENCES]


def padded(rows: list[list[float]], filler: float = 0.0) -> Any:
    """Rows as one table in fp64."""
    parts = [torch.tensor(row, dtype=torch.float64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=filler)


def fixed_answers(filler: float = 0.0) -> Answers:
    """The numbers above, with gradients for the policy's."""
    mask = padded([[1.0] * length for length in LENGTHS]).bool()
    advantages = torch.tensor(ADVANTAGES, dtype=torch.float64)
    policy, old, reference = (padded(rows, filler) for rows in (POLICY, OLD, REFERENCE))
    return Answers(policy.requires_grad_(), old, mask, advantages, reference)


def part(answers: Answers, rows: list[int], width: int) -> Answers:
    """Some of the answers, as a micro batch of that width has them."""
    tables = (table[rows, :width] for table in (answers.policy, answers.old, answers.mask))
    assert answers.reference is not None
    return Answers(*tables, answers.advantages[rows], answers.reference[rows, :width])


def fixed_factor() -> Any:
    """The weights of what drew the answers."""
    answers = fixed_answers()
    return online.correction(answers.old, padded(SAMPLER), answers.mask, cap=CAP)


def grpo_spec(loss: str, **fields: Any) -> GrpoSpec:
    """The block of a job with this loss."""
    own = {"loss": loss, "beta": 0.0, "epsilon": LOW, "epsilonHigh": HIGH, "sapoTemperature": WARM}
    return GrpoSpec.model_validate({**own, "sapoTemperatureNegative": WARM_NEGATIVE, **fields})


def rloo_spec(**fields: Any) -> RlooSpec:
    """The block of a job of that method."""
    return RlooSpec.model_validate({"epsilon": LOW, "epsilonHigh": HIGH, **fields})


def value(loss: Any, rows: int = len(ROWS), tokens: int = TOKENS) -> float:
    """A step's loss."""
    return (loss.rows.sum() / rows + loss.tokens.sum() / tokens).item()


# The papers' formulas ---------------------------------------------------------------------------------------------


def ratio(i: int, t: int, level: str = "token") -> float:
    """Of a token, or of the answer, a token."""
    if level == "sequence":
        return math.exp(sum(POLICY[i][k] - OLD[i][k] for k in range(LENGTHS[i])) / LENGTHS[i])
    return math.exp(POLICY[i][t] - OLD[i][t])


def surrogate(w: float, a: float) -> float:
    """PPO's, with two bounds."""
    return min(w * a, min(max(w, 1 - LOW), 1 + HIGH) * a)


def gate(w: float, a: float) -> float:
    """SAPO's."""
    warmth = WARM if a > 0 else WARM_NEGATIVE
    return 4 / warmth / (1 + math.exp(-warmth * (w - 1))) * a


def objective(loss: str, i: int, t: int, level: str) -> float:
    """What a token adds to what is maximized."""
    w, a = ratio(i, t, level), ADVANTAGES[i]
    if loss == "cispo":
        return min(w, 1 + HIGH) * a * POLICY[i][t]
    return gate(w, a) if loss == "sapo" else surrogate(w, a)


def kl(estimator: str, i: int, t: int) -> float:
    """Schulman's estimators of a token's divergence; the first one weighs by the ratio."""
    r = math.exp(REFERENCE[i][t] - POLICY[i][t])
    return {"k1": -ratio(i, t) * math.log(r), "k2": math.log(r) ** 2 / 2, "k3": r - 1 - math.log(r)}[estimator]


def averaged(loss: str, term: Callable[[int, int], float]) -> float:
    """How each loss averages over tokens and answers."""
    sums = [sum(term(i, t) for t in range(LENGTHS[i])) for i in ROWS]
    if loss in ("grpo", "sapo"):
        return sum(total / length for total, length in zip(sums, LENGTHS, strict=True)) / len(ROWS)
    return sum(sums) / (len(ROWS) * MOST if loss == "dr_grpo" else TOKENS)


@pytest.mark.parametrize(("loss", "level"), FORMS)
def test_each_loss_is_its_papers_formula(loss: str, level: str) -> None:
    """All names of the API, with ratios of tokens and of answers."""
    found = online.grpo(fixed_answers(), grpo_spec(loss, importanceSampling=level), most_tokens=MOST)
    expected = averaged(loss, lambda i, t: -objective(loss, i, t, level))
    assert value(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_divergence_is_added_to_each_token(loss: str, estimator: str) -> None:
    """With its weight, and not weighed by what corrects the policy's term."""
    spec = grpo_spec(loss, beta=BETA, klEstimator=estimator)
    found = online.grpo(fixed_answers(), spec, most_tokens=MOST, factor=fixed_factor())

    def term(i: int, t: int) -> float:
        factor = min(math.exp(OLD[i][t] - SAMPLER[i][t]), CAP)
        return -factor * objective(loss, i, t, "token") + BETA * kl(estimator, i, t)

    assert value(found) == pytest.approx(averaged(loss, term), rel=1e-12)


def test_rloo_is_its_papers_formula() -> None:
    """One ratio an answer: of all its tokens together."""

    def term(i: int) -> float:
        return -surrogate(math.exp(sum(POLICY[i]) - sum(OLD[i])), ADVANTAGES[i])

    assert value(online.rloo(fixed_answers(), rloo_spec())) == pytest.approx(sum(map(term, ROWS)) / 4, rel=1e-12)


def test_one_bound_is_the_default_of_the_other() -> None:
    """Without epsilonHigh, ratios may rise as far as they may fall."""
    alone = GrpoSpec.model_validate({"loss": "grpo", "epsilon": 0.2})
    both = GrpoSpec.model_validate({"loss": "grpo", "epsilon": 0.2, "epsilonHigh": 0.2})
    losses = [value(online.grpo(fixed_answers(), spec, most_tokens=MOST)) for spec in (alone, both)]
    assert losses[0] == losses[1]
    assert losses[0] != value(online.grpo(fixed_answers(), grpo_spec("grpo"), most_tokens=MOST))


def test_truncated_importance_sampling() -> None:
    """A ratio is cut at the cap, not below; what the sampler did not say is not corrected."""
    old, sampler = padded([[-1.0, -2.0, -3.0, -9.0]]), padded([[-3.0, -1.5, math.nan, math.nan]])
    mask = torch.tensor([[True, True, True, False]])
    assert online.correction(old, sampler, mask, cap=2.0).tolist() == [[2.0, math.exp(-0.5), 1.0, 1.0]]


def test_a_whole_answer_is_weighed_by_the_product_of_its_tokens() -> None:
    """Cut at the cap as one factor; rloo's term, which is an answer's, is what it weighs."""
    old, sampler = (
        padded([[-1.0, -2.0, -9.0], [-3.0, -1.0, -1.0]]),
        padded([[-1.5, -1.7, -1.0], [-1.0, -0.5, math.nan]]),
    )
    mask = torch.tensor([[True, True, False], [True, True, True]])
    factor = online.answer_correction(old, sampler, mask, cap=1.1)
    assert factor.tolist() == pytest.approx([1.1, math.exp(-2.5)])
    answers = Answers(policy=old, old=old, mask=mask, advantages=torch.tensor([0.5, -2.0]), sampler=sampler)
    plain, weighed = online.rloo(answers, rloo_spec()), online.rloo(answers, rloo_spec(), factor=factor)
    assert weighed.rows.tolist() == pytest.approx((plain.rows * factor).tolist())
    assert weighed.rows.tolist() == pytest.approx([-0.5 * 1.1, 2.0 * math.exp(-2.5)])


@pytest.mark.parametrize(("block", "importance"), [(grpo_spec, [2.0, math.exp(-0.5)]), (rloo_spec, [2.0])])
def test_how_far_the_sampler_is_from_the_policy_is_measured(block: Any, importance: list[float]) -> None:
    """Over the tokens that it told of; and the factors that are used, of tokens or of answers; without a cap, none."""
    old, sampler = padded([[-1.0, -2.0, -3.0]]), padded([[-3.0, -1.5, -1.0]])
    mask = torch.tensor([[True, True, False]])
    answers = Answers(policy=old, old=old, mask=mask, advantages=torch.ones(1), sampler=sampler)
    spec = block("grpo") if block is grpo_spec else block()
    found = Objective(spec, 3, cap=2.0).measures(answers, None)
    values, weights = found["rollout/logp_difference"]
    assert ((values * weights).sum() / weights.sum()).item() == pytest.approx((2.0 + 0.5) / 2)
    values, weights = found["rollout/importance"]
    assert values[weights.bool()].tolist() == pytest.approx(importance)
    assert "rollout/importance" not in Objective(spec, 3).measures(answers, None)


# Advantages -------------------------------------------------------------------------------------------------------

REWARDS = [1.0, 0.25, 0.0, 0.5, 2.0, 2.0, 0.5, 1.5, 0.75, 0.75, 0.75, 0.75]
UNJUDGED = [1.0, math.nan, 0.0, 0.5, math.nan, math.nan, 0.5, math.nan, math.nan, math.nan, math.nan, math.nan]
KLS = [0.5, -0.25, 1.0, 0.0, 2.0, 0.75, 0.25, 0.5, 0.125, 0.5, 1.0, -0.5]
SIZE = 4
SCALES = ("group", "batch", "none")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float]) -> float:
    """Of a sample."""
    return math.sqrt(sum((x - mean(values)) ** 2 for x in values) / (len(values) - 1))


def judged(values: list[float]) -> list[float]:
    """Without what nothing judged."""
    return [x for x in values if not math.isnan(x)]


def of_group(rewards: list[float], scale: str) -> list[float]:
    """GRPO's advantages, in a loop over groups."""
    found = []
    for start in range(0, len(rewards), SIZE):
        group = rewards[start : start + SIZE]
        own = judged(group)
        if len(set(own)) < 2:
            found += [0.0] * SIZE
            continue
        divisor = {"group": deviation(own), "batch": deviation(judged(rewards)), "none": 1 - 1e-4}[scale] + 1e-4
        found += [0.0 if math.isnan(r) else (r - mean(own)) / divisor for r in group]
    return found


def left_out(rewards: list[float], *, beta: float, normalize: bool) -> list[float]:
    """RLOO's advantages, in a loop over answers."""
    shaped = [r - beta * k for r, k in zip(rewards, KLS, strict=True)]
    found = []
    for i, reward in enumerate(shaped):
        start = i - i % SIZE
        others = judged(shaped[start:i] + shaped[i + 1 : start + SIZE])
        found.append(reward - mean(others) if others else math.nan)
    if normalize:
        known = judged(found)
        found = [(a - mean(known)) / (deviation(known) + 1e-4) for a in found]
    return [0.0 if math.isnan(a) else a for a in found]


@pytest.mark.parametrize("rewards", [REWARDS, UNJUDGED], ids=["all judged", "some not"])
@pytest.mark.parametrize("scale", SCALES)
def test_advantages_of_a_group(scale: Any, rewards: list[float]) -> None:
    """Distances from the group's mean; 0 where nothing judged an answer or nothing tells answers apart."""
    found = online.group_advantages(torch.tensor(rewards, dtype=torch.float64), size=SIZE, scale=scale)
    assert found.tolist() == pytest.approx(of_group(rewards, scale), rel=1e-12)


@pytest.mark.parametrize("rewards", [REWARDS, UNJUDGED], ids=["all judged", "some not"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_advantages_that_leave_one_out(beta: float, rewards: list[float], *, normalize: bool) -> None:
    """Distances from the mean of the others, of rewards less the divergence."""
    given_rewards, kls = (torch.tensor(each, dtype=torch.float64) for each in (rewards, KLS))
    found = online.rloo_advantages(given_rewards, kls, beta=beta, size=SIZE, normalize=normalize)
    assert found.tolist() == pytest.approx(left_out(rewards, beta=beta, normalize=normalize), rel=1e-12)


rewards_of_groups = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.lists(st.floats(-100, 100, width=32) | st.just(math.nan), min_size=size, max_size=size),
            min_size=1,
            max_size=4,
        ),
    )
)


@settings(max_examples=150, deadline=None)
@given(sample=rewards_of_groups, scale=st.sampled_from(SCALES), normalize=st.booleans())
def test_advantages_are_always_numbers(sample: tuple[int, list[list[float]]], scale: Any, *, normalize: bool) -> None:
    """Whatever was judged; exactly 0 where nothing was, or where a group has one reward."""
    size, groups = sample
    rewards = torch.tensor(groups).flatten()
    unjudged = rewards.isnan() | online.equal_groups(rewards, size=size).repeat_interleave(size)
    options = {"beta": 0.0, "size": size, "normalize": normalize}
    for found in (
        online.group_advantages(rewards, size=size, scale=scale),
        online.rloo_advantages(rewards, torch.zeros_like(rewards), **options),
    ):
        assert found.isfinite().all()
        assert (found[unjudged] == 0).all()


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e6 + 0.1])
def test_equal_rewards_have_no_advantage_at_all(reward: float) -> None:
    """Also where their mean is rounded to another number."""
    rewards = torch.full((7,), reward)
    for scale in SCALES:
        assert online.group_advantages(rewards, size=7, scale=scale).tolist() == [0.0] * 7
    found = online.rloo_advantages(rewards, torch.zeros(7), beta=0.0, size=7, normalize=True)
    assert found.tolist() == [0.0] * 7


def test_groups_that_teach_nothing() -> None:
    """Those with one reward, or at most one judged answer."""
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, math.nan, 1.0, math.nan, math.nan])
    assert online.equal_groups(rewards, size=2).tolist() == [True, False, True, True]


# Any parts of a step ----------------------------------------------------------------------------------------------


def methods() -> dict[str, Callable[[Answers, Any], Any]]:
    """Each loss of either method, with everything that can be on."""

    def of_grpo(loss: str, level: str) -> Callable[[Answers, Any], Any]:
        spec = grpo_spec(loss, beta=BETA, importanceSampling=level)
        return lambda answers, factor: online.grpo(answers, spec, most_tokens=MOST, factor=factor)

    found = {f"{loss} {level}": of_grpo(loss, level) for loss, level in FORMS}
    return {**found, "rloo": lambda answers, _factor: online.rloo(answers, rloo_spec())}


@pytest.mark.parametrize("name", methods())
@settings(max_examples=40, deadline=None)
@given(order=st.permutations(list(ROWS)), cuts=st.sets(st.integers(1, 3)))
def test_a_step_in_parts_is_the_step(name: str, order: list[int], cuts: set[int]) -> None:
    """Micro batches in any order and of any size, each as wide as its longest answer: the same loss and gradients."""
    loss, factor = methods()[name], fixed_factor()
    whole, split = fixed_answers(), fixed_answers()
    total = loss(whole, factor)
    (total.rows.sum() / 4 + total.tokens.sum() / TOKENS).backward()
    edges, found = [0, *sorted(cuts), 4], 0.0
    for start, end in pairwise(edges):
        rows = order[start:end]
        width = max(LENGTHS[i] for i in rows)
        share = loss(part(split, rows, width), factor[rows, :width])
        (share.rows.sum() / 4 + share.tokens.sum() / TOKENS).backward()
        found += value(share)
    assert found == pytest.approx(value(total), rel=1e-12)
    assert split.policy.grad.allclose(whole.policy.grad, rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(list(ROWS)), cut=st.integers(1, 3), level=st.sampled_from(LEVELS))
def test_measures_of_parts_are_those_of_the_step(order: list[int], cut: int, level: str) -> None:
    """As sums of values times weights, and of weights."""
    answers, spec = fixed_answers(), grpo_spec("grpo", beta=BETA, importanceSampling=level)

    def sums(found: Any) -> dict[str, tuple[float, float]]:
        return {name: (float((v * w).sum()), float(w.sum())) for name, (v, w) in found.items()}

    whole = sums(online.grpo_measures(answers, spec))
    parts = [sums(online.grpo_measures(part(answers, rows, 4), spec)) for rows in (order[:cut], order[cut:])]
    for name, (total, weight) in whole.items():
        assert sum(each[name][0] for each in parts) == pytest.approx(total, rel=1e-12)
        assert sum(each[name][1] for each in parts) == weight


@pytest.mark.parametrize("filler", [math.nan, math.inf, 700.0], ids=str)
@pytest.mark.parametrize("name", methods())
def test_what_is_not_trained_is_not_looked_at(name: str, filler: float) -> None:
    """Whatever stands in the padding, loss and gradients are the same, and the padding has none."""
    whole, other = fixed_answers(), fixed_answers(filler)
    factor = fixed_factor()
    for answers in (whole, other):
        loss = methods()[name](answers, factor)
        (loss.rows.sum() + loss.tokens.sum()).backward()
    assert value(methods()[name](other, factor)) == value(methods()[name](whole, factor))
    assert other.policy.grad.equal(whole.policy.grad)
    assert (other.policy.grad[~other.mask] == 0).all()


@pytest.mark.parametrize("name", methods())
def test_an_answer_without_trained_tokens_adds_nothing(name: str) -> None:
    """One that was cut off, say."""
    answers = fixed_answers()
    mask = answers.mask.clone()
    mask[1] = False
    left = Answers(answers.policy, answers.old, mask, answers.advantages, answers.reference)
    loss = methods()[name](left, fixed_factor())
    (loss.rows.sum() + loss.tokens.sum()).backward()
    assert (loss.rows[1], loss.tokens[1]) == (0, 0)
    assert (answers.policy.grad[1] == 0).all()


# Gradients --------------------------------------------------------------------------------------------------------


def gradients(loss: str, advantage: float, ratios: list[float], **fields: Any) -> list[float]:
    """At single tokens of these ratios, over -A times the ratio: 1 where nothing is taken away."""
    old = torch.full((1, len(ratios)), -5.0, dtype=torch.float64)
    policy = (old + torch.tensor([ratios], dtype=torch.float64).log()).requires_grad_()
    advantages = torch.tensor([advantage], dtype=torch.float64)
    answers = Answers(policy, old, torch.ones_like(old).bool(), advantages)
    online.grpo(answers, grpo_spec(loss, **fields), most_tokens=1).tokens.sum().backward()
    return (policy.grad[0] / (-advantage * torch.tensor(ratios))).tolist()


def test_clipped_terms_have_no_gradient() -> None:
    """Above the bound where the advantage is positive, below it where it is negative; nowhere else."""
    assert gradients("dapo", 2.0, [0.5, 0.9, 1.2, 1.3]) == pytest.approx([1, 1, 1, 0])
    assert gradients("dapo", -2.0, [0.5, 0.9, 1.2, 1.3]) == pytest.approx([0, 1, 1, 1])


def test_cispo_never_takes_a_gradient_away() -> None:
    """It cuts the weight."""
    for advantage in (2.0, -2.0):
        assert gradients("cispo", advantage, [0.5, 1.2, 4.0]) == pytest.approx([1, 1, (1 + HIGH) / 4])


def test_a_clipped_answer_has_no_gradient_at_any_token() -> None:
    """With the ratio of the whole answer: GSPO, and RLOO."""
    old = torch.zeros(2, 2, dtype=torch.float64)
    policy = torch.tensor([[1.0, -0.25], [0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    answers = Answers(policy, old, old == 0, torch.ones(2, dtype=torch.float64))
    for loss in (
        online.grpo(answers, grpo_spec("grpo", importanceSampling="sequence"), most_tokens=2),
        online.rloo(answers, rloo_spec()),
    ):
        policy.grad = None
        loss.rows.sum().backward()
        assert policy.grad[0].tolist() == [0, 0]
        assert (policy.grad[1] < 0).all()


def test_sapos_gradient_falls_softly() -> None:
    """4 p (1 - p) of the ratio, p its sigmoid: 1 at the old policy, and never 0."""

    def fall(w: float, warmth: float) -> float:
        p = 1 / (1 + math.exp(-warmth * (w - 1)))
        return 4 * p * (1 - p)

    for advantage, warmth in ((2.0, WARM), (-2.0, WARM_NEGATIVE)):
        policy = torch.tensor([[0.0, 0.5]], dtype=torch.float64, requires_grad=True)
        old, worth = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
        loss = online.grpo(Answers(policy, old, old == 0, worth), grpo_spec("sapo"), most_tokens=2)
        loss.rows.sum().backward()
        w = math.exp(0.5)
        assert policy.grad[0].tolist() == pytest.approx([-advantage / 2, -advantage * w * fall(w, warmth) / 2])


def test_at_the_first_step_rloo_is_reinforce() -> None:
    """Minus the advantage times the gradient of the answer's log-probability."""
    answers = fixed_answers()
    on_policy = Answers(answers.policy, answers.policy.detach(), answers.mask, answers.advantages)
    online.rloo(on_policy, rloo_spec()).rows.sum().backward()
    assert answers.policy.grad.equal(torch.where(answers.mask, -answers.advantages[:, None], 0.0))


@pytest.mark.parametrize("far", [1e3, -1e3])
def test_ratios_far_away_stay_finite(far: float) -> None:
    """Also in fp32, where their exponential is infinite, and where nothing is at stake."""
    for name, loss in methods().items():
        policy = torch.tensor([[-1.0 + far], [-1.0 + far]], requires_grad=True)
        old = torch.tensor([[-1.0], [-1.0]])
        answers = Answers(policy, old, old == -1, torch.tensor([0.0, -1.0]), old)
        found = loss(answers, torch.ones(2, 1))
        (found.rows.sum() + found.tokens.sum()).backward()
        assert math.isfinite(value(found)), name
        assert policy.grad.isfinite().all(), name


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradients_of_divergences(estimator: Any) -> None:
    """In the mean over what could be drawn: of KL(pi || ref) with k1 and k2, of KL(ref || pi) with k3."""
    logits = torch.tensor([0.5, -1.0, 0.25, 2.0], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(0)
    log_ref = torch.tensor([1.0, 0.5, -0.5, 0.0], dtype=torch.float64).log_softmax(0)
    chances, mask = log_p.exp().detach(), torch.ones(4, 1).bool()
    answers = Answers(log_p[:, None], log_p.detach()[:, None], mask, torch.zeros(4), log_ref[:, None])
    estimate = (chances * online.divergence(answers, estimator)[:, 0]).sum()
    (found,) = torch.autograd.grad(estimate, logits, retain_graph=True)
    forward, reverse = (log_ref.exp() * (log_ref - log_p)).sum(), (log_p.exp() * (log_p - log_ref)).sum()
    (expected,) = torch.autograd.grad(forward if estimator == "k3" else reverse, logits, retain_graph=True)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    if estimator != "k2":
        assert estimate.item() == pytest.approx(reverse.item(), rel=1e-9)


# Measures ---------------------------------------------------------------------------------------------------------


def means(found: Any) -> dict[str, float]:
    """Each measure over a step."""
    return {name: float((values * weights).sum() / weights.sum()) for name, (values, weights) in found.items()}


def test_measures_of_tokens() -> None:
    """Over all trained tokens."""
    answers = fixed_answers(math.nan)
    entropy = torch.where(answers.mask, 1.5, math.nan)
    found = means(online.grpo_measures(answers, grpo_spec("dapo", beta=BETA), entropy))
    every = [(ratio(i, t), ADVANTAGES[i]) for i in ROWS for t in range(LENGTHS[i])]
    assert found == pytest.approx(
        {
            "clip_ratio/low_mean": sum(w < 1 - LOW and a < 0 for w, a in every) / TOKENS,
            "clip_ratio/high_mean": sum(w > 1 + HIGH and a > 0 for w, a in every) / TOKENS,
            "kl": sum(kl("k3", i, t) for i in ROWS for t in range(LENGTHS[i])) / TOKENS,
            "entropy": 1.5,
        }
    )
    assert 0 < found["clip_ratio/low_mean"] < found["clip_ratio/high_mean"]


def test_measures_of_answers() -> None:
    """Where a ratio is the answer's, it counts once; one that is not trained on, not at all."""
    answers = fixed_answers()
    mask = answers.mask.clone()
    mask[3] = False
    left = Answers(answers.policy, answers.old, mask, answers.advantages)
    spec = grpo_spec("grpo", importanceSampling="sequence", epsilon=0.1)
    found = means(online.grpo_measures(left, spec))
    shares = [(ratio(i, 0, "sequence"), ADVANTAGES[i]) for i in range(3)]
    assert found["clip_ratio/low_mean"] == pytest.approx(sum(w < 0.9 and a < 0 for w, a in shares) / 3) != 0
    found = means(online.rloo_measures(left, rloo_spec()))
    totals = [(math.exp(sum(POLICY[i]) - sum(OLD[i])), ADVANTAGES[i]) for i in range(3)]
    assert found["clip_ratio/low_mean"] == pytest.approx(sum(w < 1 - LOW and a < 0 for w, a in totals) / 3) != 0


def test_what_counts_as_clipped_is_the_losses_own() -> None:
    """Of cispo, weights that are cut, whatever the advantage; sapo clips nothing."""
    found = means(online.grpo_measures(fixed_answers(), grpo_spec("cispo")))
    high = sum(ratio(i, t) > 1 + HIGH for i in ROWS for t in range(LENGTHS[i]))
    assert found == {"clip_ratio/high_mean": pytest.approx(high / TOKENS)}
    assert online.grpo_measures(fixed_answers(), grpo_spec("sapo")) == {}


def test_entropy_and_divergence_of_answers() -> None:
    """Against sums over tokens and over what could be drawn."""
    logits = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]]
    chances = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits]
    expected = [-sum(p * math.log(p) for p in row) for row in chances]
    assert online.entropies(torch.tensor(logits, dtype=torch.float64)).tolist() == pytest.approx(expected)
    answers = fixed_answers(math.nan)
    found = online.answer_divergence(answers.old, answers.reference, answers.mask)
    assert found.tolist() == pytest.approx([sum(OLD[i]) - sum(REFERENCE[i]) for i in ROWS])


# Against TRL ------------------------------------------------------------------------------------------------------


def accelerator() -> SimpleNamespace:
    """One process."""

    def same(values: Any, **_options: Any) -> Any:
        return values

    device = torch.device("cpu")
    return SimpleNamespace(
        device=device, num_processes=1, process_index=0, gather=same, gather_for_metrics=same, reduce=same
    )


def peer(per_token: dict[Any, Any], **fields: Any) -> SimpleNamespace:
    """What a trainer of TRL asks itself for; `per_token` has log-probabilities by the model that is asked."""

    def answers_of(model: Any, *_args: Any, **_options: Any) -> tuple[Any, Any, None]:
        tokens = per_token[model if isinstance(model, str) else "policy"]
        return tokens, torch.zeros_like(tokens), None

    model = torch.nn.Linear(1, 1)
    model.is_gradient_checkpointing = False
    return SimpleNamespace(
        model=model, accelerator=accelerator(), aux_loss_enabled=False, beta=BETA, epsilon_low=LOW, epsilon_high=HIGH,
        _get_per_token_logps_and_entropies=answers_of, _metrics=defaultdict(lambda: defaultdict(list)), **fields,
    )  # fmt: skip


def trl_inputs(answers: Answers) -> dict[str, Any]:
    """A batch of its own: the prompts are one token each."""
    mask = answers.mask.long()
    one = torch.ones(4, 1, dtype=torch.long)
    return {"prompt_ids": one, "prompt_mask": one, "completion_ids": mask, "completion_mask": mask,
            "advantages": answers.advantages, "num_items_in_batch": mask.sum().double()}  # fmt: skip


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize(("loss", "level"), FORMS)
def test_each_loss_of_grpo_is_trls(loss: str, level: str, beta: float, *, corrected: bool) -> None:
    """Its trainer's own function on one micro batch: value, gradients and measures.

    Its epsilon_high is cispo's bound itself; ours, and the paper's, is how far above 1 that is.
    """
    from trl import GRPOTrainer

    ours, theirs = fixed_answers(), fixed_answers()
    trainer = peer(
        {"policy": theirs.policy}, loss_type=loss, importance_sampling_level=level, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, use_vllm=corrected, vllm_importance_sampling_correction=corrected,
        current_gradient_accumulation_steps=1, max_completion_length=MOST, _entropy_bonus_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, sapo_temperature_pos=WARM,
                             sapo_temperature_neg=WARM_NEGATIVE, steps_per_generation=1),
    )  # fmt: skip
    trainer.beta = beta
    if loss == "cispo":
        trainer.epsilon_high = 1 + HIGH
    extra = {"old_per_token_logps": theirs.old, "ref_per_token_logps": theirs.reference}
    factor = fixed_factor() if corrected else None
    inputs = {**trl_inputs(theirs), **extra, "importance_sampling_ratio": factor}
    expected = GRPOTrainer._compute_loss(trainer, None, inputs)
    expected.backward()
    spec = grpo_spec(loss, beta=beta, importanceSampling=level)
    found = online.grpo(ours, spec, most_tokens=MOST, factor=factor)
    (found.rows.sum() / 4 + found.tokens.sum() / TOKENS).backward()
    # Its temperatures of sapo are in fp32.
    close = 1e-6 if loss == "sapo" else 1e-12
    assert value(found) == pytest.approx(expected.item(), rel=close)
    assert ours.policy.grad.allclose(theirs.policy.grad, rtol=close, atol=0)
    logged = trainer._metrics["train"]
    measured = means(online.grpo_measures(ours, spec))
    for name in measured.keys() & logged.keys():
        assert measured[name] == pytest.approx(logged[name][0], rel=1e-6)
    assert loss in ("cispo", "sapo") or "clip_ratio/low_mean" in measured.keys() & logged.keys()


def test_rloo_is_trls() -> None:
    """Its trainer's own function: value, gradients and measures."""
    from trl import RLOOTrainer

    ours, theirs = fixed_answers(), fixed_answers()
    trainer = peer({"policy": theirs.policy})
    old = torch.where(theirs.mask, theirs.old, 0.0).sum(1)
    expected = RLOOTrainer._compute_loss(trainer, None, {**trl_inputs(theirs), "old_logps": old})
    expected.backward()
    found = online.rloo(ours, rloo_spec())
    (found.rows.sum() / 4).backward()
    assert value(found) == pytest.approx(expected.item(), rel=1e-12)
    assert ours.policy.grad.allclose(theirs.policy.grad, rtol=1e-12, atol=0)
    for name, measured in means(online.rloo_measures(ours, rloo_spec())).items():
        assert measured == pytest.approx(trainer._metrics["train"][name][0], rel=1e-6)


def rewarding(rewards: list[float], **fields: Any) -> SimpleNamespace:
    """A trainer of TRL that has drawn one token after each of twelve prompts, and knows their rewards."""
    drawn = len(rewards)
    tokens = {"policy": -torch.ones(drawn, 1, dtype=torch.float64)}
    tokens["reference"] = tokens["policy"] - torch.tensor(KLS, dtype=torch.float64)[:, None]
    table = torch.tensor(rewards, dtype=torch.float64)[:, None]
    return peer(
        tokens, ref_model="reference", num_generations=SIZE, num_iterations=1, use_vllm=False, tools=None,
        environment_factories=None, environments=None, pad_to_multiple_of=None, mask_truncated_completions=False,
        _tokenizer=SimpleNamespace(pad_token_id=0), _calculate_rewards=lambda *_args: table,
        reward_weights=torch.ones(1), reward_func_names=["own"], reward_funcs=[None], reward_clip_range=None,
        multi_objective_aggregation="sum_then_normalize", log_multimodal=False, _pending_extra_logs={},
        _pending_metrics={}, _logs=defaultdict(lambda: defaultdict(list)) | {
            name: [] for name in ("prompt", "completion", "advantages")
        },
        args=SimpleNamespace(per_device_train_batch_size=drawn, gradient_checkpointing_kwargs=None,
                             gradient_accumulation_steps=1, steps_per_generation=1), **fields,
    )  # fmt: skip


PROMPTS = [{"prompt": "a"}] * len(REWARDS)
# Its deviations have a factor in fp32.
ADVANTAGE_PRECISION = 1e-6


@pytest.mark.parametrize("rewards", [REWARDS, UNJUDGED], ids=["all judged", "some not"])
@pytest.mark.parametrize("scale", SCALES)
def test_advantages_of_grpo_are_trls(scale: Any, rewards: list[float]) -> None:
    """Its trainer's own function, on answers that were drawn before."""
    from trl import GRPOTrainer

    ids, texts = [[1]] * len(rewards), ["b"] * len(rewards)
    drawn = (ids, ids, None, texts, None, {}, None, None)
    trainer = rewarding(rewards, scale_rewards=scale, _generate=lambda _prompts: drawn)
    expected = GRPOTrainer._generate_and_score_completions(trainer, PROMPTS)["advantages"]
    found = online.group_advantages(torch.tensor(rewards, dtype=torch.float64), size=SIZE, scale=scale)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=ADVANTAGE_PRECISION)


@pytest.mark.parametrize("rewards", [REWARDS, UNJUDGED], ids=["all judged", "some not"])
@pytest.mark.parametrize("normalize", [False, True])
def test_advantages_of_rloo_are_trls(rewards: list[float], *, normalize: bool) -> None:
    """The same of its other trainer, which takes the divergence off the rewards."""
    from trl import RLOOTrainer

    ids, texts = [[1]] * len(rewards), ["b"] * len(rewards)
    trainer = rewarding(rewards, normalize_advantages=normalize, _generate=lambda _prompts: (ids, ids, texts))
    expected = RLOOTrainer._generate_and_score_completions(trainer, PROMPTS)["advantages"]
    given_rewards, kls = (torch.tensor(each, dtype=torch.float64) for each in (rewards, KLS))
    found = online.rloo_advantages(given_rewards, kls, beta=BETA, size=SIZE, normalize=normalize)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=ADVANTAGE_PRECISION)
