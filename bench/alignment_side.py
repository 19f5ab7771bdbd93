"""One run of alignment training for `alignment_pairs`: by Anneal's trainer or by the bare TRL trainer, the same rows.

    alignment_side.py ours|trl dpo|kto STORAGE NAME STEPS [precompute]

Both see the same rows in the same order, in micro batches of four, two a step, without a holdout. Printed at the end:
when each step ended, the losses, and the peak memory of the process.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

BATCH, MICRO, RATE = 8, 4, 1e-5


def ours(method: str, storage: Path, name: str, steps: int, *, precompute: bool) -> dict[str, Any]:
    """Anneal's trainer, from prepared rows."""
    from trainer.aligning import aligned, alignment_job
    from trainer.training import records

    training = {
        "maxSteps": steps,
        "globalBatchSize": BATCH,
        "microBatchSize": MICRO,
        "learningRate": RATE,
        "sequenceLength": 512,
        "warmupSteps": 0,
        "gradientCheckpointing": False,
        "precision": "fp32",
    }
    job = alignment_job(
        method,
        name,
        adapter={"r": 16, "alpha": 32},
        reference={"precompute": precompute},
        training=training,
        checkpoint={"everySteps": 100000},
    )
    aligned(storage, job)
    found = [record for record in records(storage, name) if "loss" in record]
    return {"times": [record["time"] for record in found], "losses": [record["loss"] for record in found]}


def trl(method: str, storage: Path, name: str, steps: int, *, precompute: bool) -> dict[str, Any]:
    """TRL's own trainer of the method."""
    import torch
    from bare_trl import StepTimes
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    torch.manual_seed(42)
    kind, settings = (DPOTrainer, DPOConfig) if method == "dpo" else (KTOTrainer, KTOConfig)

    class InOrder(kind):  # type: ignore[misc, valid-type]
        def _get_train_sampler(self, _dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    rows = [json.loads(line) for line in (storage / f"{method}.jsonl").read_text().splitlines()]
    args = settings(
        output_dir=str(storage / name), max_steps=steps, per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO, max_length=None, learning_rate=RATE, lr_scheduler_type="cosine",
        gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1, save_strategy="no", report_to=[],
        disable_tqdm=True, seed=42, precompute_ref_log_probs=precompute,
    )  # fmt: skip
    times = StepTimes()
    trainer = InOrder(
        AutoModelForCausalLM.from_pretrained(storage / "model", dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(storage / "model"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[times],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"times": times.times, "losses": losses}


def main(side: str, method: str, storage: Path, name: str, steps: int, *, precompute: bool) -> None:
    """Run it and print."""
    begun = time.time()
    found = (ours if side == "ours" else trl)(method, storage, name, steps, precompute=precompute)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**found, "begun": begun, "peak": peak}))


if __name__ == "__main__":
    _, side, method, storage, name, steps, *rest = sys.argv
    main(side, method, Path(storage), name, int(steps), precompute=bool(rest))
