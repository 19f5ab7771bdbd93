"""The reference model of a job, as far as it can be judged without loading it: where it is, and whether it fits.

`prepare` asks on a CPU, before a GPU is waited for. Not here: computing with it (`methods.reference`).
"""

from pathlib import Path
from typing import Any

from anneal_api.model import ModelSpec
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError

FIELD = "reference.source"


def model_of(spec: RLHFSpec) -> ModelSpec | None:
    """The reference as a model of its own, held as the trained one is; None if it is the trained one's start."""
    if spec.reference.source is None:
        return None
    changes = {
        "source": spec.reference.source,
        "revision": spec.reference.revision,
        "chat_template": "auto",
        "add_special_tokens": [],
    }
    return spec.model.model_copy(update=changes)


def directory(context: Context) -> Path:
    """Where its files are: those of the model that is trained, if the job names no other."""
    return model.directory(context.spec.models[-1], context)


def check_reference(context: Context) -> None:
    """InputError if the reference does not read the same tokens; its files are there, and were looked at, before."""
    spec = context.spec
    chosen = model_of(spec) if isinstance(spec, RLHFSpec) else None
    if chosen is None:
        return
    assert isinstance(spec, RLHFSpec), "no other job has a reference"
    own = model.load_tokenizer(spec.model, model.directory(spec.models[0], context))
    _check_vocabulary(own, model.load_tokenizer(chosen, directory(context), field=FIELD), spec)


def _check_vocabulary(own: Any, other: Any, spec: RLHFSpec) -> None:
    """Log-probabilities compare only where a token's number means the same to both."""
    ids, reference = own.get_vocab(), other.get_vocab()
    if ids == reference:
        return
    differing = sorted(set(ids.items()) ^ set(reference.items()), key=lambda entry: (entry[1], entry[0]))
    token, number = differing[0]
    raise InputError(
        f"{FIELD} {spec.reference.source}: its vocabulary is not that of model.source {spec.model.source}: "
        f"{len(reference)} tokens where the model has {len(ids)}, and {len({entry[1] for entry in differing})} numbers "
        f"differ, first {number} ({token!r}); write a model with the same tokenizer, like the one that "
        "model.source was trained from, or leave out reference to compare with the model as it is now"
    )
