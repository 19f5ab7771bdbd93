"""Reward models: their scores are those of the library, of texts and of turns, in batches of any size."""

from pathlib import Path
from typing import Any

import pytest

from anneal_trainer.errors import ConfigError, InputError, RewardError
from anneal_trainer.rewards import check, opened
from trainer.aligning import aligned, alignment_job, compared_rows, pair_texts, tokenizer_of
from trainer.judges import ask, asking, places, reward


def classifier(storage: Path, name: str = "scorer", *, labels: int = 1, padding: bool = True, **config: Any) -> Path:
    """The tiny model with a head of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(storage / "model", num_labels=labels)
    tokenizer = tokenizer_of(storage)
    model.config.pad_token_id = tokenizer.pad_token_id if padding else None
    for key, value in config.items():
        setattr(model.config, key, value)
    model.save_pretrained(storage / name)
    tokenizer.save_pretrained(storage / name)
    return storage / name


def scores(path: Path, texts: list[str], **options: Any) -> list[float]:
    """One text at a time, as anyone would ask the library."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt", **options)).logits.item() for text in texts]


ANSWERS = ["red", "RED RED RED", "sun moon star tea bread", ""]


@pytest.mark.parametrize("padding", [True, False], ids=["padded", "alone"])
def test_texts_are_scored_as_the_library_scores_them(storage: Path, *, padding: bool) -> None:
    """Prompt and answer as one text, whatever else is in the batch, and whether the model knows padding or not."""
    path = classifier(storage, padding=padding)
    prompts = [f"Say {n}: " for n in range(4)]
    with asking(storage, reward("model", source="./scorer")) as sources:
        found = ask(sources, ANSWERS, prompts=prompts)
    expected = scores(path, [p + a for p, a in zip(prompts, ANSWERS, strict=True)])
    assert found.scores["mine"] == pytest.approx(expected, abs=1e-5)


def test_turns_are_scored_by_the_models_own_template(storage: Path) -> None:
    """With the answer as the assistant's turn."""
    from transformers import AutoTokenizer

    path = classifier(storage)
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Say red"}]
    with asking(storage, reward("model", source="./scorer")) as sources:
        found = ask(sources, ["red", "RED"], prompts=[turns, turns])
    template = AutoTokenizer.from_pretrained(path).apply_chat_template
    texts = [template([*turns, {"role": "assistant", "content": a}], tokenize=False) for a in ("red", "RED")]
    assert found.scores["mine"] == pytest.approx(scores(path, texts, add_special_tokens=False), abs=1e-5)


def test_many_answers_are_scored_in_batches(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within the budget, in whatever order, and told in that of the answers."""
    from anneal_trainer.rewards import classifier as module

    path = classifier(storage)
    answers = [" ".join(["red"] * (1 + (7 * n) % 11)) for n in range(40)]
    monkeypatch.setattr(module, "_TOKENS", 100)
    with asking(storage, reward("model", source="./scorer")) as sources:
        found = ask(sources, answers, prompts=["Say: "] * 40)
    assert found.scores["mine"] == pytest.approx(scores(path, [f"Say: {a}" for a in answers]), abs=1e-5)


def test_a_model_that_a_job_made_prefers_what_it_learnt(storage: Path) -> None:
    """What method reward writes is taken as it is."""
    rows = compared_rows(tokenizer_of(storage), pair_texts())
    aligned(storage, alignment_job("reward", adapter=None, training={"maxSteps": 12}), rows)
    prompts, chosen, rejected = zip(*pair_texts(8), strict=True)
    with asking(storage, reward("model", source="./runs/job-rlhf/output")) as sources:
        better = ask(sources, chosen, prompts=prompts).rewards
        worse = ask(sources, rejected, prompts=prompts).rewards
    assert sum(b > w for b, w in zip(better, worse, strict=True)) >= 7


def test_a_text_that_is_too_long_is_a_failure_of_that_answer(storage: Path) -> None:
    """A model with learnt positions would read beside its table: on a GPU that ends the process."""
    classifier(storage, max_position_embeddings=32)
    with asking(storage, reward("model", source="./scorer", onError="skip")) as sources:
        found = ask(sources, ["red", "red " * 60], prompts=["Say: "] * 2)
    assert found.scores["mine"][1] is None
    assert found.scores["mine"][0] is not None
    with (
        asking(storage, reward("model", source="./scorer")) as sources,
        pytest.raises(RewardError, match=r"reward mine: the text has \d+ tokens, and the model reads 32 \(1 of 2"),
    ):
        ask(sources, ["red", "red " * 60], prompts=["Say: "] * 2)


def test_positions_that_padding_takes_hold_no_text(storage: Path) -> None:
    """RoBERTa of 32 positions, the first two of which are padding's, reads texts of 30 tokens and none longer."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = tokenizer_of(storage)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=32, num_labels=1, pad_token_id=1,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(storage / "scorer")
    tokenizer.save_pretrained(storage / "scorer")
    by_length = {len(tokenizer(text)["input_ids"]): text for text in ("Z" * n for n in range(40))}
    texts = [by_length[30], by_length[31]]
    with asking(storage, reward("model", source="./scorer", onError="skip")) as sources:
        fits, too_long = ask(sources, texts, prompts=["", ""]).scores["mine"]
    assert fits is not None
    assert too_long is None


def test_a_score_that_is_no_number_is_told(storage: Path) -> None:
    """By the name of the reward."""
    import torch
    from transformers import AutoModelForSequenceClassification

    path = classifier(storage)
    model = AutoModelForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(path)
    with (
        asking(storage, reward("model", source="./scorer")) as sources,
        pytest.raises(RewardError, match="reward mine: returned nan, which is no reward"),
    ):
        ask(sources, ["red"])


def test_a_model_of_another_kind_is_refused(storage: Path) -> None:
    """With the reward's name, before anything is generated."""
    classifier(storage, labels=3)
    with (
        pytest.raises(
            InputError, match=r"reward mine: spec.rewards\[0\].model.source ./scorer: it is a .* with 3 outputs"
        ),
        opened([reward("model", source="./scorer")], places(storage)),
    ):
        pass
    with (
        pytest.raises(
            InputError,
            match=r"reward mine: spec.rewards\[0\].model.source ./model: it is a Qwen3ForCausalLM, which scores no texts",
        ),
        opened([reward("model", source="./model")], places(storage)),
    ):
        pass
    with (
        pytest.raises(
            InputError, match=r"reward mine: spec.rewards\[0\].model.source ./nowhere: there is no such directory"
        ),
        opened([reward("model", source="./nowhere")], places(storage)),
    ):
        pass


def test_turns_need_a_template(storage: Path) -> None:
    """Told with what to do."""
    from transformers import AutoTokenizer

    path = classifier(storage)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(path)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    with (
        asking(storage, reward("model", source="./scorer")) as sources,
        pytest.raises(
            ConfigError,
            match=r"reward mine: spec.rewards\[0\].model.source ./scorer: its tokenizer has no chat template, and the prompts",
        ),
    ):
        ask(sources, ["red"], prompts=[[{"role": "user", "content": "Say red"}]])


@pytest.mark.parametrize(
    ("name", "words"),
    [("model", "which scores no texts"), ("wide", "with 3 outputs"), ("nowhere", "there is no such directory")],
)
def test_what_scores_no_texts_is_found_before_a_gpu(storage: Path, name: str, words: str) -> None:
    """From its config, without loading it."""
    classifier(storage, "wide", labels=3)
    with pytest.raises(InputError, match=rf"reward mine: spec.rewards\[0\].model.source ./{name}: .*{words}"):
        check([reward("model", source=f"./{name}")], {}, places(storage))
