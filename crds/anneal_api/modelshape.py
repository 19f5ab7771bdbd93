"""What an estimate of memory needs to know of a model: its weights and linear layers by name, and the size of its layers.

Made from a config by `anneal_trainer.shape_of`. Plain numbers, so that who has no torch can compute with them.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

# What a linear layer reads: the normalized stream of the model, the attention's answer, or the product inside an MLP.
Reads = Literal["stream", "attention", "inner", "head"]


@dataclass(frozen=True)
class Weight:
    """One parameter; tied ones are one. `quantizable`: bitsandbytes puts its layer in place."""

    name: str
    shape: tuple[int, ...]
    quantizable: bool = False
    embedding: bool = False

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def is_score(self) -> bool:
        """Whether it is of a head that says scores, by the names that the library gives those."""
        return self.name.startswith(("score.", "classifier."))


@dataclass(frozen=True)
class Linear:
    """A layer that an adapter can stand on.

    `experts`: how many matrices lie in it. `parts`: the names of the layers that the library has fused into it; an
    adapter on all of them has a rank for each.
    """

    name: str
    fan_in: int
    fan_out: int
    reads: Reads
    experts: int = 1
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """The repeated layers, in numbers a token.

    `query` and `key` are what the projections of the attention say; `inner` the width between the matrices of the MLP,
    of all experts that see a token together; `norms` the numbers that the normalizations of a layer read. Of `windowed`
    layers each token sees no more than `window` before it.
    """

    layers: int
    hidden: int
    heads: int
    query: int
    key: int
    inner: int
    norms: int
    experts_per_token: int = 0
    windowed: int = 0
    window: int = 0


@dataclass(frozen=True)
class ModelShape:
    """A model. `decoder` is None where its layers are of a kind that no formula here is for."""

    architecture: str
    weights: tuple[Weight, ...]
    linears: tuple[Linear, ...]
    decoder: Decoder | None
    vocabulary: int
    hidden: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Tied weights once."""
        return sum(weight.size for weight in self.weights)
