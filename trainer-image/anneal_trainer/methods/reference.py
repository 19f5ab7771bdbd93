"""Computing with the reference: the adapter switched off, a frozen model, or log-probabilities that were kept.

    prepared/FINGERPRINT/reference-DIGEST.safetensors   train and eval: log-probabilities of each row's two sequences

The digest is over what the log-probabilities depend on beside the rows: the reference's files and how they are held. So
later attempts and other jobs find them. Imported late: it needs torch. Not here: whether the model fits (`reference`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from trl.trainer.utils import add_fused_lm_head

from anneal_api.resolve import digest
from anneal_api.rlhfjob import RLHFSpec
from anneal_trainer import model, reference
from anneal_trainer.data import store
from anneal_trainer.errors import StoppedError

if TYPE_CHECKING:
    from anneal_trainer.methods.answers import AnswersTrainer
    from anneal_trainer.methods.loop import Setup

# From the policy to the model that is the reference, for as long as it is computed with.
Reference = Callable[[Any], AbstractContextManager[Any]]
Trainer = TypeVar("Trainer", bound="AnswersTrainer")
_COLUMN = "reference"


@contextmanager
def adapter_off(policy: Any) -> Iterator[Any]:
    """The weights that the adapter was put on, in the same memory; what dropout there is goes with the adapter."""
    with policy.disable_adapter():
        yield policy


@contextmanager
def without_dropout(policy: Any) -> Iterator[Any]:
    """The policy as it is. No more is switched off: quantized layers on a CPU pack themselves anew to evaluate."""
    active = [each for each in policy.modules() if isinstance(each, torch.nn.Dropout) and each.training]
    for each in active:
        each.eval()
    try:
        yield policy
    finally:
        for each in active:
            each.train()


def frozen(other: Any) -> Reference:
    """A second model that stays as it is."""

    @contextmanager
    def use(_policy: Any) -> Iterator[Any]:
        yield other

    return use


def with_reference(setup: "Setup", build: Callable[[Reference | None], Trainer]) -> Trainer:
    """The trainer, with the reference that its job asks for."""
    spec = _spec(setup)
    if not spec.refers:
        return build(None)
    if not spec.reference.precompute:
        return build(_reference(setup, copies=True))
    file = kept_at(setup)
    if file.exists():
        trainer = build(None)
        found = _read(file)
    else:
        trainer = build(_reference(setup, copies=False))
        found = _computed(trainer)
        if trainer.is_world_process_zero():
            _write(file, found)
        trainer.wait_for_everyone()
    _attach(trainer, found)
    trainer.drop_reference()
    return trainer


def _spec(setup: "Setup") -> RLHFSpec:
    spec = setup.context.spec
    assert isinstance(spec, RLHFSpec), "only methods of that kind have a reference"
    return spec


def for_answers(setup: "Setup", *, temperature: float) -> Reference | None:
    """The reference of a job whose answers are not known before; its log-probabilities are those at `temperature`."""
    return _reference(setup, copies=True, temperature=temperature) if _spec(setup).refers else None


def _reference(setup: "Setup", *, copies: bool, temperature: float = 1.0) -> Reference:
    """`copies`: the trained model moves while the reference is asked, so that without an adapter it needs a copy."""
    spec = _spec(setup)
    chosen = reference.model_of(spec)
    if chosen is None and spec.adapter is not None:
        return adapter_off
    if chosen is None and not copies:
        return without_dropout
    held = spec.model_copy(update={"model": chosen or spec.model})
    path = reference.directory(setup.context)
    other = model.load_model(held, path, setup.ready.tokenizer, found=setup.found)
    add_fused_lm_head(other, temperature=temperature)
    if spec.model.quantization == "none":
        other.to("cuda" if setup.found.kind == "cuda" else "cpu")
    return frozen(other.eval().requires_grad_(False))


def kept_at(setup: "Setup") -> Path:
    """Where the reference's log-probabilities of this job's data are kept."""
    spec = _spec(setup)
    chosen = reference.model_of(spec) or spec.model
    path = reference.directory(setup.context)
    files = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(path.glob("*.safetensors"))]
    held = [model.precision(spec, setup.found), spec.adapter is not None, chosen.quantization, chosen.attention]
    return setup.ready.prepared.path / f"reference-{digest([str(path.name), files, held])}.safetensors"


def _computed(trainer: "AnswersTrainer") -> dict[str, Any]:
    found = {}
    for split, rows in _splits(trainer).items():
        values = trainer.over(rows, 2, trainer.reference_values)
        if values is None:
            raise StoppedError("stopped before training began: the reference's log-probabilities were not complete")
        found[split] = values.float().cpu()
    return found


def _splits(trainer: "AnswersTrainer") -> dict[str, Any]:
    splits = {store.TRAIN: trainer.train_dataset, store.EVAL: trainer.eval_dataset}
    return {name: rows for name, rows in splits.items() if rows is not None}


def _attach(trainer: "AnswersTrainer", found: dict[str, Any]) -> None:
    for split, rows in _splits(trainer).items():
        setattr(trainer, f"{split}_dataset", rows.add_column(_COLUMN, found[split].tolist()))


def _read(file: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(file)
    return found


def _write(file: Path, found: dict[str, Any]) -> None:
    """Whole or not there."""
    from safetensors.torch import save_file

    draft = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: values.contiguous() for name, values in found.items()}, draft)
    draft.replace(file)
