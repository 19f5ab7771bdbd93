"""Answers that are judged one by one, from prepared data to a trained adapter or model: kto.

A row's second sequence is its question with another row's answer: from those of a whole step comes the baseline that
each answer is compared with. Imported late: it needs torch and TRL.
"""

from typing import Any

import torch

from anneal_api.methods import KtoSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.context import Context
from anneal_trainer.methods import loop, losses
from anneal_trainer.methods.answers import REFERENCE, AnswersTrainer
from anneal_trainer.methods.losses import Loss
from anneal_trainer.methods.measured import Measures, evaluation
from anneal_trainer.methods.reference import with_reference
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop

_DESIRABLE, _SECOND, _BASELINE = "desirable", "second", "baseline"


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    return loop.run(context, ready, make=_trainer, reporter=reporter, stop=stop)


def _trainer(setup: loop.Setup) -> "JudgedTrainer":
    spec = setup.context.spec
    assert isinstance(spec, RLHFSpec), "the method is of that kind"
    assert spec.kto is not None, "resolve() fills the method's block"
    options, base = spec.kto, setup.base_model(dropout=False)
    return with_reference(
        setup,
        lambda reference: JudgedTrainer(
            options=options,
            reference=reference,
            data_collator=setup.collator(base, columns=(_DESIRABLE, REFERENCE), apart=True),
            **setup.language_options(base, remove_unused_columns=False),
        ),
    )


class JudgedTrainer(AnswersTrainer):
    """KTO."""

    # Log-ratio, log-probability, log-ratio of the second sequence, whether it is desirable.
    row_width = 4

    def __init__(self, *, options: KtoSpec, **rest: Any) -> None:
        self._options = options
        super().__init__(**rest)

    def reference_values(self, _model: Any, batch: dict[str, Any]) -> Any:
        """Of the answer, and of the other row's answer."""
        return torch.stack([self.reference_log_probabilities(part) for part in (batch, batch[_SECOND])], dim=1)

    def _reference_of(self, batch: dict[str, Any]) -> Any:
        """Computed once a batch: they are needed before the step and in it."""
        if batch.get(REFERENCE) is None:
            batch[REFERENCE] = self.reference_values(self.model, batch)
        return batch[REFERENCE]

    def look_ahead(self, batches: list[dict[str, Any]]) -> None:
        """The baseline is that of the whole step, on all ranks."""
        ratios = torch.cat([self.quietly(batch[_SECOND]) - self._reference_of(batch)[:, 1] for batch in batches])
        mean = self.summed(ratios.sum()) / (len(ratios) * self.args.world_size)
        for batch in batches:
            batch[_BASELINE] = losses.kl_baseline(mean)

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The loss of the answers, against the step's baseline."""
        reference = self._reference_of(batch)[:, 0]
        answer = self.log_probabilities(model, batch)
        return self._judge(answer - reference, answer, batch[_DESIRABLE].bool(), batch[_BASELINE])

    def _judge(self, ratio: Any, answer: Any, desirable: Any, baseline: Any) -> tuple[Loss, Measures]:
        options = self._options
        weights = (options.desirable_weight, options.undesirable_weight)
        loss = losses.kto(ratio, desirable, baseline, options.beta, weights)
        return loss, self._measures(ratio.detach(), answer.detach(), desirable, baseline)

    def _measures(self, ratio: Any, answer: Any, desirable: Any, baseline: Any) -> Measures:
        wanted, unwanted = desirable.to(ratio.dtype), (~desirable).to(ratio.dtype)
        right = ((ratio > baseline) == desirable).to(ratio.dtype)
        return {
            "rewards/chosen": (self._options.beta * ratio, wanted),
            "rewards/rejected": (self._options.beta * ratio, unwanted),
            "rewards/accuracies": (right, torch.ones_like(ratio)),
            "logps/chosen": (answer, wanted),
            "logps/rejected": (answer, unwanted),
            "kl": (baseline.expand_as(ratio), torch.ones_like(ratio)),
        }

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """None of its terms is over tokens."""
        return torch.zeros((), device=batch["labels"].device)

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """For the evaluation."""
        reference = self._reference_of(batch)
        answer, other = self.log_probabilities(model, batch), self.log_probabilities(model, batch[_SECOND])
        columns = (answer - reference[:, 0], answer, other - reference[:, 1], batch[_DESIRABLE].to(answer.dtype))
        return torch.stack(columns, dim=1)

    def judged(self, values: Any) -> dict[str, float]:
        """The same loss over all answers at once."""
        ratio, answer, other, desirable = values.unbind(1)
        loss, measures = self._judge(ratio, answer, desirable.bool(), losses.kl_baseline(other))
        return evaluation(loss, torch.ones(()), measures)
