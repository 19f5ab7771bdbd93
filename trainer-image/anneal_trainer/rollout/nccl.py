"""All weights, from rank 0's GPU to the servers' GPUs, with TRL's client of vLLM's own weight transfer.

For full fine-tuning, and wherever `rollout.weightSync: nccl` is asked for. An adapter is merged for it: servers know
whole weights only. One group a server, one after the other; TRL's client leaves its group as the process ends, and is
imported late: it needs a vLLM in the trainer's own Python. Not here: drawing (`pool`, which is told that there are no
adapters), and sharded models.
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
# Beside an adapter's prefix: parts of names of weights that the base has not, and those that PEFT puts into the others.
_ADAPTERS_OWN: Final = ("original_module", "trainable_tokens_")
_WRAPPERS: Final = ("modules_to_save.default.", "token_adapter.")


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
        held = [(name, weights) for name, weights, _ in _held(model)]
        described = [(name, _dtype(weights), list(weights.shape)) for name, weights in held]
        for endpoint, client in self._clients:
            with _told(endpoint):
                client.update_named_params(described, named_weights(model))
                # What was computed with the old ones.
                client.reset_prefix_cache()
            size += sum(weights.numel() * weights.element_size() for _, weights in held)
        return time.monotonic() - begun, size


def named_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Every weight of the base, under the name that the base has it by, with what the adapter adds."""
    for name, weights, layer in _held(model):
        yield name, weights.data if layer is None else _merged(layer)


def _held(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """The same without it, and the layer that adds something, if one does."""
    if not hasattr(model, "merge_adapter"):
        yield from ((name, weights, None) for name, weights in model.named_parameters())
        return
    for name, weights in model.named_parameters():
        if any(part in name for part in (model.prefix, *_ADAPTERS_OWN)):
            continue
        layer, base, which = name.rpartition(".base_layer.")
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        for part in _WRAPPERS:
            plain = plain.replace(part, "")
        yield plain, weights, model.get_submodule(layer) if base and which == "weight" else None


def _merged(layer: Any) -> Any:
    """A copy. Taking what was merged out of the base again would leave rounding there, more with every step."""
    base = layer.get_base_layer()
    own = base.weight.data
    base.weight.data = own.clone()
    try:
        layer.merge()
        return base.weight.data
    finally:
        base.weight.data = own
        layer.merged_adapters.clear()


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
