"""A run, from prepared data to a result, in the order in which it happens: the same for every method.

The training loop is the library's; here it is configured, and what surrounds it is done. A method says only how its
trainer is made. Imported late: it needs torch and TRL.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, TrainingArguments
from trl import SFTConfig

from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import apart, checkpoints, model, output, samples
from anneal_trainer.context import Context
from anneal_trainer.data import store
from anneal_trainer.errors import ConfigError, StoppedError
from anneal_trainer.methods.answering import Answering, answers_samples
from anneal_trainer.methods.barren import Barren
from anneal_trainer.methods.follow import Follow, peak_memory
from anneal_trainer.methods.sequences import SequenceCollator
from anneal_trainer.methods.showing import Showing
from anneal_trainer.metrics import MetricsLog
from anneal_trainer.plan import Plan, make_plan
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
}
SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Setup:
    """What a method makes its trainer of."""

    context: Context
    ready: Ready
    plan: Plan
    found: model.Device
    stop: Stop
    resumed_from: int = 0

    def base_model(self, *, dropout: bool = True) -> Any:
        """The base model; without `dropout` only an adapter's own is left."""
        torch.manual_seed(self.context.spec.training.seed)
        spec = self.context.spec
        base = model.load_model(spec, self.ready.model_path, self.ready.tokenizer, found=self.found)
        if self.found.kind == "cuda" and spec.model.quantization == "none":
            # The trainer would do it later; some kernels of attention work nowhere else.
            base.to("cuda")
        if not dropout:
            model.switch_dropout_off(base)
        return base

    def computing(self) -> Any:
        """The precision that training computes in, as a block of code."""
        half = model.precision(self.context.spec, self.found) == "bf16"
        return torch.autocast(self.found.kind, dtype=torch.bfloat16, enabled=half)

    def language_options(self, base: Any, **arguments: Any) -> dict[str, Any]:
        """What a trainer of a language model takes."""
        spec = self.context.spec
        return {
            **self.options(SFTConfig, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **arguments),
            "model": base,
            "peft_config": spec.adapter and model.adapter_config(spec, self.ready.tokenizer, base),
        }

    def options(self, kind: type[TrainingArguments], **arguments: Any) -> dict[str, Any]:
        """What every trainer takes."""
        made = kind(**_arguments(self.context, self.plan, self.found), **arguments)
        if made.world_size != self.context.world_size:
            raise AssertionError(
                f"{made.world_size} processes train together where {self.context.world_size} were started"
            )
        return {
            "order": self.plan.order,
            "keep": self.context.spec.checkpoint.keep,
            "stop": self.stop,
            "args": made,
            "train_dataset": self.ready.prepared.dataset(store.TRAIN),
            "eval_dataset": self.ready.prepared.dataset(store.EVAL),
            "processing_class": self.ready.tokenizer,
        }

    def collator(self, base: Any, **options: Any) -> SequenceCollator:
        """Sequences end to end where attention keeps them apart by their positions; else padded."""
        flat = "flash" in base.config._attn_implementation and apart.why_not(self.ready.model_path) is None  # noqa: SLF001 - the only place where the library says which it took
        return SequenceCollator(flat=flat, padding=self.ready.tokenizer.pad_token_id, **options)


def run(context: Context, ready: Ready, *, make: Callable[[Setup], Any], reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    spec, layout = context.spec, context.layout
    plan = make_plan(spec, sequences=ready.report.sequences, world=context.world_size)
    start = checkpoints.to_resume(layout, spec.checkpoint.resume_from)
    found = model.device()
    reporter.update(
        phase="loading",
        step=start.step if start else 0,
        total_steps=plan.steps,
        resumed_from_step=start.step if start else None,
        device=found.name,
        micro_batch_size=plan.micro_batch,
        world_size=context.world_size,
    )
    if found.kind == "cuda":
        # Before anything is loaded: else every process of a node would load onto the first GPU.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    trainer = make(Setup(context, ready, plan, found, stop, resumed_from=start.step if start else 0))
    trainer.remove_callback(PrinterCallback)
    metrics = (
        MetricsLog(layout.logs / "metrics.jsonl", resumed_from=start.step if start else 0) if _first(trainer) else None
    )
    trainer.add_callback(Follow(trainer, reporter, metrics, plan))
    if _first(trainer) and spec.is_online:
        trainer.add_callback(Showing(layout.samples, reporter, logs=context.records is not None))
        assert isinstance(spec, RLHFSpec), "others draw nothing"
        trainer.add_callback(Barren(spec, reporter))
    asked = (
        Answering(trainer, context=context, ready=ready, plan=plan, reporter=reporter)
        if answers_samples(context)
        else None
    )
    if asked:
        trainer.add_callback(asked)
    if start is None:
        _look(trainer, asked, reporter)
    stop.defer()
    _train(trainer, start, world=context.world_size)
    if trainer.state.global_step < plan.steps:
        raise StoppedError(f"stopped at step {trainer.state.global_step} of {plan.steps}: its checkpoint is saved")
    if asked:
        asked.ask(samples.AFTER, plan.steps)
    trainer.wait_for_everyone()
    return _finish(context, trainer, ready, reporter=reporter, metrics=metrics)


def _first(trainer: Any) -> bool:
    """Whether this process writes the files that there is one of."""
    return bool(trainer.is_world_process_zero())


def _arguments(context: Context, plan: Plan, found: model.Device) -> dict[str, Any]:
    training = context.spec.training
    return {
        "output_dir": str(context.layout.checkpoints),
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": SCHEDULERS[training.lr_scheduler],
        "warmup_steps": plan.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": OPTIMIZERS[training.optimizer],
        "seed": training.seed,
        "bf16": model.precision(context.spec, found) == "bf16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": 1,
        # The library would replace a loss that is not a number by an average and go on.
        "logging_nan_inf_filter": False,
        "save_steps": plan.save_every,
        "eval_strategy": "steps" if context.spec.evaluation and context.spec.evaluation.has_rows else "no",
        "eval_steps": plan.evaluate_every,
        # Without it two CPU processes would each train alone, and nothing would say so.
        "use_cpu": found.kind == "cpu",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": found.kind == "cuda",
        "report_to": [],
        "disable_tqdm": True,
    }


def _look(trainer: Any, asked: Answering | None, reporter: Reporter) -> None:
    """What the holdout and the samples say before training."""
    if trainer.eval_dataset is not None:
        reporter.update(phase="evaluating")
        trainer.evaluate()
    if asked:
        asked.ask(samples.BEFORE, 0)
    trainer.wait_for_everyone()


def _train(trainer: Any, start: checkpoints.Checkpoint | None, *, world: int) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(start.path) if start else None)
    except RuntimeError as error:
        if start and "size mismatch" in str(error):
            raise ConfigError(
                f"{start.path} is a checkpoint of another adapter or model than this job's: {error}; "
                "write the same model and adapter, or leave out checkpoint.resumeFrom"
            ) from error
        raise
    if world > 1 and not isinstance(trainer.model_wrapped, DistributedDataParallel):
        raise AssertionError(f"{world} processes trained apart: the model is a {type(trainer.model_wrapped).__name__}")


def _finish(context: Context, trainer: Any, ready: Ready, *, reporter: Reporter, metrics: MetricsLog | None) -> Result:
    """Save the result; what ranks beside the first return is not read."""
    reporter.update(phase="saving")
    outputs = [output.save(context, trainer.model, ready.tokenizer)] if _first(trainer) else []
    trainer.wait_for_everyone()
    if metrics:
        metrics.close()
    report = reporter.report
    reporter.update(phase="done", eta_seconds=0.0, peak_memory_bytes=peak_memory())
    return Result(
        steps=trainer.state.global_step,
        first_loss=metrics.first_loss if metrics else None,
        loss=report.loss,
        eval_loss=report.eval_loss,
        metrics=report.metrics,
        tokens_per_second=report.tokens_per_second,
        device=report.device or "",
        peak_memory_bytes=peak_memory(),
        resumed_from_step=report.resumed_from_step,
        outputs=outputs,
        dataset=ready.report,
        warning=report.warning,
    )
