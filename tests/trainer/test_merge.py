"""Jobs that start from what earlier jobs have made: merged once, exactly, and only if it is what was pinned."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from anneal_api import ProgressReport
from anneal_api.jobfile import JobFile
from anneal_api.origin import Made, pin
from anneal_api.status import Output, SourceReport
from anneal_trainer import local, local_prepare, merge, model
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError
from anneal_trainer.files import digest_of, read_json
from anneal_trainer.prepare import prepare
from anneal_trainer.preview.read import preview
from anneal_trainer.reporter import Reporter, silent
from trainer.aligning import alignment_job
from trainer.training import CLAIM, context, job, trained, write_jsonl

FIRST = "job://finetunejob/first"
BASE = f"volume://{CLAIM}/model"


def after(storage: Path, outputs: Sequence[Output], *, sources: tuple[SourceReport, ...] = (), **spec: Any) -> Context:
    """The context of a job that starts from the result of `first`."""
    source = sources[0].source if sources else BASE
    found = pin(FIRST, Made(method="sft", source=source, sources=sources, outputs=tuple(outputs)))
    here = context(storage, job("second", model={"source": FIRST}, **spec))
    return Context(here.file.model_copy(update={"sources": (found,)}), here.volumes)


def logits(path: Path, *adapters: Path) -> Any:
    """What a model says after some tokens; with adapters put onto it by PEFT, not merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(path)
    for adapter in adapters:
        model.cover(loaded, AutoTokenizer.from_pretrained(adapter))
        loaded = PeftModel.from_pretrained(loaded, adapter)
    with torch.no_grad():
        return loaded.eval()(torch.arange(24).reshape(1, 24)).logits


@pytest.fixture
def first(storage: Path) -> list[Output]:
    """The adapter of a job called `first`."""
    return trained(storage, job("first", training={"maxSteps": 3})).outputs


def test_a_merged_model_says_what_its_adapter_says(storage: Path, first: list[Output]) -> None:
    """To the last digits, as a plain model with the adapter's tokenizer; a second job finds it there."""
    import torch

    here = after(storage, first)
    merge.provide(here.spec.models[0], here)
    path = model.directory(here.spec.models[0], here)
    adapter = storage / "runs/first/output"
    torch.testing.assert_close(logits(path), logits(storage / "model", adapter), rtol=1e-5, atol=1e-5)
    assert (logits(path) - logits(storage / "model")).abs().max() > 1e-3
    assert (path / "tokenizer_config.json").read_bytes() == (adapter / "tokenizer_config.json").read_bytes()
    assert not (path / "adapter_config.json").exists()
    model.check_files(path, here.spec.models[0])
    before = (path / "model.safetensors").stat().st_mtime_ns
    merge.provide(here.spec.models[0], here)
    assert (path / "model.safetensors").stat().st_mtime_ns == before


def test_an_adapter_loads_by_itself(storage: Path, first: list[Output]) -> None:
    """What is written beside it does not make transformers take its directory for a whole model."""
    from transformers import AutoModelForCausalLM

    assert first[0].kind == "adapter"
    assert AutoModelForCausalLM.from_pretrained(storage / "runs/first/output").peft_config


def test_an_adapter_with_tokens_of_its_own_is_merged_with_them(storage: Path) -> None:
    """Their embeddings were trained, and the vocabulary is the adapter's."""
    import torch

    made = trained(
        storage, job("first", model={"source": BASE, "addSpecialTokens": ["<a>", "<b>"]}, training={"maxSteps": 3})
    )
    here = after(storage, made.outputs)
    merge.provide(here.spec.models[0], here)
    path = model.directory(here.spec.models[0], here)
    merged, apart = logits(path), logits(storage / "model", storage / "runs/first/output")
    torch.testing.assert_close(merged, apart, rtol=1e-5, atol=1e-5)
    assert merged.shape[-1] == len(model.load_tokenizer(here.spec.model, path))


def test_the_type_of_the_base_is_kept(storage: Path, first: list[Output]) -> None:
    """A half-precision model is not doubled by having been trained once."""
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(storage / "model", dtype=torch.bfloat16).save_pretrained(storage / "model")
    here = after(storage, first)
    merge.provide(here.spec.models[0], here)
    config = json.loads((model.directory(here.spec.models[0], here) / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def spoil(path: Path) -> None:
    """Another result in the same place."""
    (path / "README.md").write_text("made again", encoding="utf-8")


@pytest.mark.parametrize("adapter", [{"r": 4}, None], ids=["adapter", "full model"])
def test_another_result_in_the_same_place_is_refused(storage: Path, adapter: dict[str, int] | None) -> None:
    """By its digest, before anything is made of it; one that has gone is named."""
    made = trained(storage, job("first", adapter=adapter, training={"maxSteps": 1}))
    here, reporter = after(storage, made.outputs), Reporter(ProgressReport(), silent)
    spoil(storage / "runs/first/output")
    with pytest.raises(InputError, match=f"{FIRST}: finetunejob/first has written another result .* delete and apply"):
        prepare(here, reporter)
    (storage / "runs/first/output").rename(storage / "elsewhere")
    with pytest.raises(InputError, match="is not there any more: run finetunejob/first again"):
        prepare(here, reporter)
    assert not (storage / "models").exists()


def test_an_adapter_of_a_reward_model_is_not_merged(storage: Path, first: list[Output]) -> None:
    """Its head has no place in a language model."""
    file = storage / "runs/first/output/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "task_type": "SEQ_CLS"}))
    again = [first[0].model_copy(update={"digest": digest_of(file.parent)})]
    here = after(storage, again)
    with pytest.raises(InputError, match=r"of a model for SEQ_CLS.* train finetunejob/first without adapter"):
        merge.provide(here.spec.models[0], here)


def test_a_broken_adapter_leaves_nothing_behind(storage: Path, first: list[Output]) -> None:
    """Half a merged model is never seen."""
    file = storage / "runs/first/output/adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    here = after(storage, [first[0].model_copy(update={"digest": None})])
    with pytest.raises(InputError, match="its adapters cannot be merged"):
        merge.provide(here.spec.models[0], here)
    assert list((storage / "models").iterdir()) == []


def test_what_was_pinned_reaches_every_process(storage: Path, first: list[Output]) -> None:
    """The job's file and the context keep it, and another result makes another prepare key."""
    here = after(storage, first)
    decoded = JobFile.decode(here.file.encode())
    assert decoded.sources == here.file.sources
    assert decoded.prepare_key == here.file.prepare_key
    assert Context.decode(here.encode()).file.pin(FIRST) == here.file.pin(FIRST)
    other = after(storage, [first[0].model_copy(update={"digest": "sha256:other"})])
    assert other.file.prepare_key != here.file.prepare_key


def record(storage: Path, name: str) -> dict[str, Any]:
    """The record of a run."""
    found: dict[str, Any] = read_json(storage / "runs" / name / "run.json")
    return found


def test_runs_on_this_machine_start_from_one_another(storage: Path) -> None:
    """Three manifests in a row: the third loads the base with two adapters in it, or the full model of the second."""
    import torch

    volumes = {CLAIM: storage}
    short = {"maxSteps": 2}
    assert local.run(job("first", training=short), volumes, quiet=True) == 0
    assert local.run(job("second", model={"source": FIRST}, training=short), volumes, quiet=True) == 0
    third = job("third", model={"source": "job://finetunejob/second"}, training=short)
    assert local.run(third, volumes, quiet=True) == 0
    (pinned,) = record(storage, "third")["made"]["sources"]
    assert [each["uri"].split("/")[-2] for each in pinned["adapters"]] == ["first", "second"]
    (path,) = [path for path in (storage / "models").iterdir() if path == merged(storage, pinned)]
    adapters = [storage / "runs" / name / "output" for name in ("first", "second")]
    merged_first = merged(storage, record(storage, "second")["made"]["sources"][0])
    torch.testing.assert_close(logits(path), logits(merged_first, adapters[1]), rtol=1e-5, atol=1e-5)
    assert local.run(job("second", model={"source": FIRST}, adapter=None, training=short), volumes, quiet=True) == 0
    assert local.run(third, volumes, quiet=True) == 0
    (pinned,) = record(storage, "third")["made"]["sources"]
    assert (pinned["base"], pinned["adapters"]) == (f"volume://{CLAIM}/runs/second/output", [])


def merged(storage: Path, pinned: dict[str, Any]) -> Path:
    """Where what is pinned is kept."""
    from anneal_api import Layout

    return Layout(storage, "").merged(SourceReport.model_validate(pinned))


def test_data_is_looked_at_with_the_tokenizer_alone(storage: Path, tmp_path: Path) -> None:
    """Neither a preview nor prepared data of one's own needs weights, and nothing is merged for them."""
    assert local.run(job("first", training={"maxSteps": 1}), {CLAIM: storage}, quiet=True) == 0
    (storage / "model/model.safetensors").unlink()
    second = job("second", model={"source": FIRST})
    assert preview(second, {CLAIM: storage}, rows=2, dataset=None).rows[0].segments
    code, report, _ = local_prepare.prepare(second, {CLAIM: storage}, tmp_path / "out", pack=False, quiet=True)
    assert code == 0
    assert report is not None
    assert report.rows == 48
    assert not (storage / "models").exists()


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "never-run": ({}, None, "the run of finetunejob/first in .*/runs/first is not there: run it to its end first"),
    "not-ended": (
        {},
        {"done": False, "kind": "FineTuneJob", "name": "first", "made": None},
        "has not ended: run it to its end first",
    ),
    "other-kind": (
        {},
        {"done": True, "kind": "RLHFJob", "name": "first", "made": None},
        "finetunejob/first: first is an rlhfjob: write job://rlhfjob/first",
    ),
    "reward-model": (
        {},
        {"done": True, "kind": "FineTuneJob", "name": "first", "made": {"method": "reward", "source": "hf://a/b"}},
        "makes a model that judges answers",
    ),
}


@pytest.mark.parametrize(("options", "found", "words"), REFUSED.values(), ids=REFUSED)
def test_a_run_that_is_of_no_use_is_told_before_anything_is_made(
    storage: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], found: Any, words: str
) -> None:
    """With the run's place, and what to do; the exit code is that of an input that is missing."""
    import re

    if found:
        write_jsonl(storage / JobFile.local_run(found["kind"], "first") / "run.json", [found])
    assert local.run(job(**{"name": "second", "model": {"source": FIRST}, **options}), {CLAIM: storage}) == 66
    assert re.search(words, capsys.readouterr().err)
    assert not (storage / "runs/second").exists()


def test_an_adapter_of_a_judge_is_refused_as_a_start_before_anything_is_made(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its head has no place in a language model; the message says how to train it instead."""
    made = Made(method="reward", source="hf://a/b", adapter=True).dump()
    found = {"done": True, "kind": "RLHFJob", "name": "judge", "made": made}
    write_jsonl(storage / "runs/judge-rlhf/run.json", [found])
    later = alignment_job("prm", "later", model={"source": "job://rlhfjob/judge"})
    assert local.run(later, {CLAIM: storage}) == 66
    assert "merged: train rlhfjob/judge without adapter" in capsys.readouterr().err
    assert not (storage / "runs/later-rlhf").exists()


def test_a_result_stands_until_the_next_run_has_one(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Edited, started again and broken off: jobs that name it start from what there is, and are told so."""
    assert local.run(job("first", training={"maxSteps": 1}), {CLAIM: storage}, quiet=True) == 0
    whole = digest_of(storage / "runs/first/output")
    broken = job("first", datasets=[{"source": f"volume://{CLAIM}/none.jsonl"}])
    assert local.run(broken, {CLAIM: storage}, quiet=True) != 0
    assert digest_of(storage / "runs/first/output") == whole
    assert not record(storage, "first")["done"]
    second = job("second", model={"source": FIRST}, training={"maxSteps": 1})
    capsys.readouterr()
    assert local.run(second, {CLAIM: storage}, quiet=True) == 0
    assert "its latest run has not ended; this job starts from the result of the one before" in capsys.readouterr().err
    assert record(storage, "second")["made"]["sources"][0]["adapters"][0]["digest"] == whole
