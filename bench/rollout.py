"""Handing an adapter over to a vLLM server, and drawing from it, beside the same done to the server bare.

One real server on loopback with a loader beside it, as a rollout pod has them, and rank 0's own server of adapters; on
CPUs, with a model and an adapter large enough that their bytes count. Pairs are interleaved, since the machine's
speed drifts. Bare loading is `/v1/load_lora_adapter` of files that lie beside the server already, and the same after
the bytes came over a bare socket: less than that no hand-over can take. Bare drawing is one request with all prompts.
What full weights would weigh is counted, not sent.
"""

import asyncio
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
from table import Row, report

from anneal_api.meta import ENV_VLLM_PYTHON
from anneal_api.online import SamplingSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.rollout.pool import Endpoint, Pool, Request
from trainer import shapes
from trainer.vllms import loader_process, pool_of, rank0_serving, vllm_server

WIDTH, RANK = 512, 32
HAND_OVERS, DRAWS = 15, 5
PROMPTS, ANSWERS, TOKENS = 32, 8, 64


@dataclass(frozen=True)
class Scene:
    """A server, a pool over it, and an adapter in as many copies as are handed over."""

    url: str
    pool: Pool
    adapters: Iterator[Path]
    weights: int


def python_of_vllm() -> Path:
    """As tests find it."""
    named = os.environ.get(ENV_VLLM_PYTHON)
    made = (
        named
        or subprocess.run(
            [Path(__file__).parents[1] / "scripts/vllm"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    )
    return Path(made.strip())


def adapter_of(model: Path, path: Path) -> Path:
    """Of all linear layers, of random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.02)
    adapted.save_pretrained(path)
    return path


def copies(adapter: Path, directory: Path) -> Iterator[Path]:
    """Each of other content, as each optimizer step's is."""
    for number in itertools.count():
        path = shutil.copytree(adapter, directory / f"copy-{number}")
        config = path / "adapter_config.json"
        config.write_text(config.read_text() + " " * (number + 1))
        yield path


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    """Everything, while the block runs."""
    from anneal_trainer import quiet_libraries
    from anneal_trainer.quickstart import model

    quiet_libraries.apply()
    base = directory / "model"
    model.build([f"number {number}" for number in range(500)], base, vocabulary=512, width=WIDTH, heads=8)
    spec = shapes.spec(
        "grpo",
        rewards=[{"name": "short", "length": {"most": 4}}],
        adapter={"r": RANK},
        training={"sequenceLength": 384, "globalBatchSize": 8},
        rollout={"mode": "server", "gpus": 0},
    )
    assert isinstance(spec, RLHFSpec)
    adapter = adapter_of(base, directory / "adapter")
    with (
        vllm_server(python_of_vllm(), spec, base, directory / "log") as port,
        loader_process(port, directory / "fetched") as loader,
        rank0_serving(directory / "records") as served,
        pool_of([Endpoint("127.0.0.1", port, loader)], served=served, patience=120, hung_after=60) as pool,
    ):
        weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        yield Scene(f"http://127.0.0.1:{port}", pool, copies(adapter, directory), weights)


async def _post(url: str, body: Any) -> Any:
    async with aiohttp.ClientSession(read_bufsize=2**20) as session, session.post(url, json=body) as answer:
        answer.raise_for_status()
        text = await answer.read()
        return await answer.json() if text.startswith(b"{") else text


def bare_load(found: Scene, name: str) -> float:
    """Seconds of the one request; the adapter is taken away afterwards."""
    path = next(found.adapters)
    begun = time.perf_counter()
    asyncio.run(_post(f"{found.url}/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}))
    seconds = time.perf_counter() - begun
    asyncio.run(_post(f"{found.url}/v1/unload_lora_adapter", {"lora_name": name}))
    return seconds


@contextmanager
def bare_sender(path: Path) -> Iterator[int]:
    """Sends the file's bytes to whoever connects, once; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection = server.accept()[0]
            with connection, path.open("rb") as file:
                connection.sendfile(file)

        thread = Thread(target=send)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join()


def bare_copy(found: Scene) -> float:
    """Seconds until an adapter's weights came over a socket into another file."""
    source = next(found.adapters) / "adapter_model.safetensors"
    with bare_sender(source) as port:
        begun = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as connection, source.with_name("copied").open("wb") as file:
            buffer = memoryview(bytearray(2**20))
            while size := connection.recv_into(buffer):
                file.write(buffer[:size])
        return time.perf_counter() - begun


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def prompts(round_: int) -> list[list[int]]:
    """Others every time, or the server would remember them."""
    return [
        [10 + (round_ * 7 + place * 13 + token * (place + 3)) % 480 for token in range(32)] for place in range(PROMPTS)
    ]


def bare_draw(found: Scene, name: str, round_: int) -> None:
    """All prompts in one request, as a script would do it."""
    body = {"model": name, "prompt": prompts(round_), "n": ANSWERS, "max_tokens": TOKENS, "logprobs": 0}
    body |= {"return_token_ids": True, "ignore_eos": True}
    asyncio.run(_post(f"{found.url}/v1/completions", body))


def our_draw(found: Scene, version: int, round_: int) -> int:
    """The same through the pool, each prompt with a seed of its own; the tokens drawn."""
    requests = [Request(prompt, ANSWERS, 1000 * place + round_) for place, prompt in enumerate(prompts(round_))]
    drawn = found.pool.draw(requests, SamplingSpec(maxTokens=TOKENS), version=version, ends=[])
    return sum(len(completion.ids) for group in drawn for completion in group)


def handing_over(found: Scene) -> tuple[list[Row], int]:
    """Rows, and the version that is there at the end."""
    ours, bare, brought, moved = [], [], [], 0
    for number in range(HAND_OVERS + 1):
        path = next(found.adapters)
        handed = found.pool.load(number, path)
        ours.append(handed.seconds)
        moved = handed.bytes
        bare.append(bare_load(found, f"bare-{number}"))
        brought.append(bare[-1] + bare_copy(found))
    median, reference = statistics.median(ours[1:]), statistics.median(bare[1:])
    limit = statistics.median(brought[1:])
    return [
        Row("seconds until a new adapter serves", median, reference, "s", "1.5x of /v1/load_lora_adapter"),
        Row("the same", median, limit, "s", "1.5x of it after the bytes came over a socket"),
        Row("bytes that travel to each server", moved / 1e6, found.weights / 1e6, "MB", "against full weights"),
    ], HAND_OVERS


def drawing(found: Scene, version: int) -> list[Row]:
    """Tokens a second."""
    model = next(name for name in models(found) if name.startswith(f"v{version}-"))
    paces: list[tuple[float, float]] = []
    for round_ in range(DRAWS + 1):
        tokens = 0

        def ours(number: int = round_) -> None:
            nonlocal tokens
            tokens = our_draw(found, version, 2 * number)

        seconds = timed(ours)
        bare = timed(lambda number=round_: bare_draw(found, model, 2 * number + 1))
        paces.append((tokens / seconds, PROMPTS * ANSWERS * TOKENS / bare))
    kept = paces[1:]
    ratio = statistics.median(ours / bare for ours, bare in kept)
    reference = statistics.median(bare for _, bare in kept)
    return [Row("tokens drawn a second", ratio * reference, reference, "tokens/s", "at least 0.95 of bare")]


def models(found: Scene) -> list[str]:
    """What the server holds."""

    async def asked() -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"{found.url}/v1/models") as answer:
            return await answer.json()

    return [str(each["id"]) for each in asyncio.run(asked())["data"]]


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as directory, scene(Path(directory)) as found:
        rows, version = handing_over(found)
        report("rollout", [*rows, *drawing(found, version)])
