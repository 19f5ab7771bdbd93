"""The result on the job's storage: an adapter or a model, with its tokenizer, whole or not there."""

import shutil
from typing import Any

from anneal_api.model import ModelSpec
from anneal_api.sources import parse_source
from anneal_api.status import Output
from anneal_trainer.context import Context
from anneal_trainer.files import digest_of, replace_directory
from anneal_trainer.model import BASE_CONFIG, directory


def save(context: Context, model: Any, tokenizer: Any) -> Output:
    """Write it where the job says, over an earlier one; only the first rank calls this."""
    target = context.layout.output
    draft = target.with_name(f".{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if context.spec.adapter:
        _name_base(model, context.spec.model)
        shutil.copyfile(directory(context.spec.models[0], context) / "config.json", draft / BASE_CONFIG)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    digest = digest_of(draft)
    replace_directory(draft, target)
    relative = target.relative_to(context.layout.storage)
    kind = "adapter" if context.spec.adapter else "model"
    return Output(kind=kind, uri=f"volume://{context.file.storage_claim}/{relative}", digest=digest)


def _name_base(model: Any, base: ModelSpec) -> None:
    """An adapter of a hub model names that model, not the directory of a pod that is long gone."""
    source = parse_source(base.source)
    if source.scheme == "hf":
        for config in model.peft_config.values():
            config.base_model_name_or_path, config.revision = source.path, base.revision
