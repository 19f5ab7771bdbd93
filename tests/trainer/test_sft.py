"""Supervised fine-tuning of a real, tiny model: it learns, layouts agree, and what is saved is what was trained."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from anneal_api import FineTuneJob, ProgressReport
from anneal_trainer import model as models
from anneal_trainer.data import store
from anneal_trainer.data.formats.chat.known import TEMPLATES
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.errors import ConfigError, DataError, InputError
from anneal_trainer.prepare import Ready, prepare
from anneal_trainer.reporter import Reporter, silent
from trainer.training import context, job, losses, records, trained


def made_ready(storage: Path, made: FineTuneJob) -> Ready:
    """The prepared data of a job."""
    return prepare(context(storage, made), Reporter(ProgressReport(), silent))


def falls(values: list[float], *, by: float) -> bool:
    """Whether the mean of the last third is lower than the first by so much."""
    third = max(1, len(values) // 3)
    return sum(values[-third:]) / third < sum(values[:third]) / third - by


def adapter(storage: Path, name: str = "job") -> dict[str, Any]:
    """The tensors of a run's adapter."""
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(storage / "runs" / name / "output/adapter_model.safetensors")
    return found


def test_lora_learns_and_saves_an_adapter_that_loads(storage: Path) -> None:
    """The loss falls, the adapter is fp32 and loads onto the base model, and the result says where it is."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = trained(storage, job(training={"maxSteps": 40, "learningRate": 2e-2}))
    assert falls(losses(storage), by=0.5)
    assert (result.first_loss, result.loss) == (losses(storage)[0], losses(storage)[-1])
    [output] = result.outputs
    assert (output.kind, output.uri) == ("adapter", "volume://runs/runs/job/output")
    assert output.digest.startswith("sha256:")
    directory = storage / "runs/job/output"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(storage / "model"), directory)
    assert any(value.abs().sum() > 0 for name, value in loaded.named_parameters() if "lora_B" in name)
    assert AutoTokenizer.from_pretrained(directory).chat_template == TEMPLATES["chatml"]


def test_every_linear_layer_has_an_adapter(storage: Path) -> None:
    """all-linear is all of attention and MLP, and not the output head."""
    trained(storage, job(training={"maxSteps": 1}))
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in adapter(storage)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_full_fine_tuning_changes_the_model(storage: Path) -> None:
    """Without an adapter every weight is trained, kept in fp32, and the whole model saved."""
    from safetensors.torch import load_file

    result = trained(storage, job(adapter=None, training={"maxSteps": 12, "learningRate": 5e-3}))
    assert falls(losses(storage), by=0.3)
    assert result.outputs[0].kind == "model"
    before, after = (
        load_file(storage / "model/model.safetensors"),
        load_file(storage / "runs/job/output/model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert not any(before[name].equal(after[name]) for name in before)
    assert {str(value.dtype) for value in after.values()} == {"torch.float32"}


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_bases_learn(storage: Path, quantization: str) -> None:
    """QLoRA on a CPU: the base is quantized, the loss falls as it does without, and the adapter stays fp32."""
    trained(storage, job("plain", training={"maxSteps": 30, "learningRate": 2e-2}))
    trained(storage, job(model={"quantization": quantization}, training={"maxSteps": 30, "learningRate": 2e-2}))
    assert falls(losses(storage), by=0.4)
    assert losses(storage) == pytest.approx(losses(storage, "plain"), rel=0.1)
    assert losses(storage) != pytest.approx(losses(storage, "plain"), rel=1e-4)
    assert {str(value.dtype) for value in adapter(storage).values()} == {"torch.float32"}


def test_accumulation_does_not_change_the_loss(storage: Path) -> None:
    """The same global batch in one pass, in two or in four: the same losses and the same adapter."""
    for micro in (1, 2, 4):
        trained(storage, job(f"micro-{micro}", training={"microBatchSize": micro, "maxSteps": 5}))
    one, two, four = (losses(storage, f"micro-{micro}") for micro in (1, 2, 4))
    assert two == pytest.approx(four, abs=1e-5)
    assert one == pytest.approx(four, abs=1e-5)
    first, last = adapter(storage, "micro-1"), adapter(storage, "micro-4")
    assert all(first[name].allclose(last[name], atol=1e-4) for name in first)


def test_gradient_checkpointing_does_not_change_the_loss(storage: Path) -> None:
    """It trades time for memory and nothing else."""
    for name, on in (("without", False), ("with", True)):
        trained(storage, job(name, training={"gradientCheckpointing": on, "maxSteps": 4}))
    assert losses(storage, "with") == pytest.approx(losses(storage, "without"), abs=1e-6)


def test_the_first_loss_is_the_mean_over_the_trained_tokens(storage: Path) -> None:
    """Checked against the model itself, row by row: the reported loss is what it says it is."""
    import torch
    from transformers import AutoModelForCausalLM

    trained(storage, job(training={"maxSteps": 1}))
    ready = made_ready(storage, job(training={"maxSteps": 1}))
    data = ready.prepared.dataset(store.TRAIN)
    from anneal_trainer.order import RunOrder

    rows = [data[index] for index in RunOrder(len(data), 1, 4, 42)]
    base = AutoModelForCausalLM.from_pretrained(storage / "model").eval()
    assert losses(storage) == pytest.approx([mean_loss(base, rows, torch)], abs=1e-5)


def mean_loss(model: Any, rows: list[dict[str, list[int]]], torch: Any) -> float:
    """Negative log-likelihood over all trained tokens of the rows, one row at a time."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            scores = model(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
            for place, label in enumerate(row["labels"][1:]):
                if label != IGNORED:
                    total, count = total - scores[place, label].item(), count + 1
    return total / count


def test_the_evaluation_loss_is_over_tokens_whatever_the_batch(storage: Path) -> None:
    """A holdout of rows of different lengths has one loss: not a mean of means that the batch size changes."""
    import torch
    from transformers import AutoModelForCausalLM

    found = []
    for micro in (1, 4):
        made = job(
            f"micro-{micro}",
            evaluation={"holdout": {"count": 10}},
            training={"microBatchSize": micro, "maxSteps": 2},
        )
        result = trained(storage, made)
        before = next(record["eval_loss"] for record in records(storage, made.name) if record["step"] == 0)
        found.append((before, result.eval_loss))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    held = made_ready(storage, made).prepared.dataset(store.EVAL)
    base = AutoModelForCausalLM.from_pretrained(storage / "model").eval()
    assert found[0][0] == pytest.approx(mean_loss(base, list(held), torch), abs=1e-5)


def test_the_holdout_is_evaluated_as_often_as_asked_and_at_the_end(storage: Path) -> None:
    """Before training, every everySteps, and after the last step."""
    trained(storage, job(evaluation={"holdout": {"count": 4}, "everySteps": 2}, training={"maxSteps": 5}))
    assert [record["step"] for record in records(storage) if "eval_loss" in record] == [0, 2, 4, 5]


def test_samples_are_answered_before_and_after(storage: Path) -> None:
    """The same prompts, kept with the run; after training on capitals the answer is one."""
    samples = [{"prompt": "Say red 2 times"}, {"prompt": "Say dog 3 times"}]
    made = job(
        evaluation={"samples": samples, "maxSampleTokens": 8},
        adapter=None,
        training={"maxSteps": 60, "learningRate": 1e-2},
    )
    trained(storage, made)
    before, after = (
        json.loads((storage / f"runs/job/samples/{when}.json").read_text()) for when in ("before", "after")
    )
    assert (
        [sample["prompt"] for sample in before]
        == [sample["prompt"] for sample in after]
        == [sample["prompt"] for sample in samples]
    )
    assert [sample["answer"] for sample in after] != [sample["answer"] for sample in before]
    assert after[0]["answer"].isupper()


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "own head"])
def test_added_tokens_are_trained_under_lora(storage: Path, *, tied: bool) -> None:
    """Their embeddings move, and their output rows too; those of the other tokens do not."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not tied:
        untie(storage / "model")
    write_rows(storage)
    added = {"addSpecialTokens": ["<answer>"]}
    made = job(model=added, training={"maxSteps": 20, "learningRate": 2e-2, "weightDecay": 0.0})
    trained(storage, made)
    directory = storage / "runs/job/output"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    token = tokenizer.convert_tokens_to_ids("<answer>")
    assert token == len(tokenizer) - 1
    base = AutoModelForCausalLM.from_pretrained(storage / "model")
    before = base.get_input_embeddings().weight.detach().clone()
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    merged = PeftModel.from_pretrained(base, directory).merge_and_unload()
    for table, old in ((merged.get_input_embeddings().weight, before),):
        assert table[:token].equal(old)
        assert not table[token].allclose(old.mean(dim=0), atol=1e-3)
    logits = merged(torch.tensor([tokenizer("<answer>")["input_ids"]])).logits
    assert logits.shape[-1] == len(tokenizer)
    head = merged.get_output_embeddings().weight
    assert head[token].equal(merged.get_input_embeddings().weight[token]) == tied


def untie(path: Path) -> None:
    """Give the model an output head of its own."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, tie_word_embeddings=False)
    model.lm_head.weight.data = model.get_input_embeddings().weight.detach().clone().flip(0)
    model.config.tie_word_embeddings = False
    model.save_pretrained(path)


def write_rows(storage: Path) -> None:
    """Rows in which a token occurs that the model does not have."""
    from trainer.training import alpaca_rows, write_jsonl

    rows = [{**row, "output": f"<answer> {row['output']} <answer>"} for row in alpaca_rows()]
    write_jsonl(storage / "data.jsonl", rows)


def test_unknown_target_modules_are_refused(storage: Path) -> None:
    """The model's own layers are named."""
    with pytest.raises(ConfigError, match="c_attn is not in this model; its linear layers are down_proj, gate_proj"):
        trained(storage, job(adapter={"targetModules": ["q_proj", "c_attn"]}))


@pytest.mark.parametrize("damage", ["broken header", "cut", "other shapes"])
def test_weights_that_broke_after_they_were_prepared_are_the_users_to_mend(storage: Path, damage: str) -> None:
    """They are looked at again before they are loaded: a retry would not help."""
    from safetensors.torch import load_file, save_file

    path, made = storage / "model/model.safetensors", job()
    ready = made_ready(storage, made)
    if damage == "broken header":
        path.write_bytes(b"not weights")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        save_file({name: tensor[..., :-1].clone() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"model\.source volume://runs/model: "):
        models.load_model(made.spec, ready.model_path, ready.tokenizer, found=models.device())


def test_a_loss_that_is_not_a_number_ends_the_run(storage: Path) -> None:
    """At once, with advice, and without a checkpoint of the ruin."""
    import torch
    from safetensors.torch import load_file, save_file

    path = storage / "model/model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.inf)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"step 1 of 6: loss and grad_norm became nan.*lower training.learningRate"
    ) as raised:
        trained(storage, job())
    assert raised.value.exit_code == 65
    assert not list((storage / "runs/job/checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [("adamw", "cosine"), ("adamw_8bit", "linear"), ("paged_adamw_8bit", "constant"), ("adafactor", "cosine")],
)
def test_every_optimizer_and_schedule_trains(storage: Path, optimizer: str, scheduler: str) -> None:
    """Each value that the schema accepts works, and the learning rate goes where its schedule says."""
    training = {"optimizer": optimizer, "lrScheduler": scheduler, "maxSteps": 4, "warmupSteps": 1}
    trained(storage, job(training=training))
    rates = [record["learning_rate"] for record in records(storage) if "loss" in record]
    assert len(rates) == 4
    assert rates[0] == 0.0 or rates[0] < rates[1]
    assert (rates[-1] == rates[-2]) == (scheduler == "constant")
