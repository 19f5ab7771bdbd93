"""Pairs of answers, from prepared data to a trained adapter or model: dpo, ipo, orpo, simpo and cpo.

One trainer, told apart by a loss and by what a reward is. Imported late: it needs torch and TRL.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from anneal_api.methods import CpoSpec, DpoSpec, IpoSpec, OrpoSpec, SimpoSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer.context import Context
from anneal_trainer.methods import loop, losses
from anneal_trainer.methods.answers import REFERENCE, AnswersTrainer
from anneal_trainer.methods.losses import PAIR_COLUMNS, Loss, Pairs
from anneal_trainer.methods.measured import Measures, evaluation
from anneal_trainer.methods.reference import with_reference
from anneal_trainer.methods.sequences import trained_tokens
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop


@dataclass(frozen=True)
class Objective:
    """What a method makes of pairs. `per_token`: its reward is that of a token, not of the answer."""

    loss: Callable[[Pairs], Loss]
    beta: float
    per_token: bool = False
    sorts: bool = False

    def rewards(self, pairs: Pairs) -> tuple[Any, Any]:
        """The rewards that the loss stands for, of chosen and rejected answers."""
        chosen, rejected = self.beta * pairs.chosen_ratio, self.beta * pairs.rejected_ratio
        if self.per_token:
            return chosen / pairs.chosen_length, rejected / pairs.rejected_length
        return chosen, rejected


def objective(method: str, block: Any) -> Objective:
    """The objective of a method with its own block."""
    match block:
        case DpoSpec():
            sorts = any(name in losses.SORTING for name in block.losses)
            return Objective(lambda pairs: losses.dpo(pairs, block), block.beta, sorts=sorts)
        case IpoSpec():
            return Objective(lambda pairs: losses.ipo(pairs, block.beta), block.beta, per_token=True)
        case OrpoSpec():
            return Objective(lambda pairs: losses.orpo(pairs, block), block.beta, per_token=True)
        case SimpoSpec():
            return Objective(lambda pairs: losses.simpo(pairs, block), block.beta, per_token=True)
        case CpoSpec():
            return Objective(lambda pairs: losses.cpo(pairs, block), block.beta, per_token=block.loss == "ipo")
    raise AssertionError(f"{method} is not a method of pairs")


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    return loop.run(context, ready, make=_trainer, reporter=reporter, stop=stop)


def _trainer(setup: loop.Setup) -> "PairsTrainer":
    spec = setup.context.spec
    assert isinstance(spec, RLHFSpec), "the method is of that kind"
    base = setup.base_model(dropout=False)
    return with_reference(
        setup,
        lambda reference: PairsTrainer(
            objective=objective(spec.method, getattr(spec, spec.method)),
            reference=reference,
            data_collator=setup.collator(base, columns=(REFERENCE,)),
            **setup.language_options(base, remove_unused_columns=False),
        ),
    )


class PairsTrainer(AnswersTrainer):
    """A batch's first sequences are the chosen answers, its second ones the rejected answers."""

    row_width = PAIR_COLUMNS

    def __init__(self, *, objective: Objective, **options: Any) -> None:
        self._objective = objective
        super().__init__(**options)

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """The columns of `Pairs`."""
        reference = batch.get(REFERENCE)
        if reference is None:
            reference = self.reference_values(model, batch)
        policy = self.log_probabilities(model, batch).view(2, -1).T
        return torch.cat([policy, reference, trained_tokens(batch).view(2, -1).T], dim=1)

    def reference_values(self, _model: Any, batch: dict[str, Any]) -> Any:
        """Of chosen and rejected answers."""
        return self.reference_log_probabilities(batch).view(2, -1).T

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The method's loss."""
        pairs = Pairs.of(self.row_values(model, batch), partners=batch.get("partners"))
        return self._objective.loss(pairs), self._measures(pairs)

    def _measures(self, pairs: Pairs) -> Measures:
        chosen, rejected = (reward.detach() for reward in self._objective.rewards(pairs))
        rows = torch.ones_like(chosen)
        return {
            "rewards/chosen": (chosen, rows),
            "rewards/rejected": (rejected, rows),
            "rewards/accuracies": ((chosen > rejected).to(chosen.dtype), rows),
            "logps/chosen": (pairs.chosen.detach(), rows),
            "logps/rejected": (pairs.rejected.detach(), rows),
            "nll": (-pairs.chosen.detach() / pairs.chosen_length, pairs.chosen_length),
        }

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """The chosen answers' trained tokens."""
        return trained_tokens(batch).view(2, -1)[0].sum()

    def look_ahead(self, batches: list[dict[str, Any]]) -> None:
        """A loss that sorts does so over the whole step, so all of it is read once before."""
        if not self._objective.sorts:
            return
        own = torch.cat([self._quiet_values(batch) for batch in batches])
        partners = losses.rank_partners(Pairs.of(self.of_all_ranks(own)))
        start = self.args.process_index * len(own)
        for batch in batches:
            rows = len(batch["seq_lengths"]) // 2
            batch["partners"] = partners.part(slice(start, start + rows))
            start += rows

    def _quiet_values(self, batch: dict[str, Any]) -> Any:
        # The reference's are kept with the batch: they need not be computed twice.
        batch.setdefault(REFERENCE, None)
        if batch[REFERENCE] is None:
            batch[REFERENCE] = self.reference_values(self.model, batch)
        policy = self.quietly(batch).view(2, -1).T
        return torch.cat([policy, batch[REFERENCE], trained_tokens(batch).view(2, -1).T], dim=1)

    def judged(self, values: Any) -> dict[str, float]:
        """The same loss over all pairs at once."""
        pairs = Pairs.of(values)
        if self._objective.sorts:
            pairs = Pairs.of(values, partners=losses.rank_partners(pairs))
        return evaluation(self._objective.loss(pairs), pairs.chosen_length.sum(), self._measures(pairs))
