"""A trainer whose loss is over the rows and tokens of a whole step, and that keeps what it measures of them.

The library hands a step over in parts: micro batches, on several ranks. Whatever is a mean over the step is therefore
kept as two sums, and each part's loss is divided by what the whole step has; so no layout changes a loss, a gradient or
a metric. A mixin on top of `ordered`. Not here: what is measured (`preference`, `unpaired`, `scores`).
"""

from collections.abc import Mapping
from typing import Any

import torch

from anneal_trainer.methods.losses import Loss
from anneal_trainer.methods.ordered import Ordered

# A name, and for each row a value and its weight: their mean is the sum of value x weight over the sum of weights.
Measures = Mapping[str, tuple[Any, Any]]


class Measured(Ordered):
    """The mixin: a trainer says what a micro batch's loss and measures are (`assessed`)."""

    # The loss below is already divided by what the whole step has.
    loss_is_scaled_for_ga = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sums: dict[str, Any] = {}
        self._seen_tokens = 0

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The loss of a micro batch, with gradients, and what is measured of it."""
        raise NotImplementedError

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """The number of tokens in a micro batch that `Loss.tokens` is over."""
        raise NotImplementedError

    @property
    def step_rows(self) -> int:
        """The rows of the step that `Loss.rows` is over, on all ranks."""
        return self._order.batch

    def look_ahead(self, batches: list[dict[str, Any]]) -> None:
        """Put into a step's micro batches what each must know of the whole step; usually nothing."""

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], _device: Any) -> Any:
        """The tokens of the step that `Loss.tokens` is over, on all ranks."""
        batches = [self._prepare_inputs(batch) for batch in batch_samples]
        self.look_ahead(batches)
        batch_samples[:] = batches
        return self.summed(sum(self.term_tokens(batch) for batch in batches))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *_args: Any, num_items_in_batch: Any = None, **_options: Any
    ) -> Any:
        """The share of the step's loss that is this part's."""
        loss, measures = self.assessed(model, inputs)
        self._keep_measures({**measures, "num_tokens": _token_count(inputs)})
        share = loss.rows.sum() / self.step_rows + loss.tokens.sum() / num_items_in_batch.clamp(min=1)
        # The ranks' gradients are averaged, where they are parts of one sum.
        return share * self.args.world_size

    def _keep_measures(self, measures: Measures) -> None:
        for name, (values, weights) in measures.items():
            parts = torch.stack([(values * weights).sum(), weights.sum()]).detach().double()
            self._sums[name] = self._sums.get(name, 0) + parts

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's, with the means of what was measured since the last time."""
        if self._sums:
            table = self.summed(torch.stack(list(self._sums.values()))).tolist()
            found = dict(zip(self._sums, table, strict=True))
            self._seen_tokens += int(found.pop("num_tokens")[0])
            logs |= means(found) | {"num_tokens": self._seen_tokens}
            self._sums.clear()
        super().log(logs, start_time)  # type: ignore[misc]


def _token_count(batch: dict[str, Any]) -> tuple[Any, Any]:
    """All tokens that the model reads with gradients, padding left out."""
    count = torch.tensor([float(sum(batch["seq_lengths"]))], device=batch["input_ids"].device)
    return count, torch.ones_like(count)


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """The mean of each measure that has any weight, and the margin between rewards where there are two."""
    found = {name: value / weight for name, (value, weight) in sums.items() if weight}
    if "rewards/chosen" in found and "rewards/rejected" in found:
        found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
    return found


def evaluation(loss: Loss, tokens: Any, measures: Measures) -> dict[str, float]:
    """`eval_loss` and the means of all rows of a holdout at once; `tokens` as in `Measured.term_tokens`."""
    value = loss.rows.mean() + (loss.tokens.sum() / tokens).nan_to_num()
    sums = {
        name: ((values * weights).sum().item(), weights.sum().item()) for name, (values, weights) in measures.items()
    }
    return {"eval_loss": value.item()} | {f"eval_{name}": mean for name, mean in means(sums).items()}
