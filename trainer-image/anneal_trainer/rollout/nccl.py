"""All weights, from rank 0's GPU to the servers' GPUs, with TRL's client of vLLM's own weight transfer.

For full fine-tuning, and wherever `rollout.weightSync: nccl` is asked for. An adapter is merged for it: servers know
whole weights only. One group a server, one after the other. TRL's client is imported late: it needs a vLLM in the
trainer's own Python. Not here: drawing (`pool`, which is told that there are no adapters), and sharded models.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from anneal_trainer.errors import ConfigError, RolloutError
from anneal_trainer.rollout.api import Endpoint

# The first of the ports that groups meet at, one a server.
_GROUP_PORT: Final = 51216
_UP_SECONDS: Final = 60.0


class Weights:
    """The groups with all servers, on rank 0 alone. `client` is TRL's VLLMClient."""

    def __init__(self, endpoints: Sequence[Endpoint], device: Any, client: Callable[..., Any] | None = None) -> None:
        make = client or _client()
        self._clients = []
        for number, endpoint in enumerate(endpoints):
            with _told(endpoint):
                made = make(
                    base_url=f"http://{endpoint}", group_port=_GROUP_PORT + number, connection_timeout=_UP_SECONDS
                )
                made.init_communicator(device=device)
            self._clients.append((endpoint, made))

    def send(self, model: Any) -> tuple[float, int]:
        """Give every server the model's weights as they are; seconds, and bytes that travelled to all of them."""
        begun, size = time.monotonic(), 0
        with _merged(model):
            described = [(name, _dtype(weights), list(weights.shape)) for name, weights in named_weights(model)]
            for endpoint, client in self._clients:
                with _told(endpoint):
                    client.update_named_params(described, named_weights(model))
                    # What was computed with the old ones.
                    client.reset_prefix_cache()
                size += sum(weights.numel() * weights.element_size() for _, weights in named_weights(model))
        return time.monotonic() - begun, size

    def close(self) -> None:
        """Leave the groups; a server would wait for the trainer otherwise."""
        for _, client in self._clients:
            client.close_communicator()


def named_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Every weight of the base under the name that the base has it by; an adapter's own are left out."""
    prefix = getattr(model, "prefix", None) if hasattr(model, "merge_adapter") else None
    for name, weights in model.named_parameters():
        if prefix and (prefix in name or "original_module" in name):
            continue
        plain = name.removeprefix("base_model.model.") if prefix else name
        yield plain.replace(".base_layer", "").replace("modules_to_save.default.", ""), weights.data


@contextmanager
def _merged(model: Any) -> Iterator[None]:
    """While the block runs, the base holds what the adapter adds."""
    if not hasattr(model, "merge_adapter"):
        yield
        return
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()


@contextmanager
def _told(endpoint: Endpoint) -> Iterator[None]:
    """Whatever the client raises, with the server's name: it has no errors of its own."""
    try:
        yield
    except Exception as error:
        raise RolloutError(f"weights cannot be handed to the server at {endpoint}: {error}") from error


def _dtype(weights: Any) -> str:
    return str(weights.dtype).removeprefix("torch.")


def _client() -> Callable[..., Any]:
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise ConfigError(
            "rollout.weightSync: nccl needs vLLM in the trainer's image too, and it is not there: set images.colocate "
            "in the operator's Helm values to an image that has both, or train an adapter with weightSync: adapter"
        )
    from trl.generation.vllm_client import VLLMClient

    made: Callable[..., Any] = VLLMClient
    return made
