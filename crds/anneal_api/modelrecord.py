"""A model's shape in a few lines of text: small enough for a termination message, and kept in the status.

So who has no torch computes the estimate for any GPU, number of nodes and micro batch. Kept is what `memory.estimate`
reads: tensors of one shape are one line, layers of one name and shape another. A shape that is not regular enough, or
too large, has no record. Not here: finding a shape (`anneal_trainer.shape_of`).
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Annotated, get_args

from pydantic import Field, StringConstraints, ValidationError

from anneal_api.base import Record
from anneal_api.modelshape import Decoder, Linear, ModelShape, Reads, Weight

MOST_WEIGHTS, MOST_LINEARS = 96, 64
# More than any model has: a line that would stand for more is not expanded.
MOST_TENSORS = 100_000
WEIGHT = r"^[0-9]{1,6} [0-9]{1,9}(x[0-9]{1,9})*( quantizable)?( embedding)?( score)?$"
LINEAR = r"^[A-Za-z0-9_.,-]+ [0-9]{1,9}x[0-9]{1,9} (stream|attention|inner|head)( [0-9]{1,5})?( [A-Za-z0-9_+]+)?$"
WeightLine = Annotated[str, StringConstraints(max_length=96, pattern=WEIGHT)]
LinearLine = Annotated[str, StringConstraints(max_length=256, pattern=LINEAR)]


class DecoderRecord(Record):
    """The repeated layers, in numbers a token."""

    layers: int = Field(description="How many.")
    hidden: int = Field(description="The width of the stream between layers.")
    heads: int = Field(description="Attention heads.")
    query: int = Field(description="The width of all queries together.")
    key: int = Field(description="The width of all keys together.")
    inner: int = Field(description="The width inside the MLP, of all experts that see a token.")
    norms: int = Field(description="Numbers that the normalizations of a layer read.")
    experts_per_token: int = Field(default=0, description="Of a mixture: the experts that see a token.")
    windowed: int = Field(default=0, description="Layers whose tokens see only a window.")
    window: int = Field(default=0, description="How many tokens that is.")


class ModelRecord(Record):
    """The shape of a model, as the memory estimate reads it."""

    architecture: str = Field(max_length=128, description="The library's class, or the model_type that it lacks.")
    parameters: int = Field(description="Tied weights once.")
    vocabulary: int = Field(default=0, description="Rows of the embedding.")
    hidden: int = Field(default=0, description="Columns of the embedding.")
    tied: bool = Field(default=False, description="Whether the head is the embedding.")
    decoder: DecoderRecord | None = Field(default=None, description="Absent where the layers are of no usual kind.")
    weights: list[WeightLine] = Field(
        default_factory=list, max_length=MOST_WEIGHTS, description="COUNT SHAPE, then quantizable, embedding or score."
    )
    linears: list[LinearLine] = Field(
        default_factory=list,
        max_length=MOST_LINEARS,
        description="NAME INxOUT and what it reads, of layers that an adapter can stand on; of a mixture then the number of experts and the names of its parts. 0-31 in a name is one of each.",
    )

    @property
    def shape(self) -> ModelShape:
        """The shape, but for names that no estimate depends on; ValueError if the lines stand for too much."""
        return ModelShape(
            architecture=self.architecture,
            weights=tuple(weight for line in self.weights for weight in _weights(line)),
            linears=tuple(linear for line in self.linears for linear in _linears(line)),
            decoder=Decoder(**dict(self.decoder)) if self.decoder else None,
            vocabulary=self.vocabulary,
            hidden=self.hidden,
            tied=self.tied,
        )


def record_of(shape: ModelShape, *, is_reference: bool = False) -> ModelRecord | None:
    """The record, or None where there is no short one. Of a reference only the weights matter."""
    weights = _weight_lines(shape.weights)
    linears = [] if is_reference else _linear_lines(shape.linears)
    if linears is None or len(weights) > MOST_WEIGHTS or len(linears) > MOST_LINEARS:
        return None
    decoder = None if is_reference or shape.decoder is None else DecoderRecord(**vars(shape.decoder))
    try:
        return ModelRecord(
            architecture=shape.architecture,
            parameters=shape.parameters,
            vocabulary=shape.vocabulary,
            hidden=shape.hidden,
            tied=shape.tied,
            decoder=decoder,
            weights=weights,
            linears=linears,
        )
    except ValidationError:
        # Names that are no identifiers, or very long ones.
        return None


def _weight_lines(weights: Iterable[Weight]) -> list[str]:
    return [f"{count} {line}" for line, count in Counter(map(_weight_line, weights)).items()]


def _weight_line(weight: Weight) -> str:
    flags = {
        "quantizable": weight.quantizable,
        "embedding": weight.embedding,
        "score": weight.is_score,
    }
    return " ".join(("x".join(map(str, weight.shape or (1,))), *(flag for flag, holds in flags.items() if holds)))


def _weights(line: str) -> list[Weight]:
    count, size, *flags = line.split()
    name = "score.weight" if "score" in flags else ""
    one = Weight(name, _numbers(size), quantizable="quantizable" in flags, embedding="embedding" in flags)
    return [one] * _bounded(int(count))


def _linear_lines(linears: Iterable[Linear]) -> list[str] | None:
    """A line for all layers that differ in the numbers of their names alone; None where those have gaps in two places."""
    alike: dict[tuple[str, str], list[tuple[int, ...]]] = defaultdict(list)
    for linear in linears:
        places = linear.name.split(".")
        stem = ".".join("*" if place.isdigit() else place for place in places)
        alike[stem, _about(linear)].append(tuple(int(place) for place in places if place.isdigit()))
    lines = [(_named(stem, numbers), about) for (stem, about), numbers in alike.items()]
    made = [f"{name} {about}" for name, about in lines if name]
    return made if len(made) == len(lines) else None


def _about(linear: Linear) -> str:
    size = f"{linear.fan_in}x{linear.fan_out} {linear.reads}"
    return f"{size} {linear.experts} {'+'.join(linear.parts)}".rstrip() if linear.parts or linear.experts > 1 else size


def _named(stem: str, numbers: list[tuple[int, ...]]) -> str | None:
    axes = [sorted(set(axis)) for axis in zip(*numbers, strict=True)]
    if sorted(numbers) != list(itertools.product(*axes)):
        return None
    ranges = map(_ranges, axes)
    return ".".join(next(ranges) if place == "*" else place for place in stem.split("."))


def _ranges(numbers: list[int]) -> str:
    """0-31, or 0-2,7 where numbers are left out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _linears(line: str) -> Iterator[Linear]:
    name, size, read, *mixture = line.split()
    fan_in, fan_out = _numbers(size)
    reads = next(known for known in get_args(Reads) if known == read)
    experts = int(mixture[0]) if mixture else 1
    parts = tuple(mixture[1].split("+")) if len(mixture) > 1 else ()
    axes = [_expanded(place) for place in name.split(".")]
    _bounded(prod(map(len, axes)))
    for places in itertools.product(*axes):
        yield Linear(".".join(places), fan_in, fan_out, reads, experts, parts)


def _expanded(place: str) -> Sequence[str]:
    """The numbers that one place of a name stands for; a word stands for itself."""
    if not place[:1].isdigit() or place.strip("0123456789,-"):
        return [place]
    ends = [(int(first), int(last or first)) for first, _, last in (run.partition("-") for run in place.split(","))]
    _bounded(sum(last - first + 1 for first, last in ends))
    return [str(number) for first, last in ends for number in range(first, last + 1)]


def _bounded(count: int) -> int:
    if count > MOST_TENSORS:
        raise ValueError(f"{count} tensors are more than a model has")
    return count


def _numbers(size: str) -> tuple[int, ...]:
    return tuple(map(int, size.split("x")))
