"""The result on the job's storage: an adapter or a model, with its tokenizer, whole or not there."""

import shutil
from typing import Any

from anneal_api.status import Output
from anneal_trainer.context import Context
from anneal_trainer.files import digest_of, replace_directory


def save(context: Context, model: Any, tokenizer: Any) -> Output:
    """Write it where the job says, over an earlier one; only the first rank calls this."""
    target = context.layout.output
    draft = target.with_name(f".{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    digest = digest_of(draft)
    replace_directory(draft, target)
    relative = target.relative_to(context.layout.storage)
    kind = "adapter" if context.spec.adapter else "model"
    return Output(kind=kind, uri=f"volume://{context.file.storage_claim}/{relative}", digest=digest)
