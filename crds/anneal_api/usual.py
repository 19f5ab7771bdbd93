"""Values that are allowed and unusual, or do nothing: what `anneal validate` notes and refuses nobody.

The ranges are those in which the methods' papers and their users report good results; outside of them a run seldom
fails, it just learns nothing, or forgets. Not here: what cannot work at all (the rules of each block).
"""

from collections.abc import Iterator
from typing import Any, Final

from anneal_api.job import JobSpec
from anneal_api.online import ONLINE, GrpoSpec
from anneal_api.online_rules import block_of, most_tokens
from anneal_api.practice import ADAPTER_FACTOR, PRACTICE
from anneal_api.preparation import PreparationSpec
from anneal_api.problems import Problem
from anneal_api.resolve import resolve
from anneal_api.rollout import RolloutSpec

# Path in the resolved spec -> lowest and highest usual value, for each method.
_RANGES: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "dpo": {"dpo.beta": (0.01, 1.0)},
    "ipo": {"ipo.beta": (0.01, 1.0)},
    "kto": {"kto.beta": (0.01, 1.0)},
    "orpo": {"orpo.beta": (0.05, 0.5)},
    "simpo": {"simpo.beta": (1.0, 10.0)},
    "cpo": {"cpo.beta": (0.01, 1.0)},
    "reward": {"reward.centerCoefficient": (0.0, 0.1)},
    "grpo": {"grpo.beta": (0.0, 0.1), "grpo.numGenerations": (4, 64), "sampling.temperature": (0.6, 1.2)},
    "rloo": {"rloo.beta": (0.0, 0.2), "rloo.numGenerations": (2, 16), "sampling.temperature": (0.6, 1.2)},
}
# Of the default learning rate: a tenth to ten times is what people use.
_RATE_FACTOR: Final = 10.0
# Of bounds that are computed.
_ROUNDING: Final = 1e-9
_EPOCHS: Final = 3.0
_LARGEST_GAMMA_SHARE: Final = 1.0


def unusual(spec: JobSpec) -> list[Problem]:
    """What a person may have meant otherwise, with the usual values."""
    return [
        *_idle(spec),
        *_idle_online(spec),
        *_idle_rollout(spec),
        *_drawn_once(spec),
        *_idle_rewards(spec),
        *_unusual(resolve(spec).dump(), spec.method, adapter=spec.adapter is not None),
    ]


def _idle(spec: JobSpec) -> Iterator[Problem]:
    """Options of `preparation` that are set and cannot act, as far as they can be told from their defaults."""
    given, default = spec.preparation, PreparationSpec()
    if given.similarity != default.similarity and given.duplicates != "dropNear":
        yield Problem("spec.preparation.similarity", "does nothing without duplicates: dropNear")
    if given.max_bad_rows != default.max_bad_rows and given.on_bad_row == "fail":
        yield Problem("spec.preparation.maxBadRows", "does nothing without onBadRow: drop; one bad row ends the job")
    if given.sampling != default.sampling and all(dataset.weight is None for dataset in spec.datasets):
        yield Problem("spec.preparation.sampling", "does nothing without datasets[].weight: every row is used once")


def _idle_rewards(spec: JobSpec) -> Iterator[Problem]:
    """Lengths that every answer has."""
    for index, reward in enumerate(getattr(spec, "rewards", ())):
        longest = most_tokens(spec)
        if reward.length and not reward.length.least and reward.length.most >= longest:
            words = f"every answer is good: it has sampling.maxTokens ({longest}) tokens at most"
            yield Problem(f"spec.rewards[{index}].length.most", words)


def _idle_online(spec: JobSpec) -> Iterator[Problem]:
    """Options of grpo that are set and cannot act."""
    block = getattr(spec, "grpo", None)
    if block is None:
        return
    default = GrpoSpec()
    if block.kl_estimator != default.kl_estimator and block.beta == 0:
        yield Problem("spec.grpo.klEstimator", "does nothing while beta is 0")
    soft = block.sapo_temperature, block.sapo_temperature_negative
    if soft != (default.sapo_temperature, default.sapo_temperature_negative) and block.loss != "sapo":
        yield Problem("spec.grpo.sapoTemperature", "does nothing without loss: sapo")
    if block.loss == "cispo" and block.epsilon_high is None:
        yield Problem("spec.grpo.epsilonHigh", "0.2 (epsilon) is unusual for loss cispo: 4 is common")


def _idle_rollout(spec: JobSpec) -> Iterator[Problem]:
    """What is told of servers where the trainer draws by itself."""
    rollout = getattr(spec, "rollout", None)
    if rollout is None or rollout.mode != "generate":
        return
    default = RolloutSpec(mode="generate")
    for name, info in RolloutSpec.model_fields.items():
        if getattr(rollout, name) != getattr(default, name):
            yield Problem(f"spec.rollout.{info.alias}", "does nothing with mode: generate, which has no servers")


def _drawn_once(spec: JobSpec) -> Iterator[Problem]:
    """Runs that end before the answers, or the weights that draw them, are made anew."""
    steps, rollout = spec.training.max_steps, getattr(spec, "rollout", None)
    if steps is None or not spec.is_online:
        return
    iterations = block_of(spec).iterations
    last_draw = (steps - 1) // iterations * iterations
    if iterations > 1 and last_draw == 0:
        words = f"{iterations} is no less than training.maxSteps ({steps}): answers are drawn once, and all steps are over them"
        yield Problem(f"spec.{spec.method}.iterations", words)
    if rollout and rollout.mode != "generate" and rollout.max_staleness >= last_draw > 0:
        words = (
            f"{rollout.max_staleness} reaches the last draw (before step {last_draw + 1} of {steps}): all answers but those "
            "of evaluations are drawn from the model as it was, and what is learnt is never handed over"
        )
        yield Problem("spec.rollout.maxStaleness", words)


def _unusual(spec: dict[str, Any], method: str, *, adapter: bool) -> Iterator[Problem]:
    usual = PRACTICE[method].learning_rate * (ADAPTER_FACTOR if adapter else 1)
    rate = usual / _RATE_FACTOR, usual * _RATE_FACTOR
    ranges = {**_RANGES.get(method, {}), "training.learningRate": rate}
    for path, (low, high) in ranges.items():
        block, _, field = path.partition(".")
        value = spec[block][field]
        if not low * (1 - _ROUNDING) <= value <= high * (1 + _ROUNDING):
            yield Problem(f"spec.{path}", f"{value:g} is unusual for {method}: {low:g} to {high:g} is common")
    epochs = spec["training"].get("epochs")
    if epochs and epochs > _EPOCHS and method not in ("sft", "pretrain", *ONLINE):
        yield Problem(
            "spec.training.epochs", f"{epochs:g} is unusual for {method}: one to three passes; more of them overfit"
        )
    if method == "simpo" and spec["simpo"]["gamma"] > _LARGEST_GAMMA_SHARE * spec["simpo"]["beta"]:
        yield Problem("spec.simpo.gamma", f"{spec['simpo']['gamma']:g} is more than beta: 0.3 to 0.5 of beta is common")
