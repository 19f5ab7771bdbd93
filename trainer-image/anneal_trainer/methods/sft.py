"""Supervised fine-tuning, from prepared data to a trained adapter or model: sft and pretrain.

Imported late: it needs torch and TRL.
"""

from anneal_trainer import apart
from anneal_trainer.context import Context
from anneal_trainer.methods import loop
from anneal_trainer.methods.packs import collator_for
from anneal_trainer.methods.trainer import OrderedTrainer
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    return loop.run(context, ready, make=_trainer, reporter=reporter, stop=stop)


def _trainer(setup: loop.Setup) -> OrderedTrainer:
    base, ready = setup.base_model(), setup.ready
    if ready.report.packed:
        with setup.computing():
            apart.check(base)
    collator = collator_for(base, ready.tokenizer) if ready.report.packed else None
    return OrderedTrainer(data_collator=collator, **setup.language_options(base))
