"""Answers are drawn from a real vLLM server: what it computes is what the trainer computes, and both methods learn.

One server is started for all tests here; each run hands it its own adapters.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from anneal_api.meta import ENV_ROLLOUT_HOST, ENV_VLLM_PYTHON
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import local
from anneal_trainer.methods.drawing import Chance, OwnModel, Servers
from anneal_trainer.methods.generating import Generator
from anneal_trainer.model import load_tokenizer
from anneal_trainer.rollout.local import LOOPBACK, LocalServer, Place, ports
from anneal_trainer.rollout.pool import Endpoint, Pool
from anneal_trainer.rollout.where import Rollout, as_here
from trainer.aligning import alignment_context, in_two_processes
from trainer.prompting import answered
from trainer.teaching import ROWS, small_letters_job, teach
from trainer.test_online import drawn
from trainer.training import CLAIM, alpaca_rows, records, write_jsonl

SERVED = {"rollout": {"mode": "server"}}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives the wanted answer one time in five, with heads as wide as vLLM needs them."""
    from anneal_trainer import quiet_libraries
    from anneal_trainer.data.formats import alpaca
    from anneal_trainer.quickstart import model

    quiet_libraries.apply()
    place = tmp_path_factory.mktemp("taught")
    texts = [alpaca.prompt(row["instruction"], row["input"]) + row["output"] for row in alpaca_rows()]
    model.build(texts, place / "start", vocabulary=320, width=64, heads=2)
    return teach(place / "start", place / "model")


@pytest.fixture(scope="module")
def server(taught: Path, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server of that model."""
    place = tmp_path_factory.mktemp("server")
    spec = alignment_context(place, small_letters_job("grpo", **SERVED)).spec
    assert isinstance(spec, RLHFSpec)
    with LocalServer(
        as_here(spec, gpu=False), Place(str(vllm_python), taught, place / "vllm.log", place / "ports")
    ) as running:
        running.wait(say=print)
        yield f"{LOOPBACK}:{ports(place / 'ports')[0]}"


@pytest.fixture
def place(tmp_path: Path, taught: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with the model and its prompts, where runs draw from the server."""
    shutil.copytree(taught, tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    monkeypatch.setenv(ENV_ROLLOUT_HOST, server)
    return tmp_path


@pytest.mark.parametrize(("method", "rate", "steps"), [("grpo", 1e-2, 24), ("rloo", 2e-2, 32)], ids=["grpo", "rloo"])
def test_what_is_rewarded_is_learnt(place: Path, method: str, rate: float, steps: int) -> None:
    """The mean reward rises from under 0.3 to over 0.9, of drawn answers and on the holdout.

    What draws agrees with what learns to rounding, at every step: each draw had the weights of its step.
    """
    training = {"maxSteps": steps, "learningRate": rate, "lrScheduler": "linear"}
    result = answered(place, small_letters_job(method, training=training, adapter={"r": 8}, **SERVED))
    found = records(place)
    told = [record for record in found if "reward" in record]
    assert found[0]["eval_reward"] < 0.3
    assert told[0]["reward"] < 0.3
    assert result.metrics["eval_reward"] > 0.9
    assert sum(record["reward"] for record in told[-5:]) / 5 > 0.9
    assert max(record["rollout/logp_difference"] for record in told) < 1e-4
    assert all(abs(record["rollout/importance"] - 1) < 1e-3 for record in told)
    assert [record["rollout/version"] for record in told] == list(range(steps))
    assert {(row["step"] - row["version"], row["staleness"]) for row in drawn(place, "job")} == {(1, 0)}


def test_older_weights_are_counted_bounded_and_weighed_for(place: Path) -> None:
    """What draws is at most so many steps behind; where it is behind, terms are weighed, unless the cap is 0."""
    for name, cap in (("weighed", 2.0), ("as-it-is", 0.0)):
        rollout = {"mode": "server", "maxStaleness": 2, "importanceCap": cap}
        changes = {"evaluation": {"holdout": {"count": 9}}, "training": {"maxSteps": 6, "learningRate": 1e-2}}
        answered(place, small_letters_job("grpo", name, adapter={"r": 8}, rollout=rollout, **changes))
    weighed, plain = (
        [record for record in records(place, name) if "reward" in record] for name in ("weighed", "as-it-is")
    )
    assert [record["rollout/version"] for record in weighed] == [0, 0, 0, 3, 3, 3]
    assert [record["rollout/staleness"] for record in weighed] == [0, 1, 2, 0, 1, 2]
    assert [record["rollout/stale_answers"] for record in weighed] == [0, 64, 64, 0, 64, 64]
    assert [record["rollout/logp_difference"] > 1e-3 for record in weighed] == [False, True, True, False, True, True]
    assert abs(weighed[1]["rollout/importance"] - 1) > 1e-3
    assert "rollout/importance" not in plain[1]
    # The second step learns from the same answers, drawn by the same weights.
    assert [record["reward"] for record in weighed[:2]] == [record["reward"] for record in plain[:2]]
    assert weighed[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-4)
    assert weighed[1]["grad_norm"] != pytest.approx(plain[1]["grad_norm"], rel=1e-3)


def test_greedy_answers_after_a_hand_over_are_the_trainers_own(place: Path, server: str) -> None:
    """For each version anew; and what was drawn is as likely as the trainer finds it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    spec = alignment_context(place, small_letters_job("grpo", sampling={"maxTokens": 8}, **SERVED)).spec
    assert isinstance(spec, RLHFSpec)
    assert spec.sampling is not None
    tokenizer = load_tokenizer(spec.model, place / "model")
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))
    own = OwnModel(Generator(model, tokenizer, spec.sampling, at_once=64))
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in ROWS]
    host, _, port = server.partition(":")
    named = [Endpoint(host, int(port), None)]
    pool = Pool(lambda: named, replicas=1, patience=60, served=None, log=print)
    servers, said = Servers(Rollout(pool, lambda: named, 1, 60), model, tokenizer, spec.sampling, world=1, rank=0), []
    try:
        for version in range(2):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(std=0.3)
            servers.follow(version, behind=0)
            found = servers.best(prompts)
            assert [each.ids for each in found] == [each.ids for each in own.best(prompts)]
            assert [each.cut_off for each in found] == [each.ids[-1] != tokenizer.eos_token_id for each in found]
            said.append([each.ids for each in found])
        drawn_now = servers.draw(prompts[:4], answers=3, chance=Chance(1, 0, 0))
    finally:
        pool.close()
    assert said[0] != said[1]
    for index, answer in enumerate(drawn_now):
        asked = prompts[index // 3]
        logits = model(torch.tensor([asked + answer.ids])).logits[0, len(asked) - 1 : -1]
        trainers = logits.log_softmax(-1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        assert trainers.tolist() == pytest.approx(answer.logprobs, abs=1e-4)


def test_two_processes_draw_from_one_server(place: Path) -> None:
    """Rank 0 hands over, both draw: the answers and what is learnt are those of one process."""
    changes = {"training": {"maxSteps": 3, "globalBatchSize": 32, "microBatchSize": 8, "learningRate": 1e-2}}
    answered(place, small_letters_job("grpo", "one", adapter={"r": 8}, **SERVED, **changes))
    (place / "prepared/prompt").symlink_to(next((place / "prepared").glob("?" * 16)))
    two = small_letters_job("grpo", "two", adapter={"r": 8}, compute={"gpusPerNode": 2}, **SERVED, **changes)
    in_two_processes(place, [two])
    assert [row["completion"] for row in drawn(place, "one")] == [row["completion"] for row in drawn(place, "two")]
    one, both = ([record for record in records(place, name) if "reward" in record] for name in ("one", "two"))
    for name in ("reward", "loss", "grad_norm", "rollout/version"):
        assert [record[name] for record in both] == pytest.approx([record[name] for record in one], rel=1e-3), name
    assert max(record["rollout/logp_difference"] for record in both) < 1e-4


def test_anneal_run_starts_a_server_of_its_own(
    place: Path, vllm_python: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a manifest to an adapter, with what the seconds went into; nothing is left running."""
    monkeypatch.delenv(ENV_ROLLOUT_HOST)
    monkeypatch.setenv(ENV_VLLM_PYTHON, str(vllm_python))
    job = small_letters_job("grpo", adapter={"r": 8}, training={"maxSteps": 3}, **SERVED)
    assert local.run(job, {CLAIM: place}) == 0
    told = capsys.readouterr().err
    assert f"starting vLLM (its log: {place / 'runs/job-rlhf/logs/vllm-0.log'})" in told
    assert re.search(r"^Spent +.*generate \d+%", told, re.MULTILINE)
    log = (place / "runs/job-rlhf/logs/vllm-0.log").read_text()
    assert "Application startup complete" in log
    assert not any(str(place / "model") in line for line in _commands())
    assert [record["rollout/replicas"] for record in records(place) if "reward" in record] == [1, 1, 1]


def _commands() -> list[str]:
    """Of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
