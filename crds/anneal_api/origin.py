"""What a job's result is to the jobs that start from it: the meaning of `job://KIND/NAME`, decided in one place. Pure.

The operator asks it of the jobs of a namespace, `anneal run` of the runs on its storage. An adapter stands for the base
that it was trained on, with every adapter before it; a full model stands for itself.
Not here: waiting for a job to succeed (the operator's `steps.origin`), and merging (the trainer's `merge`).
"""

from anneal_api.base import Record
from anneal_api.kinds import KINDS
from anneal_api.model import ModelSource
from anneal_api.sources import parse_source
from anneal_api.status import MOST_ADAPTERS, AdapterPin, Output, SourceReport

# What they make judges texts and writes none.
JUDGES = ("reward", "prm")


class Made(Record):
    """What a job came to: how, from which model, and where its results are."""

    uid: str = ""
    method: str
    source: str
    revision: str = "main"
    adapter: bool = False
    # What the job:// sources of the job itself stood for.
    sources: tuple[SourceReport, ...] = ()
    outputs: tuple[Output, ...] = ()


def address(kind: str, name: str) -> str:
    """The source that stands for a job's result.

    >>> address("FineTuneJob", "support-bot")
    'job://finetunejob/support-bot'
    """
    return f"job://{kind.lower()}/{name}"


def shown(source: str) -> str:
    """The job that a source names, as messages write it: finetunejob/support-bot."""
    return parse_source(source).path


def other_kind(source: str) -> str:
    """The source with the same name and the other kind.

    >>> other_kind("job://finetunejob/judge")
    'job://rlhfjob/judge'
    """
    kind, _, name = shown(source).partition("/")
    (other,) = (address(each, name) for each in KINDS if each.lower() != kind)
    return other


def correction(source: str) -> str:
    """What to write where only the job of the other kind is there."""
    other = other_kind(source)
    kind, _, name = shown(other).partition("/")
    return f"{name} is {'an' if kind == 'rlhfjob' else 'a'} {kind}: write {other}"


def misuse(named: ModelSource, *, method: str, made: Made) -> str:
    """Why a job of `method` can never start from what is made so; empty if it can."""
    if named.field.startswith("rewards[") and made.method != "reward":
        return (
            f"{named}: {shown(named.source)} makes a model by method {made.method}, which gives a text no score: name a "
            "job of method reward"
        )
    if made.method not in JUDGES:
        return ""
    judge = f"{named}: {shown(named.source)} makes"
    rewards = named.field.startswith("rewards[")
    if not rewards and (method not in JUDGES or named.field != "model.source"):
        return (
            f"{judge} a model that judges answers (method {made.method}), which cannot write any: "
            "name a job of method sft, pretrain, dpo, ipo, kto, orpo, simpo, cpo, grpo or rloo"
        )
    if made.adapter:
        return (
            f"{judge} an adapter of a model that judges answers (method {made.method}), and only those of language "
            f"models are merged: train {shown(named.source)} without adapter"
        )
    return ""


def no_start(named: ModelSource, made: Made) -> str:
    """Why nothing can start from what has been made; empty if something can."""
    if not made.outputs:
        return f"{named}: {shown(named.source)} has succeeded without a result: delete it and apply it again"
    if made.outputs[0].kind == "adapter" and len(_start(made).adapters) >= MOST_ADAPTERS:
        return (
            f"{named}: {MOST_ADAPTERS} jobs in a row have made adapters, and no more can be merged: train a full model "
            "in between (remove adapter from one of them)"
        )
    return ""


def pin(source: str, made: Made) -> SourceReport:
    """What `source` stands for from now on; only where `no_start` has no objection."""
    output = made.outputs[0]
    if output.kind == "model":
        return SourceReport(source=source, uid=made.uid, base=output.uri, digest=output.digest)
    start = _start(made)
    adapters = [*start.adapters, AdapterPin(uri=output.uri, digest=output.digest)]
    return start.model_copy(update={"source": source, "uid": made.uid, "adapters": adapters})


def _start(made: Made) -> SourceReport:
    """What the job itself had started from."""
    pinned = (each for each in made.sources if each.source == made.source)
    return next(pinned, SourceReport(source=made.source, base=made.source, revision=made.revision))
