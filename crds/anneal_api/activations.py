"""What autograd keeps of a forward pass, by formula: bytes a token of a layer, of all layers, and of the output head.

The terms follow the code that runs (transformers 5.23: `models/llama/modeling_llama.py`, whose layer nearly all
decoders share, and `integrations/sdpa_attention.py`; PEFT 0.21: `tuners/lora/layer.py`; TRL 1.16:
`kernels/chunked_logprob.py`) in the manner of Korthikanti et al. (arXiv 2205.05198, section 4). A tensor that two
operations keep counts once. Not here: weights and what is trained (`memory`).
"""

from dataclasses import dataclass

from anneal_api.modelshape import Decoder, Linear

FP32 = 4
# `TOKEN_CHUNK_SIZE` in TRL's kernels/chunked_logprob.py, `_CHUNKED_LOGPROB_CHUNK_SIZE` in its trainer/utils.py.
HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768


@dataclass(frozen=True)
class Pass:
    """One pass over a micro batch.

    `casts`: autocast makes bf16 of what is fp32. `inputs`: frozen layers keep what they read, as those of int8 do
    (bitsandbytes, `MatMul8bitLt`). `masked`: the mask is a matrix, a number for each pair of tokens.
    """

    sequences: int
    length: int
    width: int
    frozen: bool
    casts: bool
    inputs: bool
    eager: bool
    masked: bool
    dropout: bool

    @property
    def tokens(self) -> int:
        """All of them are taken to be there, and trained."""
        return self.sequences * self.length

    @property
    def stream(self) -> int:
        """Bytes a number of what flows from layer to layer: full fine-tuning adds bf16 to an fp32 embedding."""
        return self.width if self.frozen else FP32


def boundary(decoder: Decoder, one: Pass) -> int:
    """What is kept of a layer that is computed again: its input."""
    return one.tokens * decoder.hidden * one.stream


def layer(decoder: Decoder, one: Pass, trained: tuple[Linear, ...], rank: int) -> int:
    """Everything that is kept of one layer; `trained` are all linear layers, or those with an adapter of a rank."""
    inside = [linear for linear in trained if linear.reads != "head"]
    each = _norms(decoder, one) + _attention(decoder, one) + _mlp(decoder, one)
    each += _adapters(decoder, one, inside, rank) if one.frozen else _inputs(decoder, one, inside)
    return one.tokens * each


def flow(decoder: Decoder, one: Pass) -> int:
    """Gradients on their way through a layer: of the stream, and of what lies inside the MLP."""
    return one.tokens * (decoder.hidden * one.stream + decoder.inner * one.width)


def ending(decoder: Decoder, one: Pass) -> int:
    """What is kept behind the layers: of the last normalization, and what the head reads."""
    return one.tokens * (_normalized(decoder.hidden, one) + decoder.hidden * one.stream)


def shared(decoder: Decoder, one: Pass) -> int:
    """What all layers read: the table of positions and the mask."""
    mask = one.length * (one.stream if one.eager else 1) if one.masked else 0
    return one.tokens * (2 * decoder.query // decoder.heads * one.stream + mask)


def _normalized(numbers: int, one: Pass) -> int:
    """RMSNorm computes in fp32 and keeps its input; where its weight is trained also what that is multiplied with."""
    return numbers * (FP32 if one.frozen else 2 * FP32)


def _norms(decoder: Decoder, one: Pass) -> int:
    return _normalized(decoder.norms, one)


def _attention(decoder: Decoder, one: Pass) -> int:
    """Query, key, value and the answer; FlashAttention's and SDPA's kernels keep no scores."""
    if one.eager:
        # Keys and values are repeated for every head; the softmax is fp32, and kept again as what it is cast to.
        scores = decoder.heads * one.length * (FP32 if one.width == FP32 else FP32 + one.width)
        return 3 * decoder.query * one.width + scores
    # A mask keeps SDPA from sharing keys and values among heads (`use_gqa_in_sdpa`), and is kept as numbers.
    shared = decoder.query if one.masked else decoder.key
    mask = one.length * one.width if one.masked else 0
    return 2 * (decoder.query + shared) * one.width + FP32 * decoder.heads + mask


def _mlp(decoder: Decoder, one: Pass) -> int:
    """The gate, what its activation makes of it, and what that is multiplied with; of experts what each one says.

    Autocast does not reach the grouped products of experts (transformers' `integrations/moe.py`).
    """
    experts = decoder.experts_per_token * decoder.hidden
    return (3 * decoder.inner + experts) * (one.stream if experts else one.width)


def _inputs(decoder: Decoder, one: Pass, trained: list[Linear]) -> int:
    """What trained linear layers read. Autocast casts it for each layer anew; the attention's answer is there already."""
    dense = sum(linear.fan_in for linear in trained if linear.reads == "stream" and linear.experts == 1)
    stream = dense // decoder.layers * one.width if one.casts else 2 * decoder.hidden * FP32
    answer = decoder.query * one.width if one.eager else 0
    experts = decoder.experts_per_token * decoder.hidden
    return stream + answer + (experts + decoder.inner) * (one.stream if experts else one.width)


def _adapters(decoder: Decoder, one: Pass, adapted: list[Linear], rank: int) -> int:
    """What adapters read and what lies between their matrices, on average over the layers.

    An fp32 adapter on a bf16 layer casts its input up, and autocast casts it down again: a copy each, as dropout makes
    one, with a mask of a byte. Else layers that read the same share it, and the attention's answer is there already.
    """
    between = sum(rank * max(1, len(linear.parts)) for linear in adapted if linear.experts == 1)
    frozen = 2 * decoder.hidden + decoder.inner if one.inputs else 0
    if one.casts or one.dropout:
        read = sum(_numbers(decoder, linear) for linear in adapted)
        masks = read if one.dropout else 0
        return frozen * one.width + ((between + read) * one.width + masks) // decoder.layers
    shared = {(linear.name.rpartition(".")[0], linear.reads): linear for linear in adapted}
    read = sum(_numbers(decoder, linear) for linear in shared.values() if one.eager or linear.reads != "attention")
    return max(frozen, read // decoder.layers) * one.width + between * one.width // decoder.layers


def _numbers(decoder: Decoder, linear: Linear) -> int:
    """Numbers a token: experts together see a token several times."""
    return linear.fan_in * (decoder.experts_per_token if linear.experts > 1 else 1)


@dataclass(frozen=True)
class Head:
    """The output head while it is computed: tiles of logits, never all of them."""

    vocabulary: int
    hidden: int
    trained: bool
    # Bytes a number of its weight.
    width: int

    def forward(self, one: Pass) -> int:
        """A tile of logits, and its part of the weight if that is cast."""
        tile = min(one.tokens, HEAD_TOKENS) * HEAD_COLUMNS * one.width
        part = min(self.vocabulary, HEAD_COLUMNS) * self.hidden * one.width if self.width != one.width else 0
        return tile + part

    def backward(self, one: Pass) -> int:
        """The same again, and the gradient of what it reads: in fp32, as the stream is held, and spread to its place."""
        return self.forward(one) + one.tokens * self.hidden * (FP32 + (one.stream if one.stream != FP32 else 0))

    @property
    def gradient(self) -> int:
        """Of a trained head's weight: made in fp32, whole, at the beginning of the backward pass."""
        return self.vocabulary * self.hidden * FP32 if self.trained else 0
