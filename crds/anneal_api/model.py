"""`spec.model` and `spec.adapter`: what is trained, and which part of it."""

from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from anneal_api.base import Block, Rule, ShortText, bounded
from anneal_api.sources import CLUSTER_SOURCE, CLUSTER_SOURCE_MESSAGE, SourceText

# A backslash in a CEL string literal is doubled; the pattern has `\.`-free classes only, so it goes in as it is.
CLUSTER_SOURCE_RULE = Rule(
    cel=f"self.source.matches('{CLUSTER_SOURCE}')",
    message=CLUSTER_SOURCE_MESSAGE,
    field="source",
)


class ModelSource(NamedTuple):
    """Where one model of a job comes from, and the field that says so."""

    field: str
    source: str
    revision: str

    def __str__(self) -> str:
        """As messages name it."""
        return f"{self.field} {self.source}"


class ModelSpec(Block):
    """The base model, its tokenizer and how its weights are held while training."""

    source: SourceText = Field(
        description="Where the model is: hf://ORG/NAME, volume://CLAIM/PATH (a directory with config.json), job://finetunejob/NAME or job://rlhfjob/NAME (what another job of the namespace made, waited for; an adapter is merged into its base first), or for `anneal run` a local path. Tokenizer and weights come from here."
    )
    revision: ShortText = Field(
        default="main",
        description="Branch, tag or commit of an hf:// model. Fetched once per revision into the job's storage.",
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        default="none",
        description="How the frozen base weights are held: none keeps `training.precision`; nf4 (4-bit, double quantization: QLoRA, arXiv 2305.14314) and int8 (LLM.int8(), arXiv 2208.07339) need an adapter.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto",
        description="The attention implementation; auto takes flash_attention_2 where it is installed and the GPU has it, else sdpa.",
    )
    chat_template: str = Field(
        default="auto",
        min_length=1,
        max_length=32768,
        description="How messages become text: auto is the tokenizer's own template; or the name of a built-in one, as in the chatTemplate of a datasets entry; or Jinja text.",
    )
    add_special_tokens: list[ShortText] = bounded(
        "Tokens added to the vocabulary as special tokens; their embeddings are trained, also under LoRA.", most=64
    )

    rules: ClassVar[tuple[Rule, ...]] = (CLUSTER_SOURCE_RULE,)


class AdapterSpec(Block):
    """A low-rank adapter (LoRA, arXiv 2106.09685). Absent: every weight is trained."""

    type: Literal["lora"] = Field(default="lora", description="The kind of adapter.")
    r: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Rank of the update. 16 learns most instruction sets; more for much new knowledge.",
    )
    alpha: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="The update is scaled by alpha/r. Default: 2r, the common choice that keeps the learning rate of rank 16 usable.",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Dropout on the adapter's input; 0 unless the data is small and seen many times.",
    )
    target_modules: list[ShortText] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Module names that get an adapter, or [all-linear]: every linear layer but the output head (as in QLoRA, section 4).",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!('all-linear' in self.targetModules) || self.targetModules.size() == 1",
            message="all-linear already names every linear layer: write [all-linear] alone, or only module names",
            holds=lambda a: "all-linear" not in a.target_modules or len(a.target_modules) == 1,
            field="targetModules",
        ),
    )
