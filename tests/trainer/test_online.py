"""Training on drawn answers: layouts agree, a run goes on exactly, what is drawn is kept, and what fails is told."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from anneal_api import ProgressReport
from anneal_api.rlhfjob import RLHFJob, RLHFSpec
from anneal_trainer import completions
from anneal_trainer.context import Context, context_of_pod
from anneal_trainer.data import store
from anneal_trainer.errors import ConfigError, RewardError, StoppedError
from anneal_trainer.methods.generating import Generator, _Ends, numbers
from anneal_trainer.methods.online import patience
from anneal_trainer.methods.times import Times
from anneal_trainer.model import load_tokenizer
from anneal_trainer.order import AnswerOrder, RunOrder, answer_steps
from anneal_trainer.reporter import Reporter
from trainer.aligning import alignment_context, in_two_processes
from trainer.prompting import EXACT, GROUP, LETTER, answered, asking_rows, online_job, prepared
from trainer.test_preference import agree, without_times
from trainer.test_resume import StopAt
from trainer.training import write_jsonl

HELD = {"holdout": {"count": 5}}
# Between them: every way to average, to need a reference, and to learn from a draw more than once.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dapo": ("grpo", {"grpo": {"beta": 0.04, "skipEqualGroups": True}}),
    "gspo": ("grpo", {"grpo": {"loss": "grpo", "importanceSampling": "sequence", "iterations": 2}}),
    "dr-grpo": ("grpo", {"grpo": {"loss": "dr_grpo", "scaleRewards": "none"}}),
    "rloo": ("rloo", {"rloo": {"beta": 0.1, "normalizeAdvantages": True, "iterations": 2}}),
}


def made(form: str, name: str, micro: int = 8, **changes: Any) -> RLHFJob:
    """A job of one of the forms, five prompts held out."""
    method, block = FORMS[form]
    training = {"microBatchSize": micro, **changes.pop("training", {})}
    return online_job(method, name, **block, **{"evaluation": HELD, "training": training, **changes})


def measured(storage: Path, name: str) -> list[dict[str, float]]:
    """What was measured at each step and evaluation, but for times."""
    return [
        {key: value for key, value in record.items() if not key.endswith("/seconds") and not key.startswith("time/")}
        for record in without_times(storage, name)
    ]


def drawn(storage: Path, name: str) -> list[dict[str, Any]]:
    """Every answer that was kept."""
    files = completions.files(storage / f"runs/{name}-rlhf/samples")
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


@pytest.mark.parametrize("form", FORMS)
def test_accumulation_changes_nothing(storage: Path, form: str) -> None:
    """The same answers, rewards, losses, gradients and evaluation, also where a micro batch cuts a group."""
    for micro in (8, 2):
        answered(storage, made(form, f"micro-{micro}", micro))
    whole = measured(storage, "micro-8")
    assert len({record["reward"] for record in whole if "reward" in record}) > 1
    assert agree(whole, measured(storage, "micro-2"))
    said = drawn(storage, "micro-8")
    assert len(said) == 4 * 8 // (2 if "iterations" in FORMS[form][1][FORMS[form][0]] else 1)
    assert [row["completion"] for row in said] == [row["completion"] for row in drawn(storage, "micro-2")]


def test_two_processes_change_nothing(storage: Path) -> None:
    """Each draws half of the groups; rewards are asked once, for both."""
    chosen = ("dapo", "rloo")
    for form in chosen:
        answered(storage, made(form, f"{form}-one", micro=2))
    jobs = [made(form, f"{form}-two", micro=2, compute={"gpusPerNode": 2}) for form in chosen]
    (storage / "prepared/prompt").symlink_to(next((storage / "prepared").glob("?" * 16)))
    in_two_processes(storage, jobs)
    for form in chosen:
        assert agree(measured(storage, f"{form}-one"), measured(storage, f"{form}-two")), form
        assert [row["completion"] for row in drawn(storage, f"{form}-one")] == [
            row["completion"] for row in drawn(storage, f"{form}-two")
        ]


@pytest.mark.parametrize(("form", "stopped"), [("dapo", 3), ("rloo", 4)])
def test_a_stopped_run_goes_on_exactly(storage: Path, form: str, stopped: int) -> None:
    """Bit for bit, with dropout; a stop waits for the last step over the answers, and no answer is kept twice."""
    changes = {"adapter": {"r": 4, "dropout": 0.2}, "training": {"maxSteps": 6, "microBatchSize": 4}}
    changes["evaluation"] = {**HELD, "everySteps": 100}
    answered(storage, made(form, "whole", **changes))
    split = made(form, "split", **changes)
    with pytest.raises(StoppedError, match=f"stopped at step {stopped} of 6"):
        answered(storage, split, reporter=StopAt(2))
    assert answered(storage, split).resumed_from_step == stopped
    assert measured(storage, "split") == measured(storage, "whole")
    assert drawn(storage, "split") == drawn(storage, "whole")


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_full_fine_tuning_trains_too(storage: Path, method: str) -> None:
    """The reference is a copy of the starting weights, from which the policy moves away."""
    answered(storage, online_job(method, adapter=None, **{method: {"beta": 0.05, "iterations": 2}}))
    found = [record for record in measured(storage, "job") if "loss" in record]
    assert len(found) == 4
    assert any(record["grad_norm"] > 0 for record in found)
    if method == "grpo":
        assert found[-1]["kl"] > 0


def test_prompts_keep_what_rewards_need(storage: Path) -> None:
    """Tokens of the prompt, nothing that is trained, and the row's other columns as JSON beside them."""
    rows = [
        {"messages": [{"role": "user", "content": "Say red"}], "answer": "red", "level": {"hard": 1}},
        {"messages": [{"role": "user", "content": "Say red"}], "answer": "RED", "level": None},
    ]
    changes = {"datasets": [{"source": "volume://runs/prompts.jsonl"}], "preparation": {"duplicates": "dropExact"}}
    ready = prepared(storage, online_job(rewards=[EXACT], **changes), rows)
    data = ready.prepared.dataset(store.TRAIN)
    kept = [json.loads(row) for row in data[store.ROW]]
    assert [row["columns"] for row in kept] == [
        {"answer": "red", "level": {"hard": 1}},
        {"answer": "RED", "level": None},
    ]
    assert kept[0]["prompt"] == rows[0]["messages"]
    text = ready.tokenizer.decode(data[0]["input_ids"])
    assert text == "<|im_start|>user\nSay red<|im_end|>\n<|im_start|>assistant\n"
    assert (ready.report.trained_tokens, ready.report.types) == (0, ["chat_template"])


def test_a_prompt_leaves_room_for_its_answer(storage: Path) -> None:
    """What is longer than the sequence less the answer is cut, or told with both fields' names."""
    rows = [{"prompt": "Say red " * 40, "letter": "a"}]
    cut = prepared(storage, online_job(), rows)
    assert cut.report.longest == 96 - 6
    assert "have prompts longer than training.sequenceLength less sampling.maxTokens" in cut.report.warnings[0].message
    with pytest.raises(Exception, match=r"more than training.sequenceLength less sampling.maxTokens 90"):
        prepared(storage, online_job(preparation={"longRows": "error"}))


def test_a_column_that_is_not_there_is_told_before_training(storage: Path) -> None:
    """With those that are."""
    lacking = {"name": "right", "match": {"column": "solution"}}
    words = r"reward right: spec\.rewards\[1\]\.match\.column: .*no column solution.*answer, letter"
    with pytest.raises(ConfigError, match=words):
        prepared(storage, online_job(rewards=[LETTER, lacking]))


def test_a_column_that_cannot_be_compared_with_is_told_before_training(storage: Path) -> None:
    """Where only some rows hold a list, too."""
    rows = asking_rows(6)
    tagged = [{**row, "tags": [row["answer"]] if index % 2 else row["answer"]} for index, row in enumerate(rows)]
    listed = {"name": "tagged", "match": {"column": "tags"}}
    words = (
        r"reward tagged: spec\.rewards\[0\]\.match\.column tags: in 3 rows it holds a list, where text, a number, true"
    )
    with pytest.raises(ConfigError, match=words):
        prepared(storage, online_job(rewards=[listed]), tagged)


FAILING = "def reward(prompts, completions, letter):\n    raise ValueError('no judge today')\n"


def test_a_reward_that_fails_ends_the_run_with_its_name(storage: Path, monkeypatch: Any) -> None:
    """A user's error, with the traceback and the answer that was judged."""
    (storage / "judge.py").write_text(FAILING)
    monkeypatch.chdir(storage)
    job = online_job(rewards=[{"name": "judge", "function": {"file": "judge.py"}}])
    with pytest.raises(RewardError) as raised:
        answered(storage, job)
    assert "reward judge: raised ValueError: no judge today (8 of 8 answers; the first is" in str(raised.value)
    assert "judge.py" in str(raised.value)


def test_rewards_are_opened_before_a_gpu_is_waited_for(storage: Path, monkeypatch: Any) -> None:
    """By `prepare`, also where the data is ready."""
    monkeypatch.chdir(storage)
    prepared(storage, online_job())
    (storage / "judge.py").write_text("def reward(completions, gold): return [1.0]")
    job = online_job(rewards=[{"name": "judge", "function": {"file": "judge.py"}}])
    with pytest.raises(
        ConfigError,
        match=r"reward judge: spec\.rewards\[0\]\.function\.name reward asks for gold: .* it has answer, letter",
    ):
        prepared(storage, job)


def test_a_pod_knows_its_config_maps(storage: Path) -> None:
    """By their mounts; what it starts is told."""
    for name in ("config", "volumes/runs", "rewards/mine"):
        (storage / name).mkdir(parents=True)
    file = alignment_context(storage, online_job()).file
    (storage / "config/job.json").write_text(file.encode())
    rewards_dir = storage / "rewards"
    found = context_of_pod({}, config_dir=storage / "config", volumes_dir=storage / "volumes", rewards_dir=rewards_dir)
    assert found.reward_modules == {"mine": rewards_dir / "mine"}
    assert Context.decode(found.encode()) == found


def test_an_answer_depends_on_its_own_numbers_alone(storage: Path) -> None:
    """Whatever else is in the batch, and however wide that is; a stop text ends it, and so does the end of a turn."""
    from transformers import AutoModelForCausalLM

    job = online_job(
        sampling={"temperature": 1.3, "topK": 200, "topP": 0.99, "minP": 0.001, "maxTokens": 12, "stop": ["e"]}
    )
    spec = alignment_context(storage, job).spec
    tokenizer = load_tokenizer(spec.model, storage / "model")
    model = AutoModelForCausalLM.from_pretrained(storage / "model")
    prompts = [
        tokenizer(text)["input_ids"] for text in ("a", "a longer prompt", "b", "and the longest of them all")
    ] * 6
    by = np.concatenate([numbers(1, 0, place, answers=1, tokens=12) for place in range(24)])
    together = Generator(model, tokenizer, spec.sampling, at_once=24).answers(prompts, by)
    alone = Generator(model, tokenizer, spec.sampling, at_once=1).answers(prompts, by)
    assert [each.ids for each in together] == [each.ids for each in alone]
    assert len({each.text for each in together}) > 12
    for each in together:
        ended = "e" in each.text or each.ids[-1] == tokenizer.eos_token_id
        assert each.cut_off == (not ended)
        assert "e" not in tokenizer.decode(each.ids[:-1])


def test_a_stop_text_is_one_of_the_answer(storage: Path) -> None:
    """One that the prompt begins and the answer ends is none, as a server has it too."""
    from transformers import AutoModelForCausalLM

    spec = alignment_context(storage, online_job(sampling={"stop": ["ee"]})).spec
    tokenizer = load_tokenizer(spec.model, storage / "model")
    model = AutoModelForCausalLM.from_pretrained(storage / "model")
    (letter,) = tokenizer("e")["input_ids"]
    ends = _Ends(1, Generator(model, tokenizer, spec.sampling, at_once=1)._endings("cpu"))
    done = [ends(torch.full((1, length), letter), None).tolist() for length in (2, 3, 4)]
    assert done == [[False], [True], [True]]
    assert ends.lengths.tolist() == [2]


def test_waiting_is_taken_off_what_there_was_of_drawing() -> None:
    """Servers tell what was waited since the draw before, an evaluation among it, which is no part of this step."""
    times = Times()
    times.move(60.0, source="generate", target="wait")
    assert min(times.told.values()) >= 0
    assert times.told["time/wait"] == 0


def test_numbers_draw_as_often_as_a_token_is_likely(storage: Path) -> None:
    """Inverse transform sampling: the shares of first tokens are the model's own."""
    from transformers import AutoModelForCausalLM

    spec = alignment_context(storage, online_job(sampling={"maxTokens": 1, "topK": 3})).spec
    tokenizer = load_tokenizer(spec.model, storage / "model")
    model = AutoModelForCausalLM.from_pretrained(storage / "model")
    prompt = tokenizer("Say")["input_ids"]
    by = numbers(3, 0, 0, answers=4000, tokens=1)
    found = [
        each.ids[0] for each in Generator(model, tokenizer, spec.sampling, at_once=500).answers([prompt] * 4000, by)
    ]
    best = model(torch.tensor([prompt])).logits[0, -1].topk(3)
    for token, share in zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True):
        assert found.count(token) / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("processes", "micro"), [(1, 8), (2, 2), (2, 4), (4, 1)])
def test_a_process_gets_whole_groups(processes: int, micro: int) -> None:
    """Its share of each step, dealt a micro batch at a time, whatever the layout; iterations see it again."""
    order = AnswerOrder(RunOrder(10, 2, 4, 1), 3, group=GROUP, iterations=2, processes=processes, micro=micro)
    rows = list(order)
    assert len(rows) == len(order) == 3 * 16
    assert rows[:16] == rows[16:32] != rows[32:]
    dealt = [rows[:16][start : start + micro] for start in range(0, 16, micro)]
    shares = [row for process in range(processes) for part in dealt[process::processes] for row in part]
    assert shares == [number for number in list(order.prompts)[:4] for _ in range(GROUP)]


def test_epochs_count_prompts(storage: Path) -> None:
    """Each is answered and learnt from so often in a pass."""
    training = alignment_context(storage, online_job(training={"maxSteps": None, "epochs": 2.0})).spec.training
    assert answer_steps(training, 24, group=4, iterations=3) == 2 * 12 * 3
    order = AnswerOrder(RunOrder(24, 24, 2, 1), 72, group=4, iterations=3, processes=1, micro=8)
    assert order.epoch(72) == 2


def test_files_of_steps_that_come_again_go(tmp_path: Path) -> None:
    """And those before stay."""
    kept = completions.Completions(tmp_path, 0)
    for step in (2, 4, 10):
        kept.add([{"step": step, "prompt": "p", "completion": "c", "reward": 1.0}])
        kept.write(step)
    assert [completions.step_of(file) for file in completions.files(tmp_path)] == [2, 4, 10]
    assert [answer.step for answer in completions.latest(tmp_path)] == [10]
    completions.Completions(tmp_path, 4)
    assert [completions.step_of(file) for file in completions.files(tmp_path)] == [2, 4]
    assert completions.latest(tmp_path) == []


def test_ranks_that_resume_together_do_not_mind_what_another_has_removed(tmp_path: Path) -> None:
    """Each of them looks through the same directory."""
    for place in range(10):
        directory = tmp_path / str(place)
        directory.mkdir()
        for step in range(1, 65):
            (directory / f"completions-{step}.parquet").touch()
        begin = Barrier(8)

        def resumes(directory: Path = directory, begin: Barrier = begin) -> None:
            begin.wait()
            completions.Completions(directory, 0)

        with ThreadPoolExecutor(8) as ranks:
            for done in [ranks.submit(resumes) for _ in range(8)]:
                done.result()
        assert completions.files(directory) == []


def test_a_few_answers_of_the_last_draw_are_told_while_it_trains(storage: Path, capsys: Any) -> None:
    """Of different prompts first, in the report and, of a pod, in the log; the texts are bounded, the rewards those of the file."""
    told: list[ProgressReport] = []
    made_job = online_job(training={"maxSteps": 2}, rollout={"mode": "generate"})
    answered(storage, made_job, reporter=Reporter(ProgressReport(), told.append), records=storage)
    answers = told[-1].completions
    assert [each.step for each in answers] == [2] * 3
    assert len({each.prompt for each in answers}) == 2
    kept = {(row["prompt"], row["completion"], row["reward"]) for row in drawn(storage, "job") if row["step"] == 2}
    assert {(each.prompt, each.answer, each.reward) for each in answers} <= kept
    said = capsys.readouterr().err
    assert "drawn for step 1, reward " in said


@pytest.mark.parametrize(("reward", "told"), [(float("nan"), None), (0.5, 0.5)])
def test_what_is_told_of_an_answer_is_bounded(tmp_path: Path, reward: float, told: float | None) -> None:
    """The end of the prompt, the beginning of the answer; without a reward where nothing was said of it."""
    kept = completions.Completions(tmp_path, 0)
    kept.add([{"step": 1, "prompt": "a" * 600 + "b", "completion": "c" * 600, "reward": reward}])
    (found,) = completions.latest(tmp_path)
    assert (found.prompt, found.answer, found.reward) == ("a" * 511 + "b", "c" * 512, told)


def test_of_turns_the_question_is_told(tmp_path: Path) -> None:
    """What the user said last, where people look; the file has all turns."""
    turns = [{"role": role, "content": f"{role} {n}"} for n in (1, 2) for role in ("user", "assistant")][:3]
    kept = completions.Completions(tmp_path, 0)
    kept.add([{"step": 1, "prompt": asked, "completion": "c", "reward": 0.5} for asked in (turns, turns[1:2])])
    kept.write(1)
    assert [answer.prompt for answer in completions.latest(tmp_path)] == ["user 2", json.dumps(turns[1:2])]
    (file,) = completions.files(tmp_path)
    assert parquet.read_table(file).column("prompt").to_pylist() == [json.dumps(turns), json.dumps(turns[1:2])]


def test_fewer_prompts_than_a_step_asks_are_noted(storage: Path, capsys: Any) -> None:
    """With both numbers and where they come from; enough of them are not."""
    notes = []
    for name, rows in (("few", asking_rows(1)), ("enough", asking_rows(2))):
        made_job = online_job(name=name, training={"maxSteps": 1})
        prepared(storage, made_job, rows)
        answered(storage, made_job)
        notes.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("note: the data has")])
    (told,), none = notes
    assert "1 prompt, and a step draws answers to 2 (training.globalBatchSize 8 over grpo.numGenerations 4)" in told
    assert none == []


def test_other_ranks_wait_as_long_as_a_reward_and_the_servers_may_take(storage: Path) -> None:
    """As they stand in a collective meanwhile, which would end the attempt: of the slowest reward, as all are asked at once."""
    rewards = [
        {"name": "exact", "match": {}},
        {"name": "slow", "function": {"configMap": "c", "timeoutSeconds": 3600}},
        {"name": "far", "http": {"url": "http://judge", "timeoutSeconds": 3000, "retries": 2}},
    ]
    rollout = {"mode": "generate", "startTimeoutSeconds": 700}
    spec = alignment_context(storage, online_job(rewards=rewards, rollout=rollout)).spec
    assert isinstance(spec, RLHFSpec)
    assert patience(spec, servers=False) == 1800 + 3 * 3000 + 1 + 2
    assert patience(spec, servers=True) == 1800 + 3 * 3000 + 1 + 2 + 700


def test_rows_of_other_files_may_lack_a_column(storage: Path) -> None:
    """What a reward names is null there."""
    write_jsonl(storage / "prompts.jsonl", [*asking_rows(7), *({"prompt": f"Say {i}: "} for i in range(9))])
    result = answered(storage, online_job(training={"maxSteps": 2}))
    assert "rewards/short" in result.metrics
