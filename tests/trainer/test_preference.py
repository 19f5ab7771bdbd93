"""Training on pairs and on judged answers: layouts agree, references are what they say, and what is kept is used again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anneal_api import ProgressReport
from anneal_trainer import reference, samples
from anneal_trainer.errors import InputError, StoppedError
from anneal_trainer.model import device, load_model, load_tokenizer
from anneal_trainer.plan import make_plan
from anneal_trainer.reporter import Reporter
from anneal_trainer.stop import Stop
from trainer.aligning import (
    aligned,
    alignment_context,
    alignment_job,
    compared_rows,
    in_two_processes,
    judged_rows,
    made_ready,
    pair_rows,
    pair_texts,
    step_rows,
    tokenizer_of,
)
from trainer.test_resume import StopAt
from trainer.training import losses, records

# Between them: terms over pairs, over tokens and over sorted steps, with a reference and without.
MIXED = {"losses": ["sigmoid", "sft", "aot", "aot_unpaired"], "labelSmoothing": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"dpo": MIXED},
    "ipo": {},
    "orpo": {},
    "simpo": {"simpo": {"sftWeight": 0.5}},
    "cpo": {},
    "kto": {"kto": {"desirableWeight": 1.5}},
    "reward": {"reward": {"centerCoefficient": 0.01}},
    "prm": {},
}
HELD = {"holdout": {"count": 6}}


def rows_for(storage: Path, method: str) -> list[dict[str, Any]]:
    """Rows that the method reads."""
    tokenizer, texts = tokenizer_of(storage), pair_texts()
    match method:
        case "kto":
            return judged_rows(tokenizer, texts)
        case "reward":
            return [row | {"margin": 0.25 * (i % 3)} for i, row in enumerate(compared_rows(tokenizer, texts))]
        case "prm":
            return step_rows(
                tokenizer,
                [(ask, [(good, True), (bad, False)][: 1 + i % 2]) for i, (ask, good, bad) in enumerate(texts)],
            )
    return pair_rows(tokenizer, texts)


def run(storage: Path, method: str, name: str, micro: int = 8, **changes: Any) -> Any:
    """A job of the method over its rows, six of them held out."""
    changes = {"evaluation": HELD, **METHODS[method], **changes}
    changes["training"] = {"microBatchSize": micro, **changes.get("training", {})}
    rows = rows_for(storage, method)
    return aligned(storage, alignment_job(method, name, **changes), rows[6:], rows[:6])


def without_times(storage: Path, name: str) -> list[dict[str, float]]:
    """What was measured at each step and evaluation."""
    timed = ("time", "tokens_per_second", "eta_seconds", "peak_memory_bytes")
    return [{key: value for key, value in record.items() if key not in timed} for record in records(storage, name)]


def agree(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    """Whether two runs measured the same."""
    return len(one) == len(other) and all(
        a == pytest.approx(b, abs=2e-4, rel=2e-5) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_changes_nothing(storage: Path, method: str) -> None:
    """Losses, gradient norms, every metric and the evaluation are those of the global batch in one pass."""
    for micro in (8, 2):
        run(storage, method, f"micro-{micro}", micro)
    whole, parts = without_times(storage, "micro-8"), without_times(storage, "micro-2")
    assert [record["step"] for record in whole] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert losses(storage, "micro-2") == pytest.approx(losses(storage, "micro-8"), abs=1e-5)
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=2e-4, rel=2e-5)


def test_two_processes_change_nothing(storage: Path) -> None:
    """The same losses, metrics and evaluation, for each kind of method; the reference of one is computed by both."""
    chosen = ("dpo", "kto", "reward", "prm")
    for method in chosen:
        run(storage, method, f"{method}-one", micro=2)
    changes = {method: {"evaluation": HELD, "compute": {"gpusPerNode": 2}, **METHODS[method]} for method in chosen}
    changes["dpo"]["reference"] = {"precompute": True}
    in_two_processes(
        storage,
        [
            alignment_job(method, f"{method}-two", training={"microBatchSize": 2}, **changes[method])
            for method in chosen
        ],
    )
    for method in chosen:
        one, two = without_times(storage, f"{method}-one"), without_times(storage, f"{method}-two")
        for alone, together in zip(one, two, strict=True):
            assert alone == pytest.approx(together, abs=2e-4, rel=2e-5), method
    assert len(list((storage / "prepared/preference").glob("reference-*.safetensors"))) == 1


@pytest.mark.parametrize("method", ["dpo", "kto", "reward"])
def test_a_stopped_run_goes_on_exactly(storage: Path, method: str) -> None:
    """Stopped in the middle and resumed: bit for bit the same losses, gradients and metrics, with dropout."""
    changes = {**METHODS[method], "adapter": {"r": 4, "dropout": 0.2}, "training": {"microBatchSize": 4, "maxSteps": 6}}
    rows = rows_for(storage, method)
    aligned(storage, alignment_job(method, "whole", **changes), rows)
    split = alignment_job(method, "split", **changes)
    with pytest.raises(StoppedError, match="stopped at step 3 of 6"):
        aligned(storage, split, reporter=StopAt(2))
    assert aligned(storage, split).resumed_from_step == 3
    assert without_times(storage, "split") == without_times(storage, "whole")


@pytest.mark.parametrize("method", METHODS)
def test_sequences_end_to_end_give_what_padded_ones_give(storage: Path, method: str, monkeypatch: Any) -> None:
    """The form of FlashAttention, computed here without it: the same losses and metrics."""
    run(storage, method, "padded", micro=4)
    from anneal_trainer.methods import loop
    from anneal_trainer.methods.sequences import SequenceCollator

    def flat(setup: Any, _base: Any, **options: Any) -> SequenceCollator:
        return SequenceCollator(flat=True, padding=setup.ready.tokenizer.pad_token_id, **options)

    monkeypatch.setattr(loop.Setup, "collator", flat)
    run(storage, method, "flat", micro=4)
    for one, other in zip(without_times(storage, "padded"), without_times(storage, "flat"), strict=True):
        assert one == pytest.approx(other, abs=2e-4, rel=2e-5)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("method", ["dpo", "kto", "reward", "prm"])
def test_full_fine_tuning_trains_every_method(storage: Path, method: str, *, checkpointing: bool) -> None:
    """Without an adapter; recomputing activations changes nothing."""
    training = {"gradientCheckpointing": checkpointing, "learningRate": 1e-3}
    result = run(storage, method, "job", adapter=None, training=training)
    assert result.outputs[0].kind == "model"
    assert losses(storage)[-1] < losses(storage)[0]


# The reference ----------------------------------------------------------------------------------------------------


def trainer_of(storage: Path, made: Any, rows: list[dict[str, Any]]) -> Any:
    """The trainer of a job, before its first step."""
    from anneal_trainer.methods import loop, preference

    here = alignment_context(storage, made)
    ready = made_ready(here, rows)
    plan = make_plan(here.spec, sequences=len(rows), world=1)
    stop = Stop()
    stop.restore()
    return preference._trainer(loop.Setup(here, ready, plan, device(), stop))


def test_the_adapter_switched_off_is_the_base_model_exactly(storage: Path) -> None:
    """Not nearly: the same numbers, even once the adapter has been trained."""
    made, rows = alignment_job("dpo"), rows_for(storage, "dpo")
    trainer = trainer_of(storage, made, rows)
    trainer.train()
    batch = trainer.data_collator(rows[:4])
    found = trainer.reference_log_probabilities(batch)
    assert not found.equal(trainer.quietly(batch))
    base = load_model(made.spec, storage / "model", tokenizer_of(storage), found=device()).eval()
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base)
    with torch.no_grad():
        expected = trainer.log_probabilities(base, batch)
        scores = base(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    assert torch.equal(found, expected)
    by_hand = [
        sum(scores[line, place - 1, label].item() for place, label in enumerate(labels) if label != -100)
        for line, labels in enumerate(batch["labels"].tolist())
    ]
    assert found.tolist() == pytest.approx(by_hand, abs=1e-3)


def test_training_starts_with_no_difference_to_the_reference(storage: Path) -> None:
    """DPO's first loss is log 2, of an adapter and of a whole model alike; then the policy moves and not the reference."""
    for name, changes in (("adapter", {}), ("full", {"adapter": None})):
        run(storage, "dpo", name, dpo={"beta": 0.1}, **changes)
        assert losses(storage, name)[0] == pytest.approx(0.693147, abs=1e-6)
        assert next(record["rewards/margins"] for record in records(storage, name) if "loss" in record) == 0
        assert abs(records(storage, name)[-1]["eval_rewards/margins"]) > 0.001


def test_the_models_own_dropout_is_off(storage: Path) -> None:
    """It would be noise in a comparison; an adapter's own stays."""
    rows = rows_for(storage, "dpo")
    aligned(storage, alignment_job("dpo", "without"), rows)
    config = json.loads((storage / "model/config.json").read_text())
    (storage / "model/config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    aligned(storage, alignment_job("dpo", "with"))
    aligned(storage, alignment_job("dpo", "adapter", adapter={"r": 4, "dropout": 0.5}))
    assert losses(storage, "with") == losses(storage, "without")
    assert losses(storage, "adapter") != losses(storage, "without")


def other_model(storage: Path, name: str = "other") -> Path:
    """A model with the same tokenizer and other weights."""
    import shutil

    from transformers import AutoModelForCausalLM

    shutil.copytree(storage / "model", storage / name)
    model = AutoModelForCausalLM.from_pretrained(storage / "model")
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(storage / name)
    return storage / name


@pytest.mark.parametrize("adapter", [None, {"r": 4}])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_precomputed_reference_changes_nothing(storage: Path, method: str, adapter: Any) -> None:
    """Nor does a given one; what was computed is kept, and neither computed nor needed a second time."""
    other_model(storage)
    for source in (None, "volume://runs/other"):
        changes = {"adapter": adapter, "training": {"maxSteps": 2}}
        given = {"source": source} if source else {}
        run(storage, method, f"live-{int(bool(source))}", reference=given, **changes)
        run(storage, method, f"kept-{int(bool(source))}", reference={**given, "precompute": True}, **changes)
        assert losses(storage, f"kept-{int(bool(source))}") == pytest.approx(
            losses(storage, f"live-{int(bool(source))}"), abs=1e-5
        )
    assert losses(storage, f"live-{int(bool(source))}")[0] != pytest.approx(losses(storage, "live-0")[0], abs=1e-4)


def test_kept_log_probabilities_are_used_again(storage: Path, monkeypatch: Any) -> None:
    """By another job over the same data, which then loads no reference; half a file is never seen."""
    from anneal_trainer.methods import reference as computing

    other_model(storage)
    wanted = {"source": "volume://runs/other", "precompute": True}
    rows = rows_for(storage, "dpo")
    aligned(storage, alignment_job("dpo", "first", reference=wanted), rows[6:], rows[:6])
    [kept] = (storage / "prepared/preference").glob("*reference-*")
    written = kept.stat().st_mtime_ns
    monkeypatch.setattr(computing, "_reference", None)
    aligned(storage, alignment_job("ipo", "second", reference=wanted))
    assert kept.stat().st_mtime_ns == written
    with pytest.raises(TypeError):
        aligned(storage, alignment_job("dpo", "third", reference={"precompute": True}))


def test_a_reference_with_another_vocabulary_is_refused(storage: Path) -> None:
    """Before training, with both sizes, the first token that differs and what to do."""
    other_model(storage)
    tokenizer = tokenizer_of(storage)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(storage / "other")
    made = alignment_job("dpo", reference={"source": "volume://runs/other"})
    here = alignment_context(storage, made)
    with pytest.raises(
        InputError, match=r"reference.source volume://runs/other: .*321 tokens where the model has 320.*'<extra>'"
    ):
        reference.check_reference(here)
    reference.check_reference(alignment_context(storage, alignment_job("dpo")))


def test_a_whole_run_is_trls(storage: Path) -> None:
    """The same rows in the same order under TRL's DPOTrainer: step for step the same losses, margins and gradients."""
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from anneal_trainer.order import RunOrder

    # No token crosses a line's end, so that both cut prompt from answer at the same place.
    texts = [(prompt.replace(": ", "\n"), chosen, rejected) for prompt, chosen, rejected in pair_texts(16)]
    tokenizer = tokenizer_of(storage)
    aligned(storage, alignment_job("dpo"), pair_rows(tokenizer, texts))
    ordered = [texts[number] for number in RunOrder(16, 4, 8, 42)]
    names = ("prompt", "chosen", "rejected")

    class InOrder(DPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, _dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    torch.manual_seed(42)
    args = DPOConfig(
        output_dir=str(storage / "peer"), max_steps=4, per_device_train_batch_size=8, learning_rate=5e-3,
        lr_scheduler_type="cosine", gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True, seed=42, max_length=None,
    )  # fmt: skip
    peer = InOrder(
        AutoModelForCausalLM.from_pretrained(storage / "model", dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_list([dict(zip(names, text, strict=True)) for text in ordered]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    peer.train()
    for ours, theirs in zip(records(storage), peer.state.log_history, strict=False):
        for name in ("loss", "grad_norm", "rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/rejected"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


# What a person sees -----------------------------------------------------------------------------------------------


def test_metrics_and_samples_are_reported(storage: Path) -> None:
    """At each step and evaluation: numbers under the field's names, and the latest answers, bounded."""
    seen: list[ProgressReport] = []
    rows = rows_for(storage, "dpo")
    asked = [{"prompt": "Say red"}, {"prompt": "y" * 900}]
    made = alignment_job(
        "dpo", evaluation={**HELD, "everySteps": 2, "samples": asked, "maxSampleTokens": 4}, training={"maxSteps": 5}
    )
    result = aligned(storage, made, rows[6:], rows[:6], reporter=Reporter(ProgressReport(), seen.append))
    names = {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
    names |= {"logps/chosen", "logps/rejected", "nll"}
    assert set(result.metrics) == names | {f"eval_{name}" for name in names}
    assert names < set(records(storage)[1])
    assert sorted(path.stem for path in (storage / "runs/job-rlhf/samples").iterdir()) == [
        "after",
        "before",
        "step-2",
        "step-4",
    ]
    assert {sample.step for report in seen for sample in report.samples} <= {0, 2, 4, 5}
    last = seen[-1].samples
    assert [(sample.step, len(sample.prompt)) for sample in last] == [(5, 7), (5, 512)]
    kept = json.loads((storage / "runs/job-rlhf/samples/after.json").read_text())
    assert [sample.answer for sample in last] == [entry["answer"][:512] for entry in kept]


def test_kto_reports_its_baseline(storage: Path) -> None:
    """The estimate of the KL divergence, never below 0."""
    result = run(storage, "kto", "job", training={"maxSteps": 8, "learningRate": 2e-2})
    assert result.metrics["kl"] >= 0
    assert result.metrics["eval_kl"] >= 0
    assert "nll" not in result.metrics


def test_the_reference_of_a_quantized_model_is_it_without_the_adapter(storage: Path) -> None:
    """QLoRA: no second model, and no difference at the start."""
    aligned(storage, alignment_job("dpo", model={"quantization": "nf4"}), rows_for(storage, "dpo"))
    assert losses(storage)[0] == pytest.approx(0.693147, abs=1e-6)


def test_the_tokenizer_of_a_model_is_read_as_ever(storage: Path) -> None:
    """The field that an error names is the reference's own."""
    made = alignment_job("dpo", reference={"source": "volume://runs/other"})
    (other_model(storage) / "tokenizer.json").write_text("{")
    chosen = reference.model_of(made.spec)
    assert chosen is not None
    with pytest.raises(InputError, match=r"reference\.source volume://runs/other: the tokenizer does not load"):
        load_tokenizer(chosen, storage / "other", field=reference.FIELD)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("chatml.intel", {}, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("llama3.ultra", {}, "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("passthrough", {}, "Hi"),
        ("zephyr.nectar", {}, "<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\n"),
        ("user_defined", {"format": {"promptFormat": "Q: {prompt}\nA:"}}, "Q: Hi\nA:"),
        ("chat_template.default", {}, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)  # fmt: skip
def test_samples_are_asked_as_the_rows_ask(storage: Path, kind: str, options: dict[str, Any], expected: str) -> None:
    """Each style of pairs has its own words around a prompt."""
    made = alignment_job("dpo", datasets=[{"source": "volume://runs/pairs.jsonl", "type": kind, **options}])
    tokenizer = load_tokenizer(made.spec.model, storage / "model")
    assert samples.asking(made.spec, kind).text("Hi", tokenizer)[0] == expected


@pytest.mark.parametrize(("layers", "flat"), [("full_attention", True), ("linear_attention", False)])
def test_models_that_carry_a_state_are_given_padded_lines(storage: Path, layers: str, *, flat: bool) -> None:
    """With FlashAttention lines are laid end to end, but where a state would go from one answer to the next."""
    from types import SimpleNamespace

    from anneal_trainer.methods import loop

    config = json.loads((storage / "model/config.json").read_text())
    (storage / "model/config.json").write_text(json.dumps({**config, "layer_types": [layers] * 2}))
    here = alignment_context(storage, alignment_job("dpo"))
    ready = made_ready(here, rows_for(storage, "dpo"))
    plan = make_plan(here.spec, sequences=24, world=1)
    base = SimpleNamespace(config=SimpleNamespace(_attn_implementation="flash_attention_2"))
    stop = Stop()
    stop.restore()
    assert loop.Setup(here, ready, plan, device(), stop).collator(base).flat == flat
