"""A real vLLM server: what it draws for an adapter is what the trainer would, and a new version is never mixed with an old one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anneal_api.online import SamplingSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.data.formats import alpaca
from anneal_trainer.errors import ConfigError
from anneal_trainer.rollout.pool import Completion, Endpoint, Pool, Request, Served
from trainer import shapes
from trainer.training import alpaca_rows
from trainer.vllms import loader_beside, pool_of, rank0_serving, vllm_server

RANK = 8
TOKENS = 12


@dataclass(frozen=True)
class Scene:
    """A server with a loader beside it, rank 0's records, and adapters that change what the model says."""

    endpoint: Endpoint
    served: Served
    model: Path
    adapters: list[Path]


@pytest.fixture(scope="module")
def scene(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One server for all tests here: it takes a minute to start."""
    from anneal_trainer import quiet_libraries
    from anneal_trainer.quickstart import model

    quiet_libraries.apply()
    path = tmp_path_factory.mktemp("vllm")
    # vLLM computes no heads of fewer than 32 on CPUs.
    small = path / "model"
    model.build(
        [alpaca.prompt(row["instruction"], row["input"]) for row in alpaca_rows()],
        small,
        vocabulary=320,
        width=64,
        heads=2,
    )
    spec = shapes.spec(
        "grpo",
        rewards=[{"name": "short", "length": {"most": 4}}],
        adapter={"r": RANK},
        sampling={"maxTokens": 32},
        training={"sequenceLength": 128, "seed": 1, "globalBatchSize": 8},
        rollout={"mode": "server", "gpus": 0},
    )
    assert isinstance(spec, RLHFSpec)
    adapters = [adapter_of(small, path / f"adapter-{seed}", seed) for seed in range(2)]
    with (
        vllm_server(vllm_python, spec, small, path / "log") as port,
        loader_beside(port, path / "fetched") as loader,
        rank0_serving(path / "records") as served,
    ):
        yield Scene(Endpoint("127.0.0.1", port, loader), served, small, adapters)


@pytest.fixture
def pool(scene: Scene) -> Iterator[Pool]:
    """As rank 0 has it."""
    with pool_of([scene.endpoint], served=scene.served, patience=60, hung_after=60) as made:
        yield made


def adapter_of(model: Path, path: Path, seed: int) -> Path:
    """A LoRA adapter of random weights, as large as what makes a difference."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    adapted.save_pretrained(path)
    return path


class Trainers:
    """The model as the trainer has it, with an adapter or without one."""

    def __init__(self, model: Path, adapter: Path | None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(model).eval()
        self.model: Any = base if adapter is None else PeftModel.from_pretrained(base, adapter).eval()

    def most_likely(self, prompt: list[int]) -> list[int]:
        """Its own greedy answer."""
        import torch

        with torch.no_grad():
            whole = self.model.generate(
                input_ids=torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, eos_token_id=2
            )
        return [int(token) for token in whole[0, len(prompt) :]]

    def logprobs(self, prompt: list[int], answer: list[int], temperature: float) -> list[float]:
        """Of each token of an answer, as it is drawn."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / temperature
        return [float(each) for each in logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]]


PROMPTS = [[5 + place, 17, 9 + 3 * place, 40] for place in range(8)]


def greedy(pool: Pool, version: int) -> list[list[int]]:
    """The most likely answers to all prompts."""
    requests = [Request(prompt, 1, None) for prompt in PROMPTS]
    found = pool.draw(requests, SamplingSpec(maxTokens=TOKENS), version=version, ends=[2], greedy=True)
    return [group[0].ids for group in found]


def test_after_a_hand_over_answers_are_the_trainers_own(scene: Scene, pool: Pool) -> None:
    """Greedy ones, token by token, for one version after the other; base and adapters differ, so that this says something."""
    own = [[Trainers(scene.model, each).most_likely(prompt) for prompt in PROMPTS] for each in (None, *scene.adapters)]
    assert own[0] != own[1] != own[2] != own[0]
    # The same prompts each time: what the server keeps of them for one version must not answer for the next.
    for version in (0, 1, 2):
        handed = pool.load(version, scene.adapters[version % 2])
        assert greedy(pool, version) == own[1 + version % 2]
        assert handed.seconds < 20


def test_log_probabilities_are_the_trainers_own(scene: Scene, pool: Pool) -> None:
    """Of what was drawn, at the temperature it was drawn with, to 1e-4."""
    pool.load(5, scene.adapters[1])
    sampling = SamplingSpec(maxTokens=TOKENS, temperature=0.7)
    found = pool.draw([Request(prompt, 4, None) for prompt in PROMPTS], sampling, version=5, ends=[2])
    own = Trainers(scene.model, scene.adapters[1])
    for prompt, group in zip(PROMPTS, found, strict=True):
        for completion in group:
            assert completion.logprobs == pytest.approx(own.logprobs(prompt, completion.ids, 0.7), abs=1e-4)
    assert len({tuple(completion.ids) for group in found for completion in group}) > 8


def test_a_seed_draws_the_same_again(scene: Scene, pool: Pool) -> None:
    """And another one something else; the answers of a group differ."""
    pool.load(6, scene.adapters[0])

    def drawn(seed: int) -> list[Completion]:
        sampling = SamplingSpec(maxTokens=TOKENS)
        return pool.draw([Request(PROMPTS[0], 4, seed)], sampling, version=6, ends=[2])[0]

    first = drawn(100)
    assert [each.ids for each in drawn(100)] == [each.ids for each in first]
    assert [each.ids for each in drawn(200)] != [each.ids for each in first]
    assert len({tuple(each.ids) for each in first}) == 4


def test_many_prompts_with_seeds_are_read_whole(scene: Scene, pool: Pool) -> None:
    """More tokens than the server reads at once: a prompt with a seed that is read in pieces ends its engine on CPUs."""
    pool.load(7, scene.adapters[0])
    requests = [Request([10 + (place * token) % 290 for token in range(1, 97)], 2, place * 8) for place in range(80)]
    found = pool.draw(requests, SamplingSpec(maxTokens=2), version=7, ends=[2])
    assert [len(group) for group in found] == [2] * 80
    assert pool.measures()["retries"] == 0


def test_answers_end_as_the_trainers_do(scene: Scene, pool: Pool) -> None:
    """At an ending token, which is part of the answer; with the token that completes a stop text; or cut off."""
    from transformers import AutoTokenizer

    pool.load(8, scene.adapters[0])
    tokenizer = AutoTokenizer.from_pretrained(scene.model)
    requests = [Request(prompt, 8, 1000 * place) for place, prompt in enumerate(PROMPTS)]
    ends = list(range(100, 130))

    def drawn(**how: Any) -> list[Completion]:
        given = {"maxTokens": 32, **how.pop("sampling", {})}
        return [each for group in pool.draw(requests, SamplingSpec(**given), version=8, **how) for each in group]

    by_token = drawn(ends=ends)
    for each in by_token:
        assert len(each.ids) == len(each.logprobs)
        assert each.cut_off == (each.ids[-1] not in (*ends, 2))
        assert not set(each.ids[:-1]) & set(ends)
        assert len(each.ids) == 32 or not each.cut_off
    assert {each.cut_off for each in by_token} == {True, False}
    by_text = drawn(ends=[2], sampling={"stop": ["e"]})
    stopped = [each for each in by_text if not each.cut_off and each.ids[-1] != 2]
    assert stopped
    for each in stopped:
        assert "e" in tokenizer.decode(each.ids, skip_special_tokens=True)
        assert "e" not in tokenizer.decode(each.ids[:-1], skip_special_tokens=True)


def test_a_prompt_without_room_is_refused(scene: Scene, pool: Pool) -> None:
    """In the server's words, with the fields that say how much room there is."""
    pool.load(9, scene.adapters[0])
    with pytest.raises(ConfigError, match=re.escape("refuses a prompt of 120 tokens with sampling.maxTokens 20")):
        pool.draw([Request([5] * 120, 1, None)], SamplingSpec(maxTokens=20), version=9, ends=[2])


def test_an_adapter_of_a_larger_rank_is_refused(scene: Scene, pool: Pool, tmp_path: Path) -> None:
    """With what the server allows; the one before stays what is drawn from."""
    import json
    import shutil

    larger = shutil.copytree(scene.adapters[0], tmp_path / "larger")
    config = json.loads((larger / "adapter_config.json").read_text())
    (larger / "adapter_config.json").write_text(json.dumps({**config, "r": 64}))
    with pytest.raises(ConfigError, match="LoRA rank 64 is greater than max_lora_rank 8"):
        pool.load(10, larger)
