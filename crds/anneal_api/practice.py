"""The field's accepted numbers for each method: defaults of learning rate, batch and warm-up, and where they are from.

An adapter takes ten times the rate of full fine-tuning, at every method: it has about that many times less to move
("LoRA Without Regret", Schulman et al. 2025; QLoRA, table 9 against Alpaca's rate). Not here: filling them in (`resolve`).
"""

from dataclasses import dataclass
from typing import Final

ADAPTER_FACTOR: Final = 10


@dataclass(frozen=True)
class Practice:
    """Peak learning rate of full fine-tuning, sequences (pairs, answers) a step, share of the steps for warm-up."""

    learning_rate: float
    batch: int
    warmup_ratio: float


_TUNING = Practice(2e-5, 16, 0.03)
# Zephyr (arXiv 2310.16944, section 4.3): 5e-7, batch 32, a tenth for warm-up; the same for what descends from DPO.
_PREFERENCE = Practice(5e-7, 32, 0.1)
PRACTICE: Final[dict[str, Practice]] = {
    # Alpaca and LIMA (arXiv 2305.11206): 1e-5 to 2e-5.
    "sft": _TUNING,
    "pretrain": _TUNING,
    "dpo": _PREFERENCE,
    "ipo": _PREFERENCE,
    "kto": _PREFERENCE,
    # arXiv 2403.07691, appendix C: it teaches the task too, so the rate is nearer to that of fine-tuning.
    "orpo": Practice(8e-6, 32, 0.1),
    # arXiv 2405.14734, appendix B: 3e-7 to 1e-6.
    "simpo": Practice(1e-6, 32, 0.1),
    "cpo": Practice(1e-6, 32, 0.1),
    # InstructGPT (arXiv 2203.02155, appendix C.2): 9e-6, 64 comparisons; Llama 2 (2307.09288, section 3.2.2): 1e-5.
    "reward": Practice(1e-5, 64, 0.03),
    "prm": Practice(1e-5, 32, 0.03),
    # DeepSeekMath (arXiv 2402.03300, section 4.2) and DAPO (2503.14476, section 4.1): 1e-6, a short warm-up in the latter;
    # of answers a step they have 1024 and 8192, on as many GPUs.
    "grpo": Practice(1e-6, 128, 0.03),
    # arXiv 2402.14740, appendix C: 1e-6, 512 answers drawn at once, a warm-up of 3%.
    "rloo": Practice(1e-6, 128, 0.03),
}
