"""`spec.rollout`: where the answers of grpo and rloo are drawn, and how the weights get there.

Not here: how answers are drawn (`online.SamplingSpec`), rules that need the rest of a spec (`online_rules`), and the
server's command line (`vllm`).
"""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from anneal_api.base import ONE_WORD, Block, LabelName, Quantity, Rule, at_most_one, bounded
from anneal_api.compute import GpuType

Mode = Literal["server", "colocate", "generate"]
# Of vLLM: those that TRL 1.16 speaks with, and that know how to tell and load what is asked of them here.
OLDEST, NEWEST = (0, 22), (0, 31)
# vLLM's own list of what --max-lora-rank may be.
RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
# What Anneal itself sets, as it follows from the rest of the spec.
OWN_ARGUMENTS: Final = (
    "model",
    "host",
    "port",
    "served-model-name",
    "tensor-parallel-size",
    "tp",
    "max-model-len",
    "gpu-memory-utilization",
    "enable-lora",
    "max-loras",
    "max-cpu-loras",
    "max-lora-rank",
    "logprobs-mode",
    "max-logprobs",
    "weight-transfer-config",
    "api-key",
    "uds",
    "ssl-keyfile",
    "ssl-certfile",
)
_SUPPORTED = " to ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))
# As vLLM reads them: with underscores too, one dash before short names, and parts of JSON after a dot.
_OWN = rf"^--?(no[-_])?({'|'.join(name.replace('-', '[-_]') for name in OWN_ARGUMENTS)})([=. ].*)?$"
# A flag with its value in one word: `vllm serve` would look for a flag with a space in its name.
_TWO_WORDS = r"^--?[A-Za-z][A-Za-z0-9_.-]*[ \t]"
_TAG = "^.*:v?[0-9]+[.][0-9]+([.+-].*)?$"
_MINORS = "|".join(str(minor) for minor in range(OLDEST[1], NEWEST[1] + 1))
_KNOWN_TAG = f"^.*:v?0[.]({_MINORS})([.+-].*)?$"
# The fields that say what a server is like, which there is none of in the other modes.
OF_SERVERS: Final = ("image", "replicas", "gpus", "pool", "gpuType", "cpu", "memory")

ImageText = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=ONE_WORD)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class RolloutSpec(Block):
    """Where answers are drawn while training."""

    mode: Mode = Field(
        default="server",
        description="server: vLLM on nodes of its own, a Deployment beside the trainer. colocate: vLLM on the trainer's own GPUs, one server a GPU. generate: by the trainer itself with the library's generate, many times slower, with nothing beside it. `anneal run` takes a vLLM of this machine for the first two, or generate where there is none.",
    )
    image: ImageText | None = Field(
        default=None,
        description="vLLM's image, of version 0.22 to 0.31, by tag or digest. Default: that of the operator's Helm values (upstream's vllm/vllm-openai).",
    )
    replicas: int | None = Field(default=None, ge=1, le=64, description="Servers that share the prompts. Default: 1.")
    tensor_parallel: int = Field(
        default=1, ge=1, le=64, description="GPUs that share one copy of the model: a divisor of its attention heads."
    )
    gpus: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="GPUs a replica: as many as tensorParallel, or 0 for servers on CPUs. Default: tensorParallel; 0 where compute.gpusPerNode is 0.",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Tokens of prompt and answer that a server has room for. Default: training.sequenceLength.",
    )
    memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=0.99,
        description="The share of a GPU's memory that vLLM takes. Default: 0.9; with colocate 0.3, as the trainer needs the rest.",
    )
    extra_args: Annotated[
        list[Argument],
        bounded("Further arguments of `vllm serve`, each as one word: --enforce-eager, --dtype=float16.", most=32),
    ]
    pool: LabelName | None = Field(
        default=None, description="The servers' GPU pool. Default: compute.pool, or what compute.gpuType finds."
    )
    gpu_type: GpuType | None = Field(default=None, description="A kind of GPU instead, as compute.gpuType.")
    cpu: Quantity | None = Field(default=None, description="CPU request a replica. Default: 4 a GPU, or 1 without.")
    memory: Quantity | None = Field(
        default=None, description="Memory request and limit a replica. Default: 64Gi a GPU, or 6Gi without."
    )
    weight_sync: Literal["auto", "nccl", "adapter"] = Field(
        default="auto",
        description="How the servers get what was learnt. adapter: only the adapter's bytes travel, over HTTP. nccl: all weights, from GPU to GPU. auto: adapter where there is one.",
    )
    max_staleness: int = Field(
        default=0,
        ge=0,
        le=64,
        description="How many optimizer steps the weights that draw may be older than those that learn, when a draw begins; 0 hands them over before every draw.",
    )
    importance_cap: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="The most that a token's term is weighed by for what the servers compute otherwise than the trainer (truncated importance sampling); 0 leaves them as they are.",
    )
    start_timeout_seconds: int = Field(
        default=1800,
        ge=30,
        le=86_400,
        description="How long servers may take to be ready, and the trainer waits for one that has gone.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.mode == 'server' || !({' || '.join(f'has(self.{name})' for name in OF_SERVERS)})",
            message=f"only with mode: server are there servers of their own: remove {', '.join(OF_SERVERS)}",
            holds=lambda r: (
                r.mode == "server" or not any(getattr(r, _attribute(name)) is not None for name in OF_SERVERS)
            ),
            field="mode",
        ),
        Rule(
            cel="self.mode != 'colocate' || self.tensorParallel == 1",
            message="with mode: colocate each GPU has a server of its own: remove tensorParallel",
            holds=lambda r: r.mode != "colocate" or r.tensor_parallel == 1,
            field="tensorParallel",
        ),
        Rule(
            cel="!has(self.gpus) || self.gpus == self.tensorParallel || (self.gpus == 0 && self.tensorParallel == 1)",
            message="gpus is as many as tensorParallel, or 0 (with tensorParallel 1) for servers on CPUs; more servers are replicas",
            holds=lambda r: r.gpus in (None, r.tensor_parallel) or (r.gpus == 0 and r.tensor_parallel == 1),
            field="gpus",
        ),
        Rule(
            cel="!(has(self.pool) && has(self.gpuType))",
            message="pool and gpuType both say where the servers run: write one of them",
            holds=lambda r: at_most_one(r.pool, r.gpu_type),
            field="gpuType",
        ),
        Rule(
            cel="!has(self.extraArgs) || self.extraArgs.size() == 0 || self.extraArgs[0].startsWith('-')",
            message="the first item is an argument's name, which begins with --: write --enforce-eager, and not enforce-eager",
            holds=lambda r: not r.extra_args or r.extra_args[0].startswith("-"),
            field="extraArgs",
        ),
        Rule(
            cel=f"!has(self.extraArgs) || self.extraArgs.all(a, !a.matches('{_OWN}'))",
            message="these arguments follow from the rest of the spec (maxModelLen, tensorParallel, memoryUtilization, adapter): remove "
            + ", ".join(f"--{name}" for name in OWN_ARGUMENTS),
            holds=lambda r: not any(re.match(_OWN, argument) for argument in r.extra_args),
            field="extraArgs",
        ),
        Rule(
            cel=f"!has(self.extraArgs) || self.extraArgs.all(a, !a.matches(r'{_TWO_WORDS}'))",
            message="an item is one word of the command line: write --dtype=float16, or --dtype and float16 as two items, instead of '--dtype float16'",
            holds=lambda r: not any(re.match(_TWO_WORDS, argument) for argument in r.extra_args),
            field="extraArgs",
        ),
        Rule(
            cel=f"!has(self.image) || self.image.contains('@') || !self.image.matches('{_TAG}') || self.image.matches('{_KNOWN_TAG}')",
            message=f"vLLM's versions {_SUPPORTED} are supported: give an image of one of them",
            holds=lambda r: (
                r.image is None or "@" in r.image or not re.match(_TAG, r.image) or bool(re.match(_KNOWN_TAG, r.image))
            ),
            field="image",
        ),
    )

    @property
    def servers(self) -> int:
        """Replicas."""
        return self.replicas or 1


def _attribute(name: str) -> str:
    return {"gpuType": "gpu_type"}.get(name, name)


def server_rank(r: int) -> int:
    """The least --max-lora-rank that an adapter of rank `r` fits."""
    return next(rank for rank in RANKS if rank >= r)
