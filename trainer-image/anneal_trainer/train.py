"""The second half of every job: find what `prepare` made, check that it still holds, and run the method.

Not here: the methods themselves, which need torch and are imported last.
"""

from anneal_trainer import model
from anneal_trainer.context import Context
from anneal_trainer.data import store
from anneal_trainer.data.identity import changed_since
from anneal_trainer.errors import InputError, StaleDataError
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.stop import Stop


def find_ready(context: Context) -> Ready:
    """The prepared data of this job; StaleDataError, so that it is prepared again, if it is not there or has aged."""
    prepared, made_from = store.find(context.layout, context.file.prepare_key)
    if prepared is None:
        raise StaleDataError(
            "the prepared data is not on the job's storage (any more), or not whole: it is prepared again"
        )
    path = model.directory(context.spec.models[0], context)
    try:
        changed = changed_since(made_from or [], context.spec, context.volumes, path)
    except InputError as error:
        raise StaleDataError(f"a source has gone since the data was prepared: {error}") from error
    if changed:
        raise StaleDataError(f"changed since the data was prepared: {', '.join(changed)}; it is prepared again")
    return Ready(prepared, context.spec.model, path, reused=True)


def train(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Run the job's method."""
    match context.spec.method:
        case "sft" | "pretrain":
            from anneal_trainer.methods import sft

            return sft.run(context, ready, reporter=reporter, stop=stop)
        case "dpo" | "ipo" | "orpo" | "simpo" | "cpo":
            from anneal_trainer.methods import preference

            return preference.run(context, ready, reporter=reporter, stop=stop)
        case "kto":
            from anneal_trainer.methods import unpaired

            return unpaired.run(context, ready, reporter=reporter, stop=stop)
        case "reward" | "prm":
            from anneal_trainer.methods import scores

            return scores.run(context, ready, reporter=reporter, stop=stop)
        case "grpo" | "rloo":
            from anneal_trainer.methods import online

            return online.run(context, ready, reporter=reporter, stop=stop)
    raise AssertionError(f"no trainer for {context.spec.method}")
