"""The blocks of methods that generate while they train: sampling, rewards, and what GRPO and RLOO can be told.

Not here: where answers are generated (the operator's side of `rollout`), the formulas (the trainer's `online_losses`),
and the rewards themselves (`anneal_trainer.rewards`).
"""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from anneal_api.base import (
    HTTP_ADDRESS,
    IDENTIFIER,
    MODULE_FILE,
    Block,
    LabelName,
    ObjectName,
    Rule,
    ShortText,
    bounded,
)
from anneal_api.model import CLUSTER_SOURCE_RULE
from anneal_api.rewardtexts import LanguageCode, PatternText, SchemaText
from anneal_api.sources import SourceText

ONLINE: Final = ("grpo", "rloo")
OnError = Literal["fail", "zero", "skip"]
GrpoLoss = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo"]
# Losses whose term is an answer's as a whole: a ratio of whole answers says nothing to the others.
OF_SEQUENCES: Final = ("grpo", "sapo")
ColumnName = ShortText
HttpUrl = Annotated[str, StringConstraints(pattern=HTTP_ADDRESS, max_length=1024)]


class SamplingSpec(Block):
    """How answers are drawn from the model."""

    max_tokens: int = Field(
        default=256, ge=1, le=131_072, description="The most tokens of an answer; a longer one is cut off there."
    )
    temperature: float = Field(
        default=1.0, gt=0, le=10, description="1 draws from the model as it is, which the methods assume."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Only the most likely tokens that make up this share.")
    top_k: int = Field(default=0, ge=0, le=1_000_000, description="Only so many of the most likely tokens; 0: all.")
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Only tokens that are this likely, of the likelihood of the most likely one.",
    )
    stop: list[ShortText] = bounded("Texts that end an answer, beside the end of a turn.", most=8)


class GrpoSpec(Block):
    """Group relative policy optimization (arXiv 2402.03300) and what descends from it."""

    num_generations: int = Field(
        default=8, ge=2, le=256, description="Answers a prompt, which are compared with each other: the group."
    )
    loss: GrpoLoss = Field(
        default="dapo",
        description="How the terms of tokens are averaged: grpo (a mean an answer, then over answers), dapo (over all tokens of the step, arXiv 2503.14476; bnpo is the same, as a step's batch here is the whole one), dr_grpo (over the most tokens that there could be, 2503.20783); cispo (2506.13585) clips the weight instead of the term, sapo (2511.20347) does it softly.",
    )
    beta: float = Field(
        default=0.0, ge=0, le=1000, description="Weight of the KL divergence from the reference; 0 needs no reference."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        default="k3", description="Of the KL divergence (Schulman, Approximating KL Divergence): k3 is what GRPO takes."
    )
    epsilon: float = Field(default=0.2, gt=0, le=10, description="How far the ratio may fall below 1 before it is cut.")
    epsilon_high: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="How far it may rise above 1. Default: epsilon; DAPO takes 0.28 (section 3.1); the bound is 1 + epsilonHigh, so cispo with a bound of 5 is 4.",
    )
    importance_sampling: Literal["token", "sequence"] = Field(
        default="token",
        description="Of what the ratio is: of each token, or of the whole answer (GSPO, 2507.18071; with loss grpo or sapo).",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="What a reward's distance from its group's mean is divided by: the group's standard deviation, that of the whole batch (2508.08221), or nothing (Dr. GRPO).",
    )
    iterations: int = Field(
        default=1, ge=1, le=64, description="Optimizer steps over each batch of answers (the paper's mu)."
    )
    mask_truncated: bool = Field(
        default=False, description="Answers that were cut off are not trained on (DAPO, section 3.4)."
    )
    skip_equal_groups: bool = Field(
        default=False,
        description="Groups whose answers all have one reward, which teach nothing, are left out of averages (DAPO, section 3.2).",
    )
    sapo_temperature: float = Field(default=1.0, gt=0, le=100, description="sapo: of tokens with a positive advantage.")
    sapo_temperature_negative: float = Field(default=1.05, gt=0, le=100, description="sapo: of the others.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.importanceSampling == 'token' || self.loss in {list(OF_SEQUENCES)}",
            message="importanceSampling: sequence goes with loss: grpo (which is GSPO) or sapo",
            holds=lambda g: g.importance_sampling == "token" or g.loss in OF_SEQUENCES,
            field="importanceSampling",
        ),
    )


class RlooSpec(Block):
    """REINFORCE with leave-one-out baselines (arXiv 2402.14740)."""

    num_generations: int = Field(
        default=4, ge=2, le=256, description="Answers a prompt; the others of a group are an answer's baseline."
    )
    beta: float = Field(
        default=0.05,
        ge=0,
        le=1000,
        description="Weight of the KL divergence, which is taken off the reward (equation 3); 0 needs no reference.",
    )
    epsilon: float = Field(default=0.2, gt=0, le=10, description="As of grpo, of the ratio of the whole answer.")
    epsilon_high: float | None = Field(default=None, gt=0, le=1000, description="Default: epsilon.")
    normalize_advantages: bool = Field(
        default=False, description="Advantages of a batch are given mean 0 and standard deviation 1."
    )
    iterations: int = Field(default=1, ge=1, le=64, description="Optimizer steps over each batch of answers.")
    mask_truncated: bool = Field(default=False, description="Answers that were cut off are not trained on.")


class MatchReward(Block):
    """1 where the answer is the expected one, else 0."""

    column: ColumnName = Field(
        default="answer", description="The data's column with the expected answer; null in a row: not judged by this."
    )
    how: Literal["exact", "math", "contains"] = Field(
        default="exact",
        description="exact: the same text, but for white space around it; math: the same number or expression, found where answers are given (\\boxed{}, after ####, or last); contains: anywhere in the answer.",
    )
    ignore_case: bool = Field(default=False, description="exact, contains: A is a.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.how) && self.how == 'math' && has(self.ignoreCase) && self.ignoreCase)",
            message="ignoreCase is for exact and contains, and does nothing with math: remove it",
            holds=lambda m: not (m.how == "math" and m.ignore_case),
            field="ignoreCase",
        ),
    )


class PatternReward(Block):
    """1 where a regular expression matches, else 0."""

    pattern: PatternText = Field(
        description="As Python's re has it; the dot matches line ends too. White space around the answer is left out."
    )
    whole: bool = Field(default=True, description="The whole answer must match, not only a part.")


class SchemaReward(Block):
    """1 where the answer is JSON that a schema accepts, 0.5 where it is other JSON, else 0."""

    json_schema: SchemaText | None = Field(default=None, description="The schema, as JSON text.")
    column: ColumnName | None = Field(
        default=None, description="The data's column with the schema of each row, instead; null: not judged by this."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.jsonSchema) != has(self.column)",
            message="write the schema as jsonSchema, or the column that has it",
            holds=lambda s: (s.json_schema is None) != (s.column is None),
        ),
        Rule(
            cel="!has(self.jsonSchema) || self.jsonSchema.matches('^[ \\t\\r\\n]*([{]|true|false)')",
            message='jsonSchema is the schema itself, as JSON text: {"type": "object"}',
            holds=lambda s: s.json_schema is None or re.match(r"[ \t\r\n]*([{]|true|false)", s.json_schema) is not None,
            field="jsonSchema",
        ),
    )


_MOST_TOKENS: Final = 1_000_000


class LengthReward(Block):
    """1 for answers of so many tokens; less in proportion to 0, at no token and at twice the most."""

    least: int | None = Field(
        default=None, ge=0, le=_MOST_TOKENS, description="The fewest tokens that are good. Default: none."
    )
    most: int | None = Field(
        default=None, ge=1, le=_MOST_TOKENS, description="The most tokens that are good. Default: as many as there are."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.most) || (has(self.least) && self.least > 0)",
            message="without a bound every length is good: write least (1 or more), most, or both",
            holds=lambda reward: reward.most is not None or bool(reward.least),
        ),
        Rule(
            cel="!(has(self.least) && has(self.most)) || self.least <= self.most",
            message="no length is good: make least no more than most",
            holds=lambda reward: reward.most is None or (reward.least or 0) <= reward.most,
            field="least",
        ),
    )


class LanguageReward(Block):
    """1 where the answer is in a language, else 0; nothing where the text tells none, as a number or a name does not."""

    code: LanguageCode | None = Field(default=None, description="The language, as ISO 639-1 has it: en, de, zh.")
    column: ColumnName | None = Field(
        default=None, description="The column with the code instead; null in a row: not judged by this."
    )
    among: list[LanguageCode] = bounded(
        "The languages that are told apart, beside the one that is wanted; the fewer, the surer of short texts. Default: 42 that are widely written.",
        most=64,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.code) != has(self.column)",
            message="write the language as code, or the column that has it",
            holds=lambda reward: (reward.code is None) != (reward.column is None),
        ),
        Rule(
            cel="!has(self.code) || !has(self.among) || self.among.size() == 0 || self.among.exists(c, c != self.code)",
            message="nothing is told apart from one language alone: write another one, or leave among out",
            holds=lambda reward: reward.code is None or set(reward.among) != {reward.code},
            field="among",
        ),
    )


class FunctionReward(Block):
    """A Python function: fn(prompts, completions, **columns) -> list[float], plain or async.

    It runs in a process of its own, without GPUs. That is no sandbox: it has the job's files, environment and network.
    """

    config_map: ObjectName | None = Field(default=None, description="A ConfigMap of the namespace with the module.")
    file: str = Field(
        default="rewards.py",
        pattern=MODULE_FILE,
        max_length=256,
        description="The module: the ConfigMap's key; without one volume://-like PATH below the job's storage, or for `anneal run` a local file.",
    )
    name: str = Field(default="reward", pattern=IDENTIFIER, max_length=128, description="The function's name in it.")
    timeout_seconds: int = Field(default=60, ge=1, le=3600, description="The longest that a call may take.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.configMap) || !has(self.file) || !self.file.contains('/')",
            message="with configMap, file is one of its keys, which hold no '/'",
            holds=lambda reward: reward.config_map is None or "/" not in reward.file,
            field="file",
        ),
    )


class HttpReward(Block):
    """A server: POST {prompts, completions, columns} -> {"rewards": [...]}, a number an answer."""

    url: HttpUrl = Field(description="Where to. $(NAME) is an environment variable from `secrets`.")
    timeout_seconds: int = Field(default=60, ge=1, le=3600, description="The longest that a call may take.")
    retries: int = Field(
        default=3, ge=0, le=20, description="Tries after the first where it cannot be reached or says 429 or 5xx."
    )


class ModelReward(Block):
    """The score of a reward model, or of any sequence classifier with one label."""

    source: SourceText = Field(
        description="hf://, volume:// or job://rlhfjob/NAME (waited for), as model.source is written."
    )
    revision: ShortText = Field(default="main", description="Branch, tag or commit of an hf:// model.")

    rules: ClassVar[tuple[Rule, ...]] = (
        CLUSTER_SOURCE_RULE,
        Rule(
            cel="!self.source.startsWith('job://finetunejob/')",
            message="a FineTuneJob makes a model that answers, which scores no texts: write job://rlhfjob/NAME of a job of method: reward",
            holds=lambda model: not model.source.startswith("job://finetunejob/"),
            field="source",
        ),
    )


KINDS: Final = ("match", "pattern", "schema", "length", "language", "function", "http", "model")


class RewardSource(Block):
    """One thing that answers are judged by. The reward of an answer is the weighted sum of all."""

    name: LabelName = Field(description="What it is called in metrics: rewards/NAME.")
    weight: float = Field(default=1.0, ge=-1000, le=1000, description="Its weight in the sum.")
    on_error: OnError = Field(
        default="fail",
        description="What follows where it fails: it raises, takes too long, cannot be reached, or returns another number of values, None or NaN. fail: the job stops, and says why; zero: 0 for the answers concerned; skip: it says nothing of them. Either is counted in rewards/NAME/failures, but for None under skip: a function that judges some rows only.",
    )
    match: MatchReward | None = Field(default=None, description="The expected answer is in a column.")
    pattern: PatternReward | None = Field(default=None, description="A regular expression.")
    schema_: Annotated[SchemaReward | None, Field(alias="schema", description="JSON of a schema.")] = None
    length: LengthReward | None = Field(default=None, description="The number of tokens.")
    language: LanguageReward | None = Field(default=None, description="The language.")
    function: FunctionReward | None = Field(default=None, description="A Python function.")
    http: HttpReward | None = Field(default=None, description="A server that is asked.")
    model: ModelReward | None = Field(default=None, description="A reward model.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"[{', '.join(f'has(self.{kind})' for kind in KINDS)}].filter(x, x).size() == 1",
            message=f"write exactly one of {', '.join(KINDS[:-1])} and {KINDS[-1]}",
            holds=lambda r: sum(getattr(r, _attribute(kind)) is not None for kind in KINDS) == 1,
        ),
        Rule(
            cel="self.name != 'unjudged'",
            message="rewards/unjudged is a measure of its own: take another name",
            holds=lambda r: r.name != "unjudged",
            field="name",
        ),
    )

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in KINDS if getattr(self, _attribute(kind)) is not None)


def _attribute(kind: str) -> str:
    # pydantic's own `schema` is taken.
    return "schema_" if kind == "schema" else kind
