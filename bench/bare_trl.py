"""The peer: what a person writes with TRL alone to do the same work as the job that `trainer.py` runs.

    bare_trl.py MODEL DATA OUT STEPS

Prints one JSON line: wall-clock times (seconds since the epoch) at the end of every optimizer step.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def prompt_and_completion(row: dict[str, str]) -> dict[str, str]:
    """The Alpaca prompt, and the answer that is trained."""
    template = WITH_INPUT if row["input"] else WITHOUT_INPUT
    return {"prompt": template.format(**row), "completion": row["output"]}


class StepTimes(TrainerCallback):  # type: ignore[misc]
    """When each optimizer step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.times.append(time.time())


def main(model_path: str, data: str, out: str, steps: int) -> None:
    torch.manual_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    rows = load_dataset("json", data_files=data, split="train", cache_dir=f"{out}/cache")
    rows = rows.map(prompt_and_completion, remove_columns=rows.column_names)
    args = SFTConfig(
        output_dir=out, max_steps=steps, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_length=256,
        learning_rate=1e-3, lr_scheduler_type="cosine", gradient_checkpointing=False, bf16=False, use_cpu=True,
        logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, seed=42,
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    times = StepTimes()
    trainer = SFTTrainer(
        model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=lora, callbacks=[times]
    )
    trainer.train()
    trainer.save_model()
    print(json.dumps({"times": times.times, "losses": [x["loss"] for x in trainer.state.log_history if "loss" in x]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], str(Path(sys.argv[3])), int(sys.argv[4]))
