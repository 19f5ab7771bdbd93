"""The `RLHFJob` kind: alignment of a model with judgements: reward models, preferences, and rewards of drawn answers.

The same blocks as a `FineTuneJob` (`job`), with a method of its own, at most one block for it (`methods`), and rows of
alignment. Not here: the blocks of methods that generate while they train (`online`) and their rules (`online_rules`).
"""

from typing import ClassVar, Final, Literal

from pydantic import Field

from anneal_api.alignment import ALIGNMENT_READS, AlignmentRows, Family
from anneal_api.base import Block, Rule, bounded
from anneal_api.datasource import DataSource
from anneal_api.evaluation import EvaluationBase
from anneal_api.job import PRINTER_COLUMNS as _COMMON_COLUMNS
from anneal_api.job import WEIGHTS, Job, JobSpec, immutable
from anneal_api.methods import CpoSpec, DpoSpec, IpoSpec, KtoSpec, OrpoSpec, ReferenceSpec, RewardSpec, SimpoSpec
from anneal_api.model import ModelSource
from anneal_api.online import ONLINE, GrpoSpec, RewardSource, RlooSpec, SamplingSpec
from anneal_api.online_rules import MOST_REWARDS, ONLINE_RULES, block_of
from anneal_api.rollout import RolloutSpec

__all__ = ["KIND", "PLURAL", "PRINTER_COLUMNS", "SHORT_NAMES", "SINGULAR", "RLHFJob", "RLHFSpec"]

KIND: Final = "RLHFJob"
PLURAL = "rlhfjobs"
SINGULAR = "rlhfjob"
SHORT_NAMES = ("rlhf",)
_REWARD_COLUMN: Final = {"name": "Reward", "type": "string", "jsonPath": ".status.progress.rewardText"}
_BEFORE: Final = [column["name"] for column in _COMMON_COLUMNS].index("Loss") + 1
_SERVERS_COLUMN: Final = {"name": "Servers", "type": "string", "jsonPath": ".status.rollout.readyText", "priority": 1}
PRINTER_COLUMNS: Final = (*_COMMON_COLUMNS[:_BEFORE], _REWARD_COLUMN, *_COMMON_COLUMNS[_BEFORE:], _SERVERS_COLUMN)

Method = Literal["reward", "prm", "dpo", "ipo", "kto", "orpo", "simpo", "cpo", "grpo", "rloo"]
# The rows that each method reads; a type that several of them know is read as the first one does.
FAMILIES: dict[str, tuple[Family, ...]] = {
    "reward": ("reward", "preference"),
    "prm": ("stepwise",),
    "kto": ("unpaired", "preference"),
    **dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "cpo"), ("preference",)),
    **dict.fromkeys(ONLINE, ("prompt",)),
}
BLOCKS: Final[dict[str, type[Block]]] = {
    "reward": RewardSpec,
    "dpo": DpoSpec,
    "ipo": IpoSpec,
    "kto": KtoSpec,
    "orpo": OrpoSpec,
    "simpo": SimpoSpec,
    "cpo": CpoSpec,
    "grpo": GrpoSpec,
    "rloo": RlooSpec,
}
# What comes of them judges texts and writes none.
SCORING: Final = ("reward", "prm")
# Their losses compare with a reference model; those of online methods do where their beta is not 0.
REFERRING: Final = ("dpo", "ipo", "kto")
_MAY_REFER: Final = (*REFERRING, *ONLINE)


class AlignmentSpec(DataSource, AlignmentRows):
    """One source of rows for alignment."""

    rules: ClassVar[tuple[Rule, ...]] = (*DataSource.rules, *AlignmentRows.rules)


class AlignmentEvaluation(EvaluationBase):
    """How progress is judged beside the training loss."""

    datasets: list[AlignmentSpec] = bounded(
        "Sources of rows to measure on, instead of a holdout; treated as the training rows are.", most=16
    )


def types_of(method: str) -> list[str]:
    """The types that a method reads."""
    return list(dict.fromkeys(kind for family in FAMILIES[method] for kind in ALIGNMENT_READS[family]))


def family_of(method: str, kind: str) -> Family:
    """How a method reads a type: as the first of its families that knows it."""
    return next(family for family in FAMILIES[method] if kind in ALIGNMENT_READS[family])


def _known_types() -> tuple[Rule, ...]:
    """A rule for each set of types, so that its message lists what is accepted."""
    by_types: dict[tuple[str, ...], list[str]] = {}
    for method in FAMILIES:
        by_types.setdefault(tuple(types_of(method)), []).append(method)
    return tuple(_known(methods, types) for types, methods in by_types.items())


def _known(methods: list[str], types: tuple[str, ...]) -> Rule:
    return Rule(
        cel=f"!(self.method in {methods}) || self.datasets.all(d, !has(d.type) || d.type in {list(types)})",
        message=f"the types that {', '.join(methods)} read: {', '.join(types)}",
        holds=lambda spec: spec.method not in methods or all(d.type in (None, *types) for d in spec.datasets),
        field="datasets",
    )


def _own_block(name: str) -> Rule:
    return Rule(
        cel=f"!has(self.{name}) || self.method == '{name}'",
        message=f"this block is for method: {name}"
        + ("; what judges answers of grpo and rloo is rewards" if name == "reward" else ""),
        holds=lambda spec: getattr(spec, name) is None or spec.method == name,
        field=name,
    )


class RLHFSpec(JobSpec):
    """What to align, on which judgements, and how. The smallest useful spec is a model, a method and a data set."""

    method: Method = Field(
        description="reward: a model that scores answers. prm: one that judges steps. dpo, ipo, orpo, simpo, cpo: learn from pairs of answers. kto: from answers that are judged one by one. grpo, rloo: from rewards of answers that the model itself draws while it is trained.",
    )
    datasets: list[AlignmentSpec] = Field(
        min_length=1,
        max_length=64,
        description="The training data; the rows of all sources are concatenated, or mixed by their weights, and shuffled by seed.",
    )
    evaluation: AlignmentEvaluation | None = Field(
        default=None, description="Held-out loss, accuracy and margins, and sample answers. Absent: neither."
    )
    reference: ReferenceSpec = Field(
        default_factory=ReferenceSpec,
        description="The reference model of dpo, ipo and kto, and of grpo and rloo with a beta.",
    )
    reward: RewardSpec | None = Field(default=None, description="Options of method reward.")
    dpo: DpoSpec | None = Field(default=None, description="Options of method dpo.")
    ipo: IpoSpec | None = Field(default=None, description="Options of method ipo.")
    kto: KtoSpec | None = Field(default=None, description="Options of method kto.")
    orpo: OrpoSpec | None = Field(default=None, description="Options of method orpo.")
    simpo: SimpoSpec | None = Field(default=None, description="Options of method simpo.")
    cpo: CpoSpec | None = Field(default=None, description="Options of method cpo.")
    grpo: GrpoSpec | None = Field(default=None, description="Options of method grpo.")
    rloo: RlooSpec | None = Field(default=None, description="Options of method rloo.")
    sampling: SamplingSpec | None = Field(default=None, description="grpo, rloo: how answers are drawn.")
    rollout: RolloutSpec | None = Field(
        default=None, description="grpo, rloo: where they are drawn. Default: by one vLLM server."
    )
    rewards: list[RewardSource] = bounded(
        "grpo, rloo: what answers are judged by; their weighted sum is learnt from.", most=MOST_REWARDS
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        *map(_own_block, BLOCKS),
        *_known_types(),
        Rule(
            cel=f"self.method in {list(_MAY_REFER)} || !(has(self.reference.source) || self.reference.precompute)",
            message="reward, prm, orpo, simpo and cpo compare with no reference model: remove reference",
            holds=lambda s: s.method in _MAY_REFER or not (s.reference.source or s.reference.precompute),
            field="reference",
        ),
        Rule(
            cel="!has(self.training.packing) || !self.training.packing",
            message="answers are compared apart, so rows share no sequence: remove packing (with FlashAttention no time goes into padding anyway)",
            holds=lambda s: not s.training.packing,
            field="training.packing",
        ),
        Rule(
            cel=f"!(self.method in {list(SCORING)}) || !has(self.evaluation) || !has(self.evaluation.samples) || self.evaluation.samples.size() == 0",
            message="reward and prm train models that judge and do not answer: remove evaluation.samples",
            holds=lambda s: s.method not in SCORING or not (s.evaluation and s.evaluation.samples),
            field="evaluation.samples",
        ),
        *ONLINE_RULES,
        WEIGHTS,
        *JobSpec.rules,
    )

    @property
    def models(self) -> list[ModelSource]:
        """The model, and the reference if the spec names one."""
        named, reference = super().models, self.reference
        if reference.source is None:
            return named
        return [*named, ModelSource("reference.source", reference.source, reference.revision)]

    @property
    def judges(self) -> list[ModelSource]:
        """The reward models."""
        return [
            ModelSource(f"rewards[{index}].model.source", reward.model.source, reward.model.revision)
            for index, reward in enumerate(self.rewards)
            if reward.model is not None
        ]

    @property
    def reward_config_maps(self) -> list[str]:
        """ConfigMaps with functions that judge answers, sorted."""
        functions = [reward.function for reward in self.rewards if reward.function]
        return sorted({function.config_map for function in functions if function.config_map})

    @property
    def is_online(self) -> bool:
        """Whether answers are drawn while training."""
        return self.method in ONLINE

    @property
    def refers(self) -> bool:
        """Whether the loss compares with a reference."""
        return block_of(self).beta > 0 if self.is_online else self.method in REFERRING

    @property
    def group(self) -> int:
        """Rows of a step that belong together: the answers to one prompt."""
        return block_of(self).num_generations if self.is_online else 1

    @property
    def family(self) -> Family:
        """The rows of the first family: what the prepared data of the method is made of."""
        return FAMILIES[self.method][0]


class RLHFJob(Job):
    """Align a language model with judgements: prepare the data on CPUs, train on GPUs, keep the result."""

    kind: Literal["RLHFJob"] = Field(default=KIND)
    spec: RLHFSpec = Field(description="What is wanted.")

    rules: ClassVar[tuple[Rule, ...]] = immutable(RLHFSpec)
