"""Prompts shared among servers that die, hang, mumble and come back: stand-ins on loopback that speak as vLLM does."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from anneal_api.online import SamplingSpec
from anneal_trainer.errors import ConfigError, RolloutError, StoppedError
from anneal_trainer.rollout.pool import Completion, Pool, Request
from anneal_trainer.rollout.replicas import Keeper
from anneal_trainer.rollout.served import publish
from trainer.vllms import adapter_at, pool_of, rank0_serving, stand_ins

SAMPLING = SamplingSpec(maxTokens=4, temperature=0.5, topP=0.9, topK=7, minP=0.1, stop=["\n"])


def asked(count: int = 12, answers: int = 2) -> list[Request]:
    """Prompts that their first token tells apart."""
    return [Request([place, 5], answers, seed=place * answers) for place in range(count)]


def drawn(pool: Pool, requests: list[Request], version: int, **options: Any) -> list[list[list[int]]]:
    """The tokens of the answers: the version, the server, the prompt."""
    found = pool.draw(requests, SAMPLING, version=version, ends=[2, 3], **options)
    return [[completion.ids for completion in group] for group in found]


def is_whole(found: list[list[list[int]]], requests: list[Request], version: int) -> bool:
    """Whether every prompt has its answers, in order, all of that version."""
    told = [[(ids[0], ids[2]) for ids in group] for group in found]
    return told == [[(version, request.prompt[0])] * request.answers for request in requests]


def test_prompts_are_shared_and_answers_are_in_order(tmp_path: Path) -> None:
    """Each server gets half; each answer is of the version that was handed over, at its prompt's place."""
    with stand_ins(2) as (endpoints, kinds), pool_of(endpoints) as pool:
        handed = pool.load(3, adapter_at(tmp_path / "a"))
        found = drawn(pool, asked(), 3)
        assert is_whole(found, asked(), 3)
        assert [len(kind.seen) for kind in kinds] == [6, 6]
        assert handed.replicas == 2
        assert pool.measures() == {"retries": 0, "lost": 0, "loads": 2, "seconds_waited": pytest.approx(0, abs=2)}
        assert pool.measures()["loads"] == 0


def test_a_request_says_how_answers_are_drawn(tmp_path: Path) -> None:
    """All of sampling, the tokens that end an answer, and the prompt's seed; greedy asks for one answer, without any."""
    with stand_ins() as (endpoints, kinds), pool_of(endpoints) as pool:
        pool.load(0, adapter_at(tmp_path / "a"))
        (first,) = pool.draw([Request([9], 2, 7)], SAMPLING, version=0, ends=[2, 3])
        (likely,) = pool.draw([Request([9], 2, None)], SAMPLING, version=0, ends=[2], greedy=True)
    sampled, greedy = kinds[0].seen
    assert {key: sampled[key] for key in ("n", "seed", "temperature", "top_p", "top_k", "min_p", "max_tokens")} == {
        "n": 2, "seed": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "max_tokens": 4,
    }  # fmt: skip
    assert (sampled["stop"], sampled["stop_token_ids"], sampled["logprobs"]) == (["\n"], [2, 3], 0)
    assert (greedy["n"], greedy["temperature"], "seed" in greedy, "top_p" in greedy) == (1, 0, False, False)
    assert first == [Completion([0, 0, 9], [-0.5, -0.25, -0.125], cut_off=False)] * 2
    assert len(likely) == 2


def test_a_new_version_replaces_the_old_one(tmp_path: Path) -> None:
    """Under another name, at another path; a server holds one adapter, and so does rank 0's disk."""
    with rank0_serving(tmp_path / "records") as served, stand_ins(2, loaders=tmp_path / "l") as (endpoints, kinds):
        with pool_of(endpoints, served=served) as pool:
            for version in (1, 2):
                handed = pool.load(version, adapter_at(tmp_path / str(version), f"weights {version}"))
                assert is_whole(drawn(pool, asked(4), version), asked(4), version)
                assert handed.bytes == 2 * (len("weights 1") + 2)
        for number, kind in enumerate(kinds):
            (name,) = kind.adapters
            assert name.startswith("v2-")
            assert [path.name for path in (tmp_path / "l" / str(number)).iterdir()] == [name]
        assert [path.name for path in served.directory.iterdir()] == [name]
        assert kinds[0].loads[0] != kinds[0].loads[1]


def test_what_is_loaded_already_does_not_travel_again(tmp_path: Path) -> None:
    """A trainer that begins again with the same weights finds them there: the name is that of the content."""
    with rank0_serving(tmp_path / "records") as served, stand_ins(1, loaders=tmp_path / "l") as (endpoints, kinds):
        for directory in ("a", "b"):
            with pool_of(endpoints, served=served) as pool:
                pool.load(4, adapter_at(tmp_path / directory))
        assert len(kinds[0].loads) == 1
        with pool_of(endpoints, served=served) as pool:
            pool.load(4, adapter_at(tmp_path / "c", "others"))
        assert len(kinds[0].loads) == 2


def test_an_adapter_is_not_loaded_twice_where_an_older_one_could_not_be_taken_away(tmp_path: Path) -> None:
    """VLLM refuses what it has already, which would look as if the adapter were wrong and end the job."""
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "keeps"
        pool.load(2, adapter_at(tmp_path / "b", "others"))
        assert [name.partition("-")[0] for name in kinds[0].loads] == ["v1", "v2"]
        assert [name.partition("-")[0] for name in kinds[0].adapters] == ["v2"]


@pytest.mark.parametrize("mood", ["dies", "mumbles", "fails"])
def test_prompts_of_a_server_that_fails_go_to_another(tmp_path: Path, mood: str) -> None:
    """Whether it dies in the middle, answers what is no completion, or says that its engine is dead."""
    with stand_ins(2) as (endpoints, kinds), pool_of(endpoints) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = mood
        kinds[1].seconds = 0.05
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert kinds[0].seen
        measured = pool.measures()
        assert measured["retries"] >= 6
        assert measured["lost"] >= 1


def test_a_server_that_began_anew_is_given_the_adapter_again(tmp_path: Path) -> None:
    """Before anything is drawn from it, and without being asked by the trainer."""
    logged: list[str] = []
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints, log=logged.append) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].begin_anew()
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert len(kinds[0].loads) == 2
    assert any("has no v1-" in line for line in logged)


def test_a_server_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """While there is no other one; it comes back without its adapters."""
    import threading

    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "dead"
        back = threading.Timer(1.5, kinds[0].begin_anew)
        back.start()
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert pool.measures()["seconds_waited"] > 1


def test_a_server_that_comes_later_is_drawn_from(tmp_path: Path) -> None:
    """The addresses of the Service are asked for again and again."""
    with stand_ins(2) as (endpoints, kinds):
        known = [endpoints[0]]
        with pool_of(known) as pool:
            pool.load(1, adapter_at(tmp_path / "a"))
            known.append(endpoints[1])
            kinds[0].seconds = 0.3
            # More than one server is asked for at once.
            assert is_whole(drawn(pool, asked(9, 256), 1), asked(9, 256), 1)
            assert len(kinds[1].seen) >= 1


def test_patience_ends(tmp_path: Path) -> None:
    """With who was waited for, and what each last said; the attempt may be tried again."""
    with stand_ins(2) as (endpoints, kinds), pool_of(endpoints, patience=1.5) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        for kind in kinds:
            kind.mood = "dead"
        with pytest.raises(
            RolloutError, match=rf"startTimeoutSeconds\).*:{endpoints[0].port} cannot be reached"
        ) as caught:
            drawn(pool, asked(), 1)
        assert f":{endpoints[1].port} " in str(caught.value)
        assert caught.value.exit_code == 75


def test_no_server_at_all_is_told(tmp_path: Path) -> None:
    """A Service without a ready pod has no address."""

    def find() -> list[Any]:
        raise OSError("Name or service not known")

    pool = Pool(find, replicas=1, patience=1, served=None, log=print)
    with pytest.raises(RolloutError, match=r"no server is ready \(Name or service not known\)"):
        pool.load(1, adapter_at(tmp_path / "a"))
    pool.close()


def test_a_prompt_that_servers_die_of_does_not_go_on_for_ever(tmp_path: Path) -> None:
    """Five servers are lost with it; the attempt ends before its patience does."""
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints, patience=60) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "fails"
        with pytest.raises(RolloutError, match=r"5 times a server failed with one prompt of 2 tokens; .* EngineCore"):
            drawn(pool, asked(1), 1)


def test_a_server_that_hangs_is_complained_about_and_left_alone(tmp_path: Path) -> None:
    """Its prompts go to the other one; /live is 503 until its process began anew, and only then is it drawn from."""
    with (
        rank0_serving(tmp_path / "records") as served,
        stand_ins(2, loaders=tmp_path / "l") as (endpoints, kinds),
        pool_of(endpoints, served=served) as pool,
    ):
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "hangs"
        begun = time.monotonic()
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert 0.9 < time.monotonic() - begun < 8
        assert _status(endpoints[0].loader, "/live") == 503
        assert _status(endpoints[1].loader, "/live") == 200
        # It looks well, but for that: it answers /v1/models and holds the adapter.
        assert len(kinds[0].adapters) == 1
        asked_before = len(kinds[0].seen)
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert len(kinds[0].seen) == asked_before
        kinds[0].begin_anew()
        kinds[1].mood = "dead"
        assert is_whole(drawn(pool, asked(), 1), asked(), 1)
        assert _status(endpoints[0].loader, "/live") == 200


def test_a_server_that_takes_long_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    """It counts tokens: two seconds for an answer, where one second without a token is a hang."""
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "slow"
        assert is_whole(drawn(pool, asked(2), 1), asked(2), 1)
        assert pool.measures()["lost"] == 0


@pytest.mark.parametrize("version", ["0.21.3", "0.32.0", "1.0", "dev"])
def test_a_version_that_is_not_known_is_refused(tmp_path: Path, version: str) -> None:
    """With those that are."""
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints) as pool:
        kinds[0].version = version
        with pytest.raises(
            ConfigError, match=rf"is vLLM {version}; versions 0.22 to 0.31 are supported: set rollout.image"
        ):
            pool.load(1, adapter_at(tmp_path / "a"))


@pytest.mark.parametrize("loaders", [False, True], ids=["by path", "loader"])
def test_an_adapter_that_a_server_refuses_is_not_tried_again(tmp_path: Path, *, loaders: bool) -> None:
    """In the server's own words: it is not the network's fault."""
    with (
        rank0_serving(tmp_path / "r") as served,
        stand_ins(loaders=tmp_path / "l" if loaders else None) as (found, kinds),
    ):
        kinds[0].mood = "refuses"
        with (
            pool_of(found, served=served) as pool,
            pytest.raises(ConfigError, match=r"refuses the adapter: .*LoRA rank 64 is greater than max_lora_rank 8"),
        ):
            pool.load(1, adapter_at(tmp_path / "a"))


def test_another_rank_draws_what_rank_0_handed_over(tmp_path: Path) -> None:
    """It knows the version alone, finds the name at the server, and waits for one that has not got it yet."""
    with stand_ins(2) as (endpoints, kinds), pool_of(endpoints) as first, pool_of(endpoints) as second:
        first.load(1, adapter_at(tmp_path / "a"))
        assert is_whole(drawn(second, asked(), 1), asked(), 1)
        for kind in kinds:
            kind.begin_anew()
        # Nobody but rank 0's own pool gives the adapter again: it looks every few seconds.
        assert is_whole(drawn(second, asked(), 1), asked(), 1)
        first.load(2, adapter_at(tmp_path / "b", "new"))
        assert is_whole(drawn(second, asked(), 2), asked(), 2)


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    """The pod's grace is shorter than the patience with servers."""
    stop: list[bool] = []
    with stand_ins(1) as (endpoints, kinds), pool_of(endpoints, patience=60, stop=lambda: bool(stop)) as pool:
        pool.load(1, adapter_at(tmp_path / "a"))
        kinds[0].mood = "dead"
        stop.append(True)
        with pytest.raises(StoppedError, match="asked to stop while waiting for a server"):
            drawn(pool, asked(), 1)


def test_rank_0_serves_adapters_and_nothing_else(tmp_path: Path) -> None:
    """By exact names; what else is among its records is not to be had that way."""
    with rank0_serving(tmp_path / "records") as served:
        name = publish(served.directory, 3, adapter_at(tmp_path / "a")).name
        (tmp_path / "records" / "secret").write_text("{}")
        assert _status(served.port, f"/adapters/{name}/adapter_config.json") == 200
        for path in ("secret", f"{name}/../../secret", f"{name}/%2e%2e/secret", f"../{name}", f"{name}/other", name):
            assert _status(served.port, f"/adapters/{path}") == 404


def _status(port: int | None, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_another_rank_does_not_draw_from_an_earlier_attempts_adapter_of_the_same_step(tmp_path: Path) -> None:
    """Once it was told the name, a server that still holds the other one is waited for."""
    with stand_ins() as (endpoints, _):
        with pool_of(endpoints) as earlier:
            earlier.load(1, adapter_at(tmp_path / "a"))
        with pool_of(endpoints) as first, pool_of(endpoints, patience=1.5) as second:
            second.expects(publish(tmp_path, 1, adapter_at(tmp_path / "b", "new")).name)
            with pytest.raises(RolloutError, match="not yet the adapter of step 1"):
                drawn(second, asked(), 1)
            first.load(1, adapter_at(tmp_path / "c", "new"))
            second.expects(first.name)
            assert is_whole(drawn(second, asked(), 1), asked(), 1)


def test_looking_after_servers_ends_whatever_happens_then() -> None:
    """Also where news comes in the same moment: closing a pool would wait for ever."""

    async def ended() -> bool:
        keeper = Keeper(session=None, find=list, port=None, log=print)  # type: ignore[arg-type]  # nothing is asked
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(0.05)
        keeper.look_now()
        # The inner wait is over when the cancellation comes.
        await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.wait([keeping], timeout=1)
        return keeping.done()

    assert asyncio.run(ended())
