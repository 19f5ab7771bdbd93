"""Supervised fine-tuning, from prepared data to a trained adapter or model, in the order in which it happens.

The training loop is TRL's; here it is configured, and what surrounds it is done. Imported late: it needs torch and TRL.
"""

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback
from trl import SFTConfig

from anneal_api import FineTuneSpec
from anneal_trainer import apart, checkpoints, model, output, samples
from anneal_trainer.context import Context
from anneal_trainer.data import store
from anneal_trainer.errors import ConfigError, StoppedError
from anneal_trainer.methods.follow import Follow, peak_memory
from anneal_trainer.methods.packs import collator_for
from anneal_trainer.methods.trainer import OrderedTrainer
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


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    spec, layout = context.spec, context.layout
    plan = make_plan(
        spec, sequences=ready.report.sequences, world=context.world_size, micro_batch=context.micro_batch_size
    )
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
    trainer = _trainer(context, ready, plan=plan, found=found, stop=stop)
    metrics = (
        MetricsLog(layout.logs / "metrics.jsonl", resumed_from=start.step if start else 0) if _first(trainer) else None
    )
    trainer.add_callback(Follow(trainer, reporter, metrics, plan))
    if start is None:
        _look(context, trainer, ready, when=samples.BEFORE, reporter=reporter)
    stop.defer()
    _train(trainer, start, world=context.world_size)
    if trainer.state.global_step < plan.steps:
        raise StoppedError(
            f"stopped at step {trainer.state.global_step} of {plan.steps}: its checkpoint is saved, "
            "and the next attempt goes on from there"
        )
    _look(context, trainer, ready, when=samples.AFTER, reporter=reporter)
    return _finish(context, trainer, ready, reporter=reporter, metrics=metrics)


def _first(trainer: OrderedTrainer) -> bool:
    """Whether this process writes the files that there is one of."""
    return bool(trainer.is_world_process_zero())


def _trainer(context: Context, ready: Ready, *, plan: Plan, found: model.Device, stop: Stop) -> OrderedTrainer:
    spec = context.spec
    args = _arguments(context, plan, found)
    if args.world_size != context.world_size:
        raise AssertionError(f"{args.world_size} processes train together where {context.world_size} were started")
    torch.manual_seed(spec.training.seed)
    base = model.load_model(spec, ready.model_path, ready.tokenizer, found=found)
    if ready.report.packed:
        apart.check(base)
    trainer = OrderedTrainer(
        order=plan.order,
        keep=spec.checkpoint.keep,
        stop=stop,
        model=base,
        args=args,
        train_dataset=ready.prepared.dataset(store.TRAIN),
        eval_dataset=ready.prepared.dataset(store.EVAL),
        processing_class=ready.tokenizer,
        data_collator=collator_for(base, ready.tokenizer) if ready.report.packed else None,
        peft_config=spec.adapter and model.adapter_config(spec, ready.tokenizer, base),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(context: Context, plan: Plan, found: model.Device) -> SFTConfig:
    training = context.spec.training
    return SFTConfig(
        output_dir=str(context.layout.checkpoints),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULERS[training.lr_scheduler],
        warmup_steps=plan.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=OPTIMIZERS[training.optimizer],
        seed=training.seed,
        bf16=model.precision(context.spec, found) == "bf16",
        gradient_checkpointing=training.gradient_checkpointing,
        logging_steps=1,
        # The library would replace a loss that is not a number by an average and go on.
        logging_nan_inf_filter=False,
        save_steps=plan.save_every,
        eval_strategy="steps" if context.spec.evaluation and context.spec.evaluation.has_rows else "no",
        eval_steps=plan.evaluate_every,
        # Without it two CPU processes would each train alone, and nothing would say so.
        use_cpu=found.kind == "cpu",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=found.kind == "cuda",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        report_to=[],
        disable_tqdm=True,
    )


def _train(trainer: OrderedTrainer, start: checkpoints.Checkpoint | None, *, world: int) -> None:
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


def _look(context: Context, trainer: OrderedTrainer, ready: Ready, *, when: str, reporter: Reporter) -> None:
    """The holdout's loss and the sample answers, before or after training."""
    evaluation = context.spec.evaluation
    if evaluation is None:
        return
    reporter.update(phase="evaluating")
    if when == samples.BEFORE and trainer.eval_dataset is not None:
        trainer.evaluate()
    if evaluation.samples and _first(trainer):
        texts = [sample.prompt for sample in evaluation.samples]
        assert isinstance(context.spec, FineTuneSpec), "the method is of that kind"
        first = context.spec.datasets[0]
        found = samples.answers(
            trainer.accelerator.unwrap_model(trainer.model),
            ready.tokenizer,
            texts,
            asking=samples.Asking(
                ready.report.types[0], first.format, first.chat_template, given=first.chat_template_kwargs
            ),
            most=evaluation.max_sample_tokens,
        )
        samples.save(context.layout, when, found)
    trainer.wait_for_everyone()


def _finish(
    context: Context, trainer: OrderedTrainer, ready: Ready, *, reporter: Reporter, metrics: MetricsLog | None
) -> Result:
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
        tokens_per_second=report.tokens_per_second,
        device=report.device or "",
        peak_memory_bytes=peak_memory(),
        resumed_from_step=report.resumed_from_step,
        outputs=outputs,
        dataset=ready.report,
    )
