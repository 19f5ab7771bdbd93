"""What fits the GPUs of this machine: `anneal run` does what the operator does for pods, with the memory that is here.

On CPUs nothing is chosen: the default is taken. Not here: the choice itself (`anneal_api.fit`).
"""

from dataclasses import replace

from anneal_api.fit import Asked, Gpu, choose, sentence
from anneal_api.job import Job, JobSpec
from anneal_trainer import console
from anneal_trainer.context import Context
from anneal_trainer.errors import ConfigError
from anneal_trainer.estimate import prepared_shapes


def asks_for_auto(job: Job) -> bool:
    """Whether a job that is not resolved leaves the micro batch to us."""
    return job.spec.training.micro_batch_size == "auto"


def gpu_here(spec: JobSpec, processes: int) -> Gpu | None:
    """The smallest of the GPUs that are trained on; None on CPUs."""
    if not spec.compute.gpus_per_node:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    devices = [torch.cuda.get_device_properties(index) for index in range(processes)]
    smallest = min(devices, key=lambda device: device.total_memory)
    return Gpu(smallest.total_memory, smallest.name)


def fitted(context: Context, gpu: Gpu | None, *, auto: bool, processes: int) -> Context:
    """The context with the micro batch and checkpointing that fit; ConfigError where nothing does and that matters."""
    if gpu is None:
        return context
    spec = context.spec
    here = spec.compute.model_copy(update={"nodes": 1, "gpus_per_node": processes})
    asked = Asked(spec.model_copy(update={"compute": here}), auto, prepared_shapes(context))
    choice = choose(asked, gpu)
    if choice.fits is False:
        if spec.compute.memory_fit != "warn":
            raise ConfigError(f"{sentence(choice)}; compute.memoryFit: warn tries it all the same")
        console.say(f"note: {sentence(choice)}")
    return replace(context, micro_batch_size=choice.micro_batch, gradient_checkpointing=choice.checkpointing)
