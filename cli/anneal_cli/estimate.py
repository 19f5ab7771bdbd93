"""`anneal estimate`: the memory that a job needs on each GPU, part by part, before one is asked for.

Reads the model's config, no weights and no data. Not here: what GPUs there are (`--gpu-memory` says it).
"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anneal_cli import here

if TYPE_CHECKING:
    from anneal_api.serving import Serving
    from anneal_trainer.estimate import Found

GIB = 2**30


def estimate(
    file: here.File,
    *,
    volume: here.Volume = None,
    name: here.Name = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", min=0, metavar="GIB", help="What a GPU has: tell whether it fits, or what would."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Estimate the peak memory of a job on each GPU; exit with 79 if it does not fit --gpu-memory."""
    from anneal_api import exitcodes
    from anneal_cli.output import failed, note
    from anneal_cli.volumes import parse_mappings

    job = here.chosen(file, name)
    # Only the claims that models are on are needed: the trainer asks for those.
    volumes, problems = parse_mappings(volume or [])
    for problem in problems:
        note(f"error: {problem}")
    if problems:
        raise typer.Exit(exitcodes.USAGE)
    here.need_trainer(("torch", "transformers"))
    from anneal_api.fit import UNKNOWN, Gpu
    from anneal_trainer import quiet_libraries
    from anneal_trainer.errors import TrainerError
    from anneal_trainer.estimate import of_job

    quiet_libraries.apply()
    try:
        found = of_job(job, volumes, UNKNOWN if gpu_memory is None else Gpu(int(gpu_memory * GIB)))
    except TrainerError as error:
        raise failed(str(error), code=error.exit_code) from error
    for warning in found.warnings:
        note(f"{file}: spec.model.source: warning: {warning}")
    typer.echo(json.dumps(document(found), indent=1) if as_json else "\n".join(lines(found)))
    server = _server(found)
    if found.choice.fits is False or (server and server.fits is False):
        raise typer.Exit(exitcodes.OUT_OF_MEMORY)


def _server(found: "Found") -> "Serving | None":
    """A server that draws answers, on GPUs like the trainer's."""
    from anneal_api.serving import serving

    return serving(found.spec, found.shape, found.choice.gpu.size)


def document(found: "Found") -> dict[str, Any]:
    """The estimate for programs."""
    from anneal_api.fit import sentence

    made, choice = found.estimate, found.choice
    fit = {"gpuBytes": choice.gpu.size, "fits": choice.fits, "message": sentence(choice)} if choice.gpu.size else {}
    return {
        "architecture": found.shape.architecture,
        "parameters": made.parameters,
        "trainedParameters": made.trained,
        "peakBytes": made.peak,
        "allocatedBytes": made.allocated,
        "moment": made.moment,
        "microBatchSize": choice.micro_batch,
        "gradientCheckpointing": choice.checkpointing,
        "tuned": choice.tuned,
        **fit,
        "parts": [{"name": part.name, "bytes": part.size, "note": part.note} for part in made.parts],
        "missing": list(made.missing),
        "warnings": list(found.warnings),
        **_server_document(found),
    }


def _server_document(found: "Found") -> dict[str, Any]:
    from anneal_api.serving import parallel_problem, sentence

    server = _server(found)
    if server is None:
        return {}
    problem = parallel_problem(found.spec, found.shape)
    known = {"budgetBytes": server.budget, "fits": server.fits} if server.gpu else {}
    parts = [{"name": part.name, "bytes": part.size, "note": part.note} for part in server.parts]
    return {"server": {"bytes": server.needs, "parts": parts, **known, "message": problem or sentence(server)}}


def lines(found: "Found") -> list[str]:
    """The estimate for people."""
    from anneal_cli.columns import table

    made, compute = found.estimate, found.spec.compute
    where = f"GPU, of {compute.world_size}" if compute.gpus_per_node else "process, on CPUs"
    rows = [(part.name, _gib(part.size), part.note) for part in made.parts]
    total = ("peak", _gib(made.peak), f"a {where}; at {made.moment}")
    parameters = f"{made.parameters:,} parameters, {made.trained:,} of them trained"
    if found.spec.adapter:
        parameters = f"{made.parameters:,} parameters; {made.trained:,} trained beside them"
    head = f"{found.shape.architecture}: {parameters}"
    return [head, *table(("PART", "GIB", "WHAT"), [*rows, total]), *_fit_lines(found), *_server_lines(found)]


def _server_lines(found: "Found") -> list[str]:
    """The same of a server that draws, if it is on GPUs."""
    from anneal_api.serving import parallel_problem, remedies
    from anneal_cli.columns import table

    server = _server(found)
    if server is None:
        return []
    if problem := parallel_problem(found.spec, found.shape):
        return ["", f"a vLLM server cannot start: {problem}"]
    rows = [(part.name, _gib(part.size), part.note) for part in server.parts]
    total = ("at least", _gib(server.needs), f"a GPU, of {server.rollout.tensor_parallel} a server")
    lines = ["", f"a vLLM server for {found.shape.architecture}:"]
    lines += table(("PART", "GIB", "WHAT"), [*rows, total])
    if server.gpu is None:
        return lines
    share = f"{_gib(server.budget).strip()} GiB that memoryUtilization {server.rollout.memory_utilization:g} gives it"
    if server.fits is False:
        return [*lines, f"does not fit the {share}", *(f"  {each}" for each in remedies(server))]
    return [*lines, f"fits the {share}: room for {server.room} such sequences at once"]


def _fit_lines(found: "Found") -> list[str]:
    """Whether it fits, one remedy a line."""
    from anneal_api.fit import gib, remedies

    choice = found.choice
    tuned = "gradientCheckpointing on" if choice.checkpointing else "gradientCheckpointing off"
    chosen = [f"chosen: microBatchSize {choice.micro_batch}, {tuned}"] if choice.tuned else []
    if choice.gpu.size is None:
        return []
    where = f"a GPU of {gib(choice.gpu.size)} GiB"
    if choice.fits is None:
        return [*chosen, f"whether it fits {where} is not known"]
    if choice.fits:
        return [*chosen, f"fits {where}"]
    helps = list(remedies(choice)) or ["only GPUs with more memory would help"]
    return [*chosen, f"does not fit {where}", *(f"  {each}" for each in helps)]


def _gib(size: int) -> str:
    return f"{size / GIB:8.3f}"
