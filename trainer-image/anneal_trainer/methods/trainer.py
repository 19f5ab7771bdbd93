"""TRL's SFTTrainer in a fixed order, with whole checkpoints, an exact evaluation and a stop (`ordered`).

The evaluation loss is the mean over all trained tokens of the holdout. Imported late: it needs torch and TRL.
"""

from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper
from trl import SFTTrainer

from anneal_trainer.methods.ordered import Ordered


def _give_head_its_bias(model: Any) -> None:
    """TRL reads the output head's weight and bias; PEFT's wrapper for trained rows passes on the weight alone."""
    head = model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        # Past torch's own __setattr__, which would register the parameter a second time.
        object.__setattr__(head, "bias", getattr(head.token_adapter.base_layer, "bias", None))


class LanguageTrainer(Ordered, SFTTrainer):  # type: ignore[misc]
    """What supervised and preference training share: a language model, its adapter, and TRL's fused output head."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _give_head_its_bias(self.model)


class OrderedTrainer(LanguageTrainer):
    """SFTTrainer over a `RunOrder`."""

    # What the library sets; told to the type checker.
    _total_train_tokens: int
    _metrics: dict[str, dict[str, list[Any]]]

    row_width = 2

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The library's, but for its count of a padded batch of packs: it takes the length of one for all of them."""
        counted, shape = self._total_train_tokens, inputs["input_ids"].shape
        loss = super().compute_loss(model, inputs, *args, **options)
        if "position_ids" in inputs:
            self._total_train_tokens = counted + (self._total_train_tokens - counted) * shape[0]
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """Sums over trained tokens of their negative log-likelihood and of 1; one line for a batch laid end to end."""
        outputs = model(**batch, use_cache=False, fused_lm_head=True)
        return torch.stack([-outputs.log_probs.double().sum(1), outputs.label_mask.sum(1).double()], dim=1)

    def judged(self, values: Any) -> dict[str, float]:
        """The mean over all trained tokens."""
        loss, tokens = values.sum(0)
        return {"eval_loss": (loss / tokens).item()}
