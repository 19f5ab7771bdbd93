"""What every trainer does beside the library's loop: a fixed order, whole checkpoints, an exact evaluation, a stop.

- The order of the rows is given, not drawn, so that it does not depend on processes or accumulation.
- A checkpoint is staged and published when every rank has written (`checkpoints`).
- The evaluation is over the rows of the holdout, all of them at once. The library's is a mean of means over batches,
  which changes with the micro batch and the number of GPUs.
- Several ranks end at the same step, whichever of them was asked to.

A mixin, to stand before `transformers.Trainer` or a subclass of it. Imported late: it needs torch. Not here: losses.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import Trainer

from anneal_trainer import checkpoints
from anneal_trainer.order import AnswerOrder, RunOrder
from anneal_trainer.stop import Stop

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


class Ordered:
    """The mixin. A trainer says what it measures of each row (`row_values`) and what that means (`judged`)."""

    # What the library sets; told to the type checker.
    args: Any
    state: Any
    model: Any
    control: Any
    callback_handler: Any
    accelerator: Any
    data_collator: Any
    eval_dataset: Any
    is_world_process_zero: Any
    _prepare_inputs: Any

    # Of the step that is done: what it took before the library says that it begins.
    seconds_before_step = 0.0

    # Numbers that `row_values` has for a row.
    row_width: int

    def __init__(self, *, order: RunOrder | AnswerOrder, keep: int, stop: Stop, **options: Any) -> None:
        self._order = order
        self._keep = keep
        self._stop = stop
        super().__init__(**options)
        # TRL casts the adapters of quantized models to bf16; small updates are lost there, so what is trained stays
        # fp32.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def row_values(self, model: Any, batch: dict[str, Any]) -> Any:
        """A line of numbers for each row of the batch."""
        raise NotImplementedError

    def judged(self, values: Any) -> dict[str, float]:
        """The metrics, `eval_loss` among them, of the lines of all rows (fp64)."""
        raise NotImplementedError

    def _send_telemetry(self) -> None:
        """Anneal reports to nobody."""

    def _get_train_sampler(self, _dataset: Any = None) -> RunOrder | AnswerOrder:
        return self._order

    def _get_output_dir(self, trial: Any) -> str:
        """Where the library writes: the staging directory; see `_save_checkpoint`."""
        return str(checkpoints.staging(Path(super()._get_output_dir(trial)), 0).parent)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        directory, step = Path(self.args.output_dir), self.state.global_step
        if self.is_world_process_zero():
            checkpoints.clear_staging(directory)
        self.wait_for_everyone()
        # Not super(): TRL's own would write a model card into every checkpoint.
        Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001
        self.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoints.publish(directory, step, keep=self._keep)
        self.wait_for_everyone()

    def wait_for_everyone(self) -> None:
        """A barrier between ranks; nothing in a single process."""
        if self.args.world_size > 1:
            distributed.barrier()

    def summed(self, values: Any) -> Any:
        """`values` added up over all ranks."""
        if self.args.world_size > 1:
            distributed.all_reduce(values)
        return values

    def of_all_ranks(self, own: Any) -> Any:
        """The tensors of all ranks, which are of one size, end to end."""
        if self.args.world_size == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.args.world_size)]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @property
    def may_stop(self) -> bool:
        """Whether a run that is stopped after this step goes on exactly."""
        return True

    def anyone_stops(self) -> bool:
        """Whether any rank was asked to stop: the same answer on every rank."""
        if self.args.world_size == 1:
            return self._stop.requested
        flag = torch.tensor(int(self._stop.requested), device=self.args.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag.item())

    def evaluate(self, *_args: Any, **_options: Any) -> dict[str, float]:
        """The metrics of the holdout; none, and the run ends as soon as it may, if it is asked to stop meanwhile."""
        metrics = self.measured_rows()
        if metrics is None:
            if self.may_stop:
                self.control.should_training_stop = self.control.should_save = True
            return {}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measured_rows(self) -> dict[str, float] | None:
        """The metrics of the holdout; None if stopped."""
        values = self.over(self.eval_dataset, self.row_width, self.row_values)
        return None if values is None else self.judged(values)

    def over(self, rows: Any, width: int, measure: Callable[[Any, dict[str, Any]], Any]) -> Any:
        """`measure`'s `width` numbers for each of `rows`, in their order, the same on every rank; None if stopped."""
        table = torch.zeros(len(rows), width, dtype=torch.float64, device=self.args.device)
        model, was_training = self.model, self.model.training
        model.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                for own in self._own_rows(len(rows), self.args.per_device_eval_batch_size):
                    if self.anyone_stops():
                        return None
                    if own:
                        values = measure(model, self._prepare_inputs(self.data_collator([rows[i] for i in own])))
                        table[list(own)[: len(values)]] = values.double()
        finally:
            model.train(was_training)
        return self.summed(table)

    def _own_rows(self, count: int, size: int) -> Iterator[range]:
        """The rows of this rank, a batch at a time; as many batches on every rank, empty where nothing is left."""
        world, rank = self.args.world_size, self.args.process_index
        for start in range(0, count, size * world):
            yield range(start + rank * size, min(start + (rank + 1) * size, count))
