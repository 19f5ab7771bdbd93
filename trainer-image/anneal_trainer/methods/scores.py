"""Models that judge: reward models give a whole answer one score, process reward models judge its steps.

A language model's head is replaced by one of one output, or of two a token (wrong, right). Imported late: it needs
torch.
"""

import types
from typing import Any

import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data.pieces import IGNORED
from anneal_trainer.errors import ConfigError
from anneal_trainer.methods import loop, losses
from anneal_trainer.methods.losses import Loss
from anneal_trainer.methods.measured import Measured, Measures, evaluation
from anneal_trainer.methods.sequences import last_of_each, model_inputs
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop

_MARGIN = "margin"


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    return loop.run(context, ready, make=_trainer, reporter=reporter, stop=stop)


def _trainer(setup: loop.Setup) -> "ScoreTrainer":
    spec = setup.context.spec
    assert isinstance(spec, RLHFSpec), "the method is of that kind"
    _give_own_padding(setup.ready.tokenizer)
    base = setup.base_model(dropout=False)
    options = {
        **setup.options(TrainingArguments, remove_unused_columns=False),
        "data_collator": setup.collator(base, columns=(_MARGIN,)),
        "model": _adapted(spec, base, setup.ready.tokenizer),
    }
    if spec.reward is not None:
        _score_everywhere(base)
        return RewardTrainer(center=spec.reward.center_coefficient, **options)
    return StepTrainer(**options)


def _give_own_padding(tokenizer: Any) -> None:
    """A token of its own for padding: a saved model reads its score at the last token that is not padding.

    Where padding is the end token, that would not be the token that the score is trained at.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    spare = [token for token in (tokenizer.unk_token, *tokenizer.all_special_tokens) if token and token not in taken]
    if not spare:
        raise ConfigError(
            "model.source: its tokenizer has no token for padding but the one that ends a text, where the score is "
            "read; add one: model.addSpecialTokens: ['<|pad|>']"
        )
    tokenizer.pad_token = spare[-1]


def _adapted(spec: RLHFSpec, base: Any, tokenizer: Any) -> Any:
    if spec.adapter is None:
        return base
    adapted = get_peft_model(base, model.adapter_config(spec, tokenizer, base))
    if spec.training.gradient_checkpointing:
        # Else nothing that is recomputed would be asked for a gradient.
        adapted.enable_input_require_grads()
    return adapted


def _score_everywhere(base: Any) -> None:
    """With `every_token=True` the model gives its score at each token, so that the collator's form does not matter."""
    pooled = base.forward

    def forward(self: Any, *args: Any, every_token: bool = False, **options: Any) -> Any:
        if not every_token:
            return pooled(*args, **options)
        body = getattr(self, self.base_model_prefix)
        return self.score(body(*args, **options).last_hidden_state)

    base.forward = types.MethodType(forward, base)


class ScoreTrainer(Measured, Trainer):  # type: ignore[misc]
    """What both share."""


class RewardTrainer(ScoreTrainer):
    """Bradley-Terry: the score of the chosen answer above that of the rejected one, read at each one's last token."""

    # Scores of chosen and rejected answer, margin.
    row_width = 3

    def __init__(self, *, center: float, **options: Any) -> None:
        self._center = center
        super().__init__(**options)

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """Both scores and the margin."""
        scores = last_of_each(model(**model_inputs(batch), use_cache=False, every_token=True), batch)
        chosen, rejected = scores.float().view(2, -1)
        margin = batch.get(_MARGIN, torch.zeros_like(chosen))
        return torch.stack([chosen, rejected, margin.to(chosen.dtype)], dim=1)

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The loss of the pairs."""
        return self._judge(*self.row_values(model, batch).unbind(1))

    def _judge(self, chosen: Any, rejected: Any, margin: Any) -> tuple[Loss, Measures]:
        loss = losses.reward(chosen, rejected, margin, self._center)
        chosen, rejected, rows = chosen.detach(), rejected.detach(), torch.ones_like(chosen)
        return loss, {
            "accuracy": ((chosen > rejected).to(rows.dtype), rows),
            "margin": (chosen - rejected, rows),
            "mean": ((chosen + rejected) / 2, rows),
        }

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """None of its terms is over tokens."""
        return torch.zeros((), device=batch["labels"].device)

    def judged(self, values: Any) -> dict[str, float]:
        """The same loss over all pairs at once."""
        loss, measures = self._judge(*values.unbind(1))
        return evaluation(loss, torch.ones(()), measures)


class StepTrainer(ScoreTrainer):
    """Right or wrong at the end of each step: cross entropy over the judged tokens."""

    # Cross entropy, right guesses and judged steps of a row.
    row_width = 3

    def _steps(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """At each token: cross entropy, whether the guess is right, whether there is a judged step."""
        logits = model(**model_inputs(batch), use_cache=False).logits
        labels = batch["labels"]
        entropy = losses.steps(logits.flatten(0, 1), labels.flatten()).tokens.view(labels.shape)
        judged = (labels != IGNORED).to(entropy.dtype)
        return entropy, (logits.detach().argmax(-1) == labels).to(entropy.dtype), judged

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The loss of the judged steps."""
        entropy, right, judged = (values.flatten() for values in self._steps(model, batch))
        return Loss(torch.zeros_like(entropy), entropy), {"accuracy": (right, judged)}

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """Sums over a row's steps; over all rows' in one line where they are laid end to end."""
        return torch.stack([values.sum(1) for values in self._steps(model, batch)], dim=1)

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """The judged steps."""
        return (batch["labels"] != IGNORED).sum().float()

    def judged(self, values: Any) -> dict[str, float]:
        """The means over all judged steps of the holdout."""
        entropy, right, steps = values.sum(0).tolist()
        return {"eval_loss": entropy / steps, "eval_accuracy": right / steps}
