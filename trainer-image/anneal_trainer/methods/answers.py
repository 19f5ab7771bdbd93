"""A trainer of answers: log-probabilities of sequences under the policy and, where there is one, under the reference.

What `preference` and `unpaired` share. The reference is asked first and without dropout; the fused head gives
log-probabilities without ever holding the logits. Not here: the losses, and which model is the reference.
"""

from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from anneal_trainer.methods.measured import Measured
from anneal_trainer.methods.reference import Reference, without_dropout
from anneal_trainer.methods.sequences import model_inputs, sums
from anneal_trainer.methods.trainer import LanguageTrainer

# The column of log-probabilities of a row's two sequences that were computed before.
REFERENCE = "reference"


class AnswersTrainer(Measured, LanguageTrainer):
    """`reference` is None for methods without one."""

    def __init__(self, *, reference: Reference | None, **options: Any) -> None:
        self._reference = reference
        super().__init__(**options)
        # A second time, for log-probabilities alone: what TRL's own asks for beside them costs time.
        add_fused_lm_head(base_of(self.model))

    def log_probabilities(self, model: Any, batch: dict[str, Any]) -> Any:
        """Of each sequence of a batch, summed over its trained tokens (nats)."""
        outputs = model(**model_inputs(batch), labels=batch["labels"], use_cache=False, fused_lm_head=True)
        return sums(outputs.log_probs.float(), batch)

    def quietly(self, batch: dict[str, Any]) -> Any:
        """The same of the policy as it is, without gradients and dropout."""
        with torch.no_grad(), self.accelerator.autocast(), without_dropout(self.model) as model:
            return self.log_probabilities(model, batch)

    def reference_log_probabilities(self, batch: dict[str, Any]) -> Any:
        """The same of the reference; zeros where the method has none."""
        if self._reference is None:
            return torch.zeros(len(batch["seq_lengths"]), device=batch["labels"].device)
        with torch.no_grad(), self.accelerator.autocast(), self._reference(self.model) as model:
            return self.log_probabilities(model, batch)

    def drop_reference(self) -> None:
        """Its log-probabilities are in the rows by now: a second model need not stay in memory."""
        self._reference = _gone

    def reference_values(self, _model: Any, batch: dict[str, Any]) -> Any:
        """Those of both sequences of each row, `[rows, 2]`: what the column `reference` keeps."""
        raise NotImplementedError


def _gone(_model: Any) -> Any:
    raise AssertionError("the reference was dropped: its log-probabilities are in the rows")


def base_of(model: Any) -> Any:
    """The language model itself, below an adapter if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
