"""The memory of a job before it is run: the shapes of its models, found where their configs are, and the formula.

Reads configs only; of an hf:// model that no job has fetched, everything but the weights is, to the hub library's own
cache. Not here: the formula (`anneal_api.memory`), and what follows from it (`anneal_api.fit`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from anneal_api import Job, resolve
from anneal_api.fit import UNKNOWN, Asked, Choice, Gpu, choose
from anneal_api.job import JobSpec
from anneal_api.memory import Estimate
from anneal_api.model import ModelSource
from anneal_api.modelrecord import ModelRecord, record_of
from anneal_api.modelshape import ModelShape
from anneal_api.sources import UnmappedVolumeError
from anneal_trainer import earlier, model, shape_of
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError


@dataclass(frozen=True)
class Found:
    """How a job would be carried out, with its estimate, and what to know about it."""

    choice: Choice
    estimate: Estimate
    warnings: tuple[str, ...]

    @property
    def spec(self) -> JobSpec:
        """The resolved spec, with the micro batch that was chosen."""
        return self.choice.spec

    @property
    def shape(self) -> ModelShape:
        """The shape of the model that is trained."""
        return self.choice.shapes[0]


def of_job(job: Job, volumes: dict[str, Path], gpu: Gpu = UNKNOWN) -> Found:
    """What a GPU needs for `job`, which need not be resolved; InputError if a model's config cannot be read."""
    auto = job.spec.training.micro_batch_size == "auto"
    job = job.model_copy(update={"spec": resolve(job.spec)})
    context = earlier.looking(job, volumes)
    choice = choose(Asked(job.spec, auto, tuple(_shape(named, context) for named in job.spec.models)), gpu)
    assert choice.estimate is not None, "the shapes are known"
    return Found(choice, choice.estimate, tuple(_warnings(choice.estimate, choice.shapes[0])))


def prepared_shapes(context: Context) -> tuple[ModelShape, ...]:
    """The shapes of the models that `prepare` has put in their place; none where one cannot be found out.

    An estimate is an aid: whatever keeps it from being made is told, and keeps nothing else from being done.
    """
    method = context.spec.method
    try:
        return tuple(shape_of.shape_of(model.directory(named, context), named, method) for named in context.spec.models)
    except Exception as error:  # noqa: BLE001 - configs can be wrong in every way
        print(f"warning: the memory cannot be estimated: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return ()


def records(context: Context) -> list[ModelRecord]:
    """The same in a few lines each, for the operator; none where one has no short form."""
    shapes = prepared_shapes(context)
    found = [record_of(shape, is_reference=index > 0) for index, shape in enumerate(shapes)]
    return [each for each in found if each] if all(found) else []


def _shape(named: ModelSource, context: Context) -> ModelShape:
    try:
        path = model.tokenizer_directory(named, context)
    except UnmappedVolumeError as error:
        raise InputError(f"{named}: {error}") from error
    return shape_of.shape_of(path, named, context.spec.method)


def _warnings(made: Estimate, shape: ModelShape) -> list[str]:
    if not made.missing:
        return []
    unknown = f"{shape.architecture} is not an architecture that can be estimated whole"
    missing = f"{' and '.join(made.missing)} are not in it, so the peak will be higher"
    remedy = "status.memory.peakGiB of a short run (training.maxSteps: 2) says how much"
    return [f"{unknown}: {missing}; {remedy}"]
