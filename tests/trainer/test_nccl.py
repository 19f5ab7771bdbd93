"""Whole weights for servers: which, in which order. The client stands in for TRL's: its transfer needs GPUs on both sides."""

from pathlib import Path
from typing import Any

import pytest

from anneal_api.online import SamplingSpec
from anneal_trainer.errors import ConfigError, RolloutError, StoppedError
from anneal_trainer.methods.drawing import Servers
from anneal_trainer.rollout.nccl import Weights
from anneal_trainer.rollout.pool import Endpoint, Request
from anneal_trainer.rollout.where import Rollout
from trainer.vllms import pool_of, stand_ins

ENDPOINTS = [Endpoint("10.0.0.1", 8000, None), Endpoint("10.0.0.2", 8000, None)]


class Client:
    """What TRL's VLLMClient has of this."""

    def __init__(self, calls: list[Any], **where: Any) -> None:
        self._calls = calls
        self._url = where["base_url"]
        self.received: dict[str, Any] = {}
        calls.append(("new", self._url, where["group_port"]))

    def init_communicator(self, device: Any) -> None:
        self._calls.append(("init", self._url, device))

    def update_named_params(self, described: list[Any], named: Any) -> None:
        self.received = {name: weights.clone() for name, weights in named}
        told = [
            (name, str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in self.received.items()
        ]
        self._calls.append(("update", self._url, told == described))

    def reset_prefix_cache(self) -> None:
        self._calls.append(("reset", self._url))


def test_every_server_gets_all_weights_and_forgets_what_it_computed(tiny_model: Path) -> None:
    """A group for each, at a port of its own; the names are those of the model's own files."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    calls: list[Any] = []
    weights = Weights(ENDPOINTS, "cuda:0", lambda **where: Client(calls, **where))
    seconds, size = weights.send(AutoModelForCausalLM.from_pretrained(tiny_model))
    first, second = (f"http://{endpoint}" for endpoint in ENDPOINTS)
    assert calls == [
        ("new", first, 51216), ("init", first, "cuda:0"), ("new", second, 51217), ("init", second, "cuda:0"),
        ("update", first, True), ("reset", first), ("update", second, True), ("reset", second),
    ]  # fmt: skip
    own = load_file(tiny_model / "model.safetensors")
    assert size == 2 * sum(each.numel() * each.element_size() for each in own.values())
    assert seconds >= 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [{"modules_to_save": ["norm"]}, {"trainable_token_indices": {"embed_tokens": [3, 5]}}],
    ids=lambda o: next(iter(o)),
)
def test_an_adapter_is_merged_for_the_servers_alone(tiny_model: Path, dtype: str, options: dict[str, Any]) -> None:
    """They get what merging gives, under the base's names; the model that learns is as it was, bit for bit."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    plain = {name: each.clone() for name, each in base.named_parameters()}
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **options))
    for name, each in adapted.named_parameters():
        if any(part in name for part in ("lora_B", "trainable_tokens_delta", "modules_to_save")):
            torch.nn.init.normal_(each, std=0.1)
    before = {name: each.clone() for name, each in adapted.named_parameters()}
    made: list[Client] = []
    weights = Weights(ENDPOINTS[:1], "cuda", lambda **where: made.append(Client([], **where)) or made[-1])
    for _ in range(3):
        weights.send(adapted)
    assert made[0].received.keys() == plain.keys()
    for name, each in adapted.named_parameters():
        assert torch.equal(each, before[name]), name
    trained = {"model.norm.weight"} if "modules_to_save" in options else {"model.embed_tokens.weight"}
    for name in {"model.layers.0.mlp.up_proj.weight"} | trained:
        assert not torch.allclose(made[0].received[name], plain[name], atol=1e-2), name
    merged = dict(adapted.merge_and_unload().named_parameters())
    for name, each in made[0].received.items():
        torch.testing.assert_close(each, merged[name])


def test_a_server_that_does_not_take_weights_is_named() -> None:
    """The attempt can be tried again, with new servers."""

    def client(**_: Any) -> Any:
        raise ConnectionError("refused")

    with pytest.raises(RolloutError, match=r"weights cannot be handed to the server at 10.0.0.1:8000: refused"):
        Weights(ENDPOINTS, "cuda", client)


def test_without_vllm_the_remedy_is_told() -> None:
    """The trainer's own image has none."""
    with pytest.raises(ConfigError, match=r"weightSync: nccl needs vLLM in the trainer's image too.*images.colocate"):
        Weights(ENDPOINTS, "cuda")


def test_servers_with_whole_weights_are_drawn_from_by_the_bases_name() -> None:
    """Without any adapter; one that began anew has lost what it was sent, which ends the attempt."""
    with stand_ins(2) as (endpoints, kinds), pool_of(endpoints, adapters=False) as pool:
        for kind in kinds:
            kind.base_version = 7
        pool.sent(pool.processes(endpoints))
        found = pool.draw([Request([9], 1, None)], SamplingSpec(maxTokens=2), version=7, ends=[])
        assert found[0][0].ids[0] == 7
        for kind in kinds:
            kind.mood = "fails"
        with pytest.raises(RolloutError, match="5 times a server failed"):
            pool.draw([Request([9], 1, None)], SamplingSpec(maxTokens=2), version=7, ends=[])
        for kind in kinds:
            kind.begin_anew()
        with pytest.raises(RolloutError, match="began anew and has not the weights that servers were sent"):
            pool.draw([Request([9], 1, None)], SamplingSpec(maxTokens=2), version=8, ends=[])


def test_nothing_is_drawn_from_a_server_that_was_never_sent_weights() -> None:
    """A pod that was made again has another address; it would answer with the base as it was before training."""
    with stand_ins(2) as (endpoints, kinds):
        known = [endpoints[0]]
        with pool_of(known, adapters=False) as pool:
            pool.sent(pool.processes(known))
            known[:] = [endpoints[1]]
            with pytest.raises(RolloutError, match=rf":{endpoints[1].port} began anew and has not the weights"):
                pool.draw([Request([9], 1, None)], SamplingSpec(maxTokens=2), version=7, ends=[])
        assert not kinds[1].seen


def test_a_server_that_began_anew_before_the_first_draw_is_found() -> None:
    """Between the weights and the first look at it."""
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints, adapters=False) as pool:
        pool.sent(pool.processes(endpoints))
        kinds[0].begin_anew()
        with pytest.raises(RolloutError, match="began anew"):
            pool.draw([Request([9], 1, None)], SamplingSpec(maxTokens=2), version=7, ends=[])
        assert not kinds[0].seen


def test_servers_that_have_no_address_yet_are_waited_for() -> None:
    """A Service without a ready pod has none for a moment, which does not end the attempt."""
    answers: list[Any] = [OSError("Name or service not known"), [ENDPOINTS[0]], ENDPOINTS]

    def find() -> list[Endpoint]:
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return list(found)

    with pool_of([]) as pool:
        rollout = Rollout(pool, find, 2, 60, adapters=False)
        servers = Servers(rollout, None, None, SamplingSpec(), world=1, rank=0)
        assert servers._all_servers() == ENDPOINTS


def test_a_stop_is_heard_while_servers_are_waited_for() -> None:
    """Half an hour may be more than a pod is given to end."""
    with pool_of([]) as pool:
        rollout = Rollout(pool, list, 2, 1800, adapters=False, stop=lambda: True)
        with pytest.raises(StoppedError, match="asked to stop while waiting for all servers"):
            Servers(rollout, None, None, SamplingSpec(), world=1, rank=0)._all_servers()
