"""TRL's SFTTrainer with the four things it does not do: a fixed order, whole checkpoints, an exact evaluation, a stop.

- The order of the rows is given, not drawn, so that it does not depend on processes or accumulation.
- A checkpoint is staged and published when every rank has written (`checkpoints`).
- The evaluation loss is the mean over all trained tokens of the holdout. The library's is a mean of means over batches,
  which changes with the micro batch and the number of GPUs.
- Several ranks end at the same step, whichever of them was asked to.

Imported late: it needs torch and TRL.
"""

import os
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper
from torch import distributed
from transformers import Trainer
from trl import SFTTrainer

from anneal_trainer import checkpoints
from anneal_trainer.order import RunOrder
from anneal_trainer.stop import Stop

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _give_head_its_bias(model: Any) -> None:
    """TRL reads the output head's weight and bias; PEFT's wrapper for trained rows passes on the weight alone."""
    head = model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        # Past torch's own __setattr__, which would register the parameter a second time.
        object.__setattr__(head, "bias", getattr(head.token_adapter.base_layer, "bias", None))


class OrderedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer over a `RunOrder`."""

    # What the library sets; told to the type checker.
    control: Any
    _total_train_tokens: int
    _metrics: dict[str, dict[str, list[Any]]]

    def __init__(self, *, order: RunOrder, keep: int, stop: Stop, **options: Any) -> None:
        self._order = order
        self._keep = keep
        self._stop = stop
        super().__init__(**options)
        _give_head_its_bias(self.model)
        # TRL casts the adapters of quantized models to bf16; small updates are lost there, so what is trained stays
        # fp32.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _send_telemetry(self) -> None:
        """Anneal reports to nobody."""

    def _get_train_sampler(self, _dataset: Any = None) -> RunOrder:
        return self._order

    def _get_output_dir(self, trial: Any) -> str:
        """Where the library writes: the staging directory; see `_save_checkpoint`."""
        return str(checkpoints.staging(Path(super()._get_output_dir(trial)), 0).parent)

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

    def anyone_stops(self) -> bool:
        """Whether any rank was asked to stop: the same answer on every rank."""
        if self.args.world_size == 1:
            return self._stop.requested
        flag = torch.tensor(int(self._stop.requested), device=self.args.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag.item())

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The library's, but for its count of a padded batch of packs: it takes the length of one for all of them."""
        counted, shape = self._total_train_tokens, inputs["input_ids"].shape
        loss = super().compute_loss(model, inputs, *args, **options)
        if "position_ids" in inputs:
            self._total_train_tokens = counted + (self._total_train_tokens - counted) * shape[0]
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def evaluate(self, *_args: Any, **_options: Any) -> dict[str, float]:
        """The loss over every trained token of the holdout; cut short, with no result, if the run is asked to stop."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        model, was_training = self.model, self.model.training
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for batch in self._own_batches():
                if self.anyone_stops():
                    self.control.should_training_stop = self.control.should_save = True
                    model.train(was_training)
                    return {}
                if batch is not None:
                    sums += self._loss_sum(model, self._prepare_inputs(batch))
        model.train(was_training)
        if self.args.world_size > 1:
            distributed.all_reduce(sums)
        metrics = {"eval_loss": (sums[0] / sums[1]).item()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _own_batches(self) -> Any:
        """The batches of this rank; as many on every rank, None where there is nothing left."""
        rows, size = self.eval_dataset, self.args.per_device_eval_batch_size
        world, rank = self.args.world_size, self.args.process_index
        stride = size * world
        for start in range(0, len(rows), stride):
            own = range(start + rank * size, min(start + (rank + 1) * size, len(rows)))
            yield self.data_collator([rows[index] for index in own]) if own else None

    @staticmethod
    def _loss_sum(model: Any, batch: dict[str, Any]) -> Any:
        """Negative log-likelihood summed over trained tokens, and their number."""
        outputs = model(**batch, use_cache=False, fused_lm_head=True)
        return torch.stack([-outputs.log_probs.double().sum(), outputs.label_mask.sum().double()])
