"""What goes with methods that generate, and only with them: the rules between their blocks and the rest of a spec.

Not here: rules inside one block (`online`).
"""

from typing import Any, Final

from anneal_api.base import Rule
from anneal_api.online import ONLINE, GrpoSpec, RlooSpec, SamplingSpec
from anneal_api.rollout import RANKS, RolloutSpec

MOST_REWARDS: Final = 16
# Answers that are drawn together, for each that is trained together with others.
DRAWN_A_MICRO_BATCH: Final = 8

_IS_ONLINE = f"self.method in {list(ONLINE)}"
_GPUS = "(self.compute.gpusPerNode == 0 ? 1 : self.compute.gpusPerNode)"
_GROUP = (
    f"(self.method == 'grpo' ? (has(self.grpo) ? self.grpo.numGenerations : {GrpoSpec().num_generations}) : "
    f"(has(self.rloo) ? self.rloo.numGenerations : {RlooSpec().num_generations}))"
)
_BATCH_MESSAGE = (
    "with grpo and rloo globalBatchSize counts answers: a multiple of numGenerations x nodes (or minNodes) x gpusPerNode, "
    "so that the answers to a prompt stay on one GPU"
)


def block_of(spec: Any) -> GrpoSpec | RlooSpec:
    """The block of an online method, with its defaults if the manifest has none."""
    return (spec.grpo or GrpoSpec()) if spec.method == "grpo" else (spec.rloo or RlooSpec())


def most_tokens(spec: Any) -> int:
    """The most tokens of an answer."""
    sampling: SamplingSpec = spec.sampling or SamplingSpec()
    return sampling.max_tokens


def drawn_at_once(spec: Any) -> int:
    """How many answers of a resolved spec a GPU draws together: more than are trained together, as it takes less."""
    share: int = max(spec.group, spec.training.global_batch // spec.compute.world_size)
    return min(share, DRAWN_A_MICRO_BATCH * int(spec.training.micro_batch))


def _online(spec: Any) -> bool:
    return spec.method in ONLINE


def _groups_fit(spec: Any, processes: int) -> bool:
    batch = spec.training.global_batch_size
    return not _online(spec) or batch is None or batch % (block_of(spec).num_generations * processes) == 0


def _batch_cel(nodes: str) -> str:
    given = "!has(self.training.globalBatchSize)" + (" || !has(self.compute.minNodes)" if "min" in nodes else "")
    return f"!({_IS_ONLINE}) || {given} || self.training.globalBatchSize % ({_GROUP} * {nodes} * {_GPUS}) == 0"


def _group(spec: Any) -> dict[str, float]:
    return {"numGenerations": block_of(spec).num_generations}


def _longest(spec: Any) -> dict[str, float]:
    return {"maxTokens": most_tokens(spec)}


def _unreferred(spec: Any) -> bool:
    return not (_online(spec) and block_of(spec).beta == 0 and spec.reference.source)


def _rollout(spec: Any) -> RolloutSpec:
    return spec.rollout or RolloutSpec()


def _draws_by_vllm(spec: Any) -> bool:
    return _online(spec) and _rollout(spec).mode != "generate"


def _sends_adapter(spec: Any) -> bool:
    return _draws_by_vllm(spec) and spec.adapter is not None and _rollout(spec).weight_sync != "nccl"


_MODE = "(has(self.rollout) && has(self.rollout.mode) ? self.rollout.mode : 'server')"
_SYNC = "(has(self.rollout) && has(self.rollout.weightSync) ? self.rollout.weightSync : 'auto')"
_BY_VLLM = f"({_IS_ONLINE}) && {_MODE} != 'generate'"
_MOST_TOKENS = f"(has(self.sampling) ? self.sampling.maxTokens : {SamplingSpec().max_tokens})"

ONLINE_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel=f"({_IS_ONLINE}) == (has(self.rewards) && self.rewards.size() > 0)",
        message="grpo and rloo need rewards, one at least; other methods take none",
        holds=lambda s: _online(s) == bool(s.rewards),
        field="rewards",
    ),
    Rule(
        cel="!has(self.rewards) || self.rewards.all(r, self.rewards.exists_one(o, o.name == r.name))",
        message="each reward has a name of its own: its measures are called by it",
        holds=lambda s: len({reward.name for reward in s.rewards}) == len(s.rewards),
        field="rewards",
    ),
    Rule(
        cel="!has(self.rewards) || self.rewards.size() == 0 || self.rewards.exists(r, !has(r.weight) || r.weight != 0.0)",
        message="with all weights 0 every answer is worth the same: give one reward another weight",
        holds=lambda s: not s.rewards or any(reward.weight for reward in s.rewards),
        field="rewards",
    ),
    Rule(
        cel=f"!has(self.rewards) || self.rewards.all(r, !has(r.length) || !has(r.length.least) || r.length.least <= {_MOST_TOKENS})",
        message="an answer has sampling.maxTokens tokens at most: lower length.least of the rewards that ask for more, or raise sampling.maxTokens",
        holds=lambda s: all((r.length.least or 0) <= most_tokens(s) for r in s.rewards if r.length),
        field="rewards",
    ),
    Rule(
        cel="!has(self.rewards) || (has(self.secrets) && self.secrets.size() > 0) || (has(self.compute.pod) && has(self.compute.pod.env) && self.compute.pod.env.size() > 0) || self.rewards.all(r, !has(r.http) || !r.http.url.contains('$('))",
        message="the $(NAME) of an http.url is an environment variable of the pods: add the Secret that has it to secrets",
        holds=lambda s: (
            bool(s.secrets or (s.compute.pod and s.compute.pod.env))
            or not any("$(" in reward.http.url for reward in s.rewards if reward.http)
        ),
        field="secrets",
    ),
    Rule(
        cel=f"{_IS_ONLINE} || !has(self.sampling)",
        message="sampling is for grpo and rloo, which draw answers",
        holds=lambda s: _online(s) or s.sampling is None,
        field="sampling",
    ),
    Rule(
        cel=_batch_cel("self.compute.nodes"),
        message=_BATCH_MESSAGE,
        holds=lambda s: _groups_fit(s, s.compute.world_size),
        defaults=_group,
        field="training.globalBatchSize",
    ),
    Rule(
        cel=_batch_cel("self.compute.minNodes"),
        message=_BATCH_MESSAGE,
        holds=lambda s: s.compute.min_nodes is None or _groups_fit(s, s.compute.fewest_processes),
        defaults=_group,
        field="compute.minNodes",
    ),
    Rule(
        cel=f"!({_IS_ONLINE}) || self.training.sequenceLength > {_MOST_TOKENS}",
        message="sequenceLength bounds prompt and answer together: make it more than sampling.maxTokens",
        holds=lambda s: not _online(s) or s.training.sequence_length > most_tokens(s),
        defaults=_longest,
        field="training.sequenceLength",
    ),
    Rule(
        cel=f"!({_IS_ONLINE}) || !self.reference.precompute",
        message="answers that are not drawn yet have no log-probabilities: remove precompute",
        holds=lambda s: not _online(s) or not s.reference.precompute,
        field="reference.precompute",
    ),
    Rule(
        cel="!has(self.reference.source) || !((self.method == 'grpo' && !(has(self.grpo) && self.grpo.beta > 0.0)) || (self.method == 'rloo' && has(self.rloo) && self.rloo.beta == 0.0))",
        message="with beta 0 nothing is compared with a reference: remove it, or set beta",
        holds=_unreferred,
        field="reference.source",
    ),
    Rule(
        cel=f"{_IS_ONLINE} || !has(self.rollout)",
        message="rollout is for grpo and rloo, which draw answers",
        holds=lambda s: _online(s) or s.rollout is None,
        field="rollout",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_SYNC} != 'adapter' || has(self.adapter)",
        message="weightSync: adapter needs an adapter: add one (adapter: {type: lora}), or take weightSync: nccl for full weights",
        holds=lambda s: not _draws_by_vllm(s) or _rollout(s).weight_sync != "adapter" or s.adapter is not None,
        field="rollout.weightSync",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || ({_SYNC} != 'nccl' && has(self.adapter)) || (self.compute.gpusPerNode > 0 && {_MODE} == 'server')",
        message="full weights reach servers by NCCL, from GPU to GPU: add an adapter (adapter: {type: lora}), whose bytes travel by HTTP, or take rollout.mode: generate, or mode: server with compute.gpusPerNode of 1 or more",
        holds=lambda s: (
            not _draws_by_vllm(s) or _sends_adapter(s) or (s.compute.gpus_per_node > 0 and _rollout(s).mode == "server")
        ),
        field="rollout.weightSync",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_SYNC} != 'nccl' || self.model.quantization == 'none'",
        message="an adapter cannot be merged into quantized weights and taken out again, as weightSync: nccl does: take weightSync: adapter, or model.quantization: none",
        holds=lambda s: not _draws_by_vllm(s) or _rollout(s).weight_sync != "nccl" or s.model.quantization == "none",
        field="rollout.weightSync",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_SYNC} == 'nccl' || !has(self.adapter) || !has(self.adapter.r) || self.adapter.r <= {RANKS[-1]}",
        message=f"vLLM serves adapters of rank {RANKS[-1]} at most: lower adapter.r, or take rollout.weightSync: nccl",
        holds=lambda s: not _sends_adapter(s) or s.adapter.r <= RANKS[-1],
        field="adapter.r",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_SYNC} == 'nccl' || !has(self.adapter) || !has(self.model.addSpecialTokens) || self.model.addSpecialTokens.size() == 0",
        message="vLLM serves no adapter that changes embeddings, as new special tokens do: remove model.addSpecialTokens, or take rollout.mode: generate",
        holds=lambda s: not _sends_adapter(s) or not s.model.add_special_tokens,
        field="model.addSpecialTokens",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_MODE} != 'colocate' || self.compute.nodes == 1",
        message="rollout.mode: colocate is for jobs of one node: set compute.nodes to 1, or take mode: server",
        holds=lambda s: not _draws_by_vllm(s) or _rollout(s).mode != "colocate" or s.compute.nodes == 1,
        field="rollout.mode",
    ),
    Rule(
        cel=f"!({_BY_VLLM}) || {_MODE} != 'server' || !has(self.rollout) || has(self.rollout.gpus) || self.rollout.tensorParallel == 1 || self.compute.gpusPerNode > 0",
        message="servers are on CPUs where compute.gpusPerNode is 0, and tensorParallel counts GPUs: remove it, or write rollout.gpus too for servers with GPUs",
        holds=lambda s: (
            not _draws_by_vllm(s)
            or _rollout(s).mode != "server"
            or _rollout(s).gpus is not None
            or _rollout(s).tensor_parallel == 1
            or s.compute.gpus_per_node > 0
        ),
        field="rollout.tensorParallel",
    ),
    Rule(
        cel="!has(self.rollout) || !has(self.rollout.maxModelLen) || self.rollout.maxModelLen >= self.training.sequenceLength",
        message="rollout.maxModelLen is the room for prompt and answer: make it training.sequenceLength or more",
        holds=lambda s: (
            s.rollout is None or (s.rollout.max_model_len or s.training.sequence_length) >= s.training.sequence_length
        ),
        field="rollout.maxModelLen",
    ),
)
