"""Reward models: the saved model scores as it was trained to, and only what can become one is taken for one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from anneal_api.manifest import ManifestError, parse_job
from anneal_trainer.errors import ConfigError, InputError
from anneal_trainer.model import check_head
from trainer.aligning import aligned, alignment_job, compared_rows, pair_texts, tokenizer_of
from trainer.training import losses, records


def scores(model: Any, rows: list[dict[str, Any]], padding: int) -> list[list[float]]:
    """Of chosen and rejected answers, in one padded batch, as anyone would ask the saved model."""
    import torch

    sequences = [part for row in rows for part in torch.tensor(row["input_ids"]).split(row["seq_lengths"])]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(each) for each in sequences])[:, None]
    with torch.no_grad():
        logits = model(ids, attention_mask=(torch.arange(ids.shape[1]) < lengths).long()).logits
    found: list[list[float]] = logits.view(-1, 2).tolist()
    return found


def load_reward(storage: Path, *, adapter: bool) -> Any:
    """The saved reward model, as the library loads it."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    output = storage / "runs/job-rlhf/output"
    if not adapter:
        return AutoModelForSequenceClassification.from_pretrained(output).eval()
    base = AutoModelForSequenceClassification.from_pretrained(storage / "model", num_labels=1)
    base.config.pad_token_id = tokenizer_of(storage).pad_token_id
    return PeftModel.from_pretrained(base, output).eval()


@pytest.mark.parametrize("adapter", [None, {"r": 4}], ids=["full", "adapter"])
def test_a_saved_reward_model_scores_as_it_was_trained(storage: Path, adapter: Any) -> None:
    """Its accuracy and margin on held-out pairs are those that the run reported; the head is trained and saved whole."""
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    made = alignment_job("reward", adapter=adapter, evaluation={"holdout": {"count": 6}}, training={"maxSteps": 8})
    result = aligned(storage, made, rows[6:], rows[:6])
    saved = load_reward(storage, adapter=adapter is not None)
    found = scores(saved, rows[:6], tokenizer_of(storage).pad_token_id)
    margins = [chosen - rejected for chosen, rejected in found]
    assert sum(margins) / 6 == pytest.approx(result.metrics["eval_margin"], abs=1e-4)
    assert sum(margin > 0 for margin in margins) / 6 == pytest.approx(result.metrics["eval_accuracy"])
    assert losses(storage)[-1] < losses(storage)[0] - 0.1


def test_scores_are_read_at_the_end_token_even_where_that_is_the_padding(storage: Path) -> None:
    """Another token becomes the padding, so that the saved model reads its score where it was trained."""
    tokenizer = tokenizer_of(storage)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(storage / "model")
    rows = compared_rows(tokenizer, pair_texts())
    made = alignment_job("reward", adapter=None, evaluation={"holdout": {"count": 6}})
    result = aligned(storage, made, rows[6:], rows[:6])
    saved = load_reward(storage, adapter=False)
    assert saved.config.pad_token_id != tokenizer.eos_token_id
    found = scores(saved, rows[:6], saved.config.pad_token_id)
    assert sum(c - r for c, r in found) / 6 == pytest.approx(result.metrics["eval_margin"], abs=1e-4)


def test_a_tokenizer_without_a_spare_token_is_refused() -> None:
    """With what to write."""
    from anneal_trainer.methods.scores import _give_own_padding

    class Bare:
        pad_token_id = eos_token_id = 2
        eos_token, bos_token, unk_token = "</s>", None, None
        all_special_tokens = ("</s>",)

    with pytest.raises(ConfigError, match="no token for padding but the one that ends a text"):
        _give_own_padding(Bare())


def test_the_margin_of_the_data_is_asked_for(storage: Path) -> None:
    """A first loss with a margin is that of the scores less the margin."""
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    for name, margin in (("none", 0.0), ("wide", 5.0)):
        changed = [row | {"margin": margin} for row in rows]
        aligned(storage, alignment_job("reward", name, training={"maxSteps": 1}), changed)
    # -log s(x - 5) is log(1 + e^5 e^-x): about 5 more where scores are nearly equal.
    assert losses(storage, "wide")[0] - losses(storage, "none")[0] == pytest.approx(4.3, abs=0.3)


def test_a_reward_model_can_be_trained_on(storage: Path) -> None:
    """Its head is kept: the first loss of the second job goes on from the last of the first."""
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    aligned(storage, alignment_job("reward", "first", adapter=None, training={"maxSteps": 12}), rows)
    shutil.copytree(storage / "runs/first-rlhf/output", storage / "scorer")
    second = alignment_job("reward", "second", model={"source": "volume://runs/scorer"}, training={"maxSteps": 1})
    aligned(storage, second)
    assert losses(storage, "second")[0] < losses(storage, "first")[0] - 0.2


def classifier(storage: Path, labels: int, kind: str = "Sequence") -> Path:
    """The model with a head of so many outputs."""
    import transformers

    made = getattr(transformers, f"AutoModelFor{kind}Classification")
    path = storage / f"{kind}-{labels}"
    made.from_pretrained(storage / "model", num_labels=labels).save_pretrained(path)
    tokenizer_of(storage).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("method", "kind", "labels", "words"),
    [
        ("reward", "Sequence", 3, "with 3 outputs, where method reward trains a ForSequenceClassification with 1"),
        ("reward", "Sequence", 2, "with 2 outputs"),
        ("reward", "Token", 2, "a Qwen3ForTokenClassification with 2 outputs"),
        ("prm", "Token", 5, "with 5 outputs, where method prm trains a ForTokenClassification with 2"),
        ("dpo", "Sequence", 1, "which scores texts; method dpo needs a model that writes them"),
    ],
)
def test_a_model_with_another_head_is_refused(storage: Path, method: str, kind: str, labels: int, words: str) -> None:
    """By its config, so that prepare can tell; and before training."""
    path = classifier(storage, labels, kind)
    source = f"volume://runs/{path.name}"
    with pytest.raises(InputError, match=words):
        check_head(path, source, method)
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    with pytest.raises(InputError, match=f"model.source {source}: it is a "):
        aligned(storage, alignment_job(method, model={"source": source}), rows)
    for own, right in (("reward", ("Sequence", 1)), ("prm", ("Token", 2))):
        if (method, kind, labels) == ("reward", "Token", 2):
            check_head(classifier(storage, right[1], right[0]), source, own)


@pytest.mark.parametrize("method", ["reward", "prm"])
def test_models_that_score_are_asked_for_no_samples(method: str) -> None:
    """They have nothing to say; the manifest is refused with the field."""
    document = alignment_job(method).dump()
    document["spec"]["evaluation"] = {"samples": [{"prompt": "hello"}]}
    with pytest.raises(ManifestError, match="train models that judge and do not answer"):
        parse_job({**document, "metadata": {"name": "job"}})


def test_a_quantized_base_learns_to_score(storage: Path) -> None:
    """QLoRA: the new head is kept in fp32 and trained."""
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    made = alignment_job("reward", model={"quantization": "int8"}, training={"maxSteps": 8})
    aligned(storage, made, rows)
    assert losses(storage)[-1] < losses(storage)[0] - 0.1
    assert json.loads((storage / "runs/job-rlhf/output/adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    assert {"accuracy", "margin", "mean"} < set(records(storage)[0])
