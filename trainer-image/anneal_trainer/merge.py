"""What earlier jobs have made, as a plain model: adapters are merged into their base once, on CPUs, and kept.

Whatever comes later (the trainer, a reference, a server) sees the directory of a model like any other. The base is
loaded in the type that its config names, and never quantized: rounding errors would be kept for good.
Everything is compared with the digest that was pinned when the earlier job succeeded.
Not here: which results those are (`anneal_api.origin`), and waiting for them (the operator).
"""

import json
import shutil
from pathlib import Path
from typing import Any

from anneal_api.model import ModelSource
from anneal_api.origin import shown
from anneal_api.sources import local_path, parse_source
from anneal_api.status import SourceReport
from anneal_trainer import hub, model, quiet_libraries
from anneal_trainer.context import Context
from anneal_trainer.errors import InputError
from anneal_trainer.files import digest_of, new_directory

_MERGED_TASK = "CAUSAL_LM"


def provide(named: ModelSource, context: Context) -> None:
    """See that the model of a job:// source is where `model.directory` says: merged there if it has to be."""
    pin = context.file.pin(named.source)
    if not pin.adapters:
        _verified(named, pin.base, pin.digest, context)
        return
    target = context.layout.merged(pin)
    if target.exists():
        return
    base = _base(named, pin, context)
    adapters = [_verified(named, adapter.uri, adapter.digest, context) for adapter in pin.adapters]
    for adapter in adapters:
        _check_task(named, adapter)
    with new_directory(target) as draft:
        _merge(named, base, adapters, draft)
        _copy_tokenizer(adapters[-1], draft)


def _base(named: ModelSource, pin: SourceReport, context: Context) -> Path:
    """The directory of what the adapters are merged into."""
    base = ModelSource(f"{named}: its base", pin.base, pin.revision)
    if parse_source(pin.base).scheme == "hf":
        path = hub.fetch(base, context.layout)
    else:
        path = _verified(named, pin.base, pin.digest, context)
    model.check_files(path, base)
    return path


def _verified(named: ModelSource, source: str, digest: str | None, context: Context) -> Path:
    """The directory of a result; InputError if it is not what was pinned."""
    path = local_path(source, context.volumes)
    if not path.is_dir():
        raise InputError(
            f"{named}: {source} is not there any more: run {shown(named.source)} again, "
            "then delete and apply this job again"
        )
    if digest and digest_of(path) != digest:
        raise InputError(
            f"{named}: {shown(named.source)} has written another result to {source} since it was pinned: "
            "delete and apply this job again"
        )
    return path


def _check_task(named: ModelSource, adapter: Path) -> None:
    """An adapter of another kind of model has a head that a language model has no place for."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("task_type") != _MERGED_TASK:
        raise InputError(
            f"{named}: its adapter is of a model for {config.get('task_type')}, and only those of language models "
            f"({_MERGED_TASK}) are merged: train {shown(named.source)} without adapter"
        )


def _merge(named: ModelSource, base: Path, adapters: list[Path], draft: Path) -> None:
    """One after the other, each into what came of the one before: as they were trained."""
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    quiet_libraries.hide_bars()
    try:
        merged = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
        for adapter in adapters:
            model.cover(merged, _tokenizer(adapter))
            merged = PeftModel.from_pretrained(merged, adapter, torch_device="cpu").merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        # A failing disk may come back, and more memory may help: neither is the user's model.
        if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(f"{named}: its adapters cannot be merged: {error}") from error
    merged.save_pretrained(draft)


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)


def _copy_tokenizer(adapter: Path, draft: Path) -> None:
    """The tokenizer and chat template that the adapter was trained with, byte for byte."""
    for name in model.TOKENIZER_FILES:
        if name != "config.json" and (adapter / name).is_file():
            # With its time of change: prepared data is known by it.
            shutil.copy2(adapter / name, draft / name)
