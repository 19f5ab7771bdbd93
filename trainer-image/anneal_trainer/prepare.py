"""The first half of every job: the model is there and loads, every row is read, tokenized and masked.

Runs on CPUs, in a pod of its own or in the process of `anneal run`. Whatever is wrong with model or data is found here,
all of it at once, before anything waits for a GPU. Prepared data that is there already is used again.
Not here: what needs torch, but for adapters of earlier jobs that are to be merged (`merge`); reading and tokenizing
themselves (`data`).
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from anneal_api.datasetreport import DatasetReport
from anneal_api.model import ModelSource, ModelSpec
from anneal_api.online import RewardSource
from anneal_api.resolve import DATA_FORMAT_VERSION, digest, prepare_inputs
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.sources import UnmappedVolumeError, parse_source
from anneal_trainer import hub, merge, model, reference, rewards, served
from anneal_trainer.context import Context
from anneal_trainer.data import store
from anneal_trainer.data.build import build
from anneal_trainer.data.identity import Identity, sources_identity
from anneal_trainer.errors import ConfigError, InputError, TrainerError
from anneal_trainer.files import digest_of_files, draft_beside, full_disk_told, new_directory
from anneal_trainer.preview import kept
from anneal_trainer.preview.read import first_rows
from anneal_trainer.reporter import Reporter

# What may lie in a directory of prepared data; `cache-*` is what `datasets` computes of a split.
_OWN = re.compile(
    r"report\.json|preview\.(html|txt)|reference-[^/]+\.safetensors"
    rf"|({store.TRAIN}|{store.EVAL})(/({'|'.join(map(re.escape, store.NAMES))}|cache-[^/]+\.arrow))?"
)
_OTHERS_SHOWN = 3


@dataclass(frozen=True)
class Ready:
    """What training starts from."""

    prepared: store.Prepared
    model: ModelSpec
    model_path: Path
    reused: bool

    @cached_property
    def tokenizer(self) -> Any:
        """Loaded when it is first asked for, and once in a process: data that is there is found without it."""
        return model.load_tokenizer(self.model, self.model_path)

    @property
    def report(self) -> DatasetReport:
        """What was made of the data."""
        return self.prepared.report


def prepare(context: Context, reporter: Reporter) -> Ready:
    """Check the model, make the data or find it made, and point the job's prepare key at it."""
    try:
        return _prepare(context, reporter)
    except UnmappedVolumeError as error:
        raise InputError(str(error)) from error


def _prepare(context: Context, reporter: Reporter) -> Ready:
    spec, layout = context.spec, context.layout
    for named in spec.models:
        _provide(named, context, reporter, spec.method)
    for named in spec.judges:
        _provide(named, context, reporter, "reward")
    reference.check_reference(context)
    served.check_length(context)
    path = model.directory(spec.models[0], context)
    reporter.update(phase="preparing")
    sources = sources_identity(spec, context.volumes, path)
    fingerprint = _fingerprint(context, sources, path)
    target = layout.prepared(fingerprint)
    found = store.load(target)
    with full_disk_told(target.parent):
        if found is None:
            tokenizer = model.load_tokenizer(spec.model, path)
            with new_directory(target, stays=store.is_whole) as draft:
                _make(context, tokenizer, path, draft=draft, fingerprint=fingerprint, reporter=reporter)
        else:
            kept.publish(context, target, reporter)
        store.point(layout, context.file.prepare_key, fingerprint, sources)
    prepared = found or store.load(target)
    assert prepared is not None, f"{target} was just written"
    _check_rewards(context, prepared)
    ready = Ready(prepared, spec.model, path, reused=found is not None)
    if found is None:
        vars(ready)["tokenizer"] = tokenizer
    return ready


def _provide(named: ModelSource, context: Context, reporter: Reporter, method: str) -> None:
    """Have a model's files where training will look for them, and see that they are a model's."""
    match parse_source(named.source).scheme:
        case "hf":
            reporter.update(phase="fetching")
            hub.fetch(named, context.layout)
        case "job":
            reporter.update(phase="merging")
            merge.provide(named, context)
    path = model.directory(named, context)
    model.check_files(path, named)
    model.check_head(path, named, method)


def _without_hub(reward: RewardSource) -> RewardSource:
    """One of no kind, at which nothing is looked, in the place of a model of the hub."""
    of_hub = reward.model is not None and parse_source(reward.model.source).scheme == "hf"
    return reward.model_copy(update={"model": None}) if of_hub else reward


def _check_rewards(context: Context, prepared: store.Prepared, *, fetched: bool = True) -> None:
    """UserError if a reward cannot judge these rows, as far as that shows without asking it.

    `fetched`: reward models of the hub are on the storage too; else they are not looked at.
    """
    spec = context.spec
    if not isinstance(spec, RLHFSpec) or not spec.rewards:
        return
    if not fetched:
        spec = spec.model_copy(update={"rewards": [_without_hub(reward) for reward in spec.rewards]})
    rows = prepared.dataset(store.TRAIN)[store.ROW]
    places = rewards.Places(
        modules=context.reward_modules,
        files=context.reward_files,
        model=lambda reward: model.directory(ModelSource("", reward.source, reward.revision), context),
        environment=os.environ,
    )
    rewards.check(spec.rewards, _columns(rows), places)


def _columns(rows: Iterable[str]) -> dict[str, Counter[type]]:
    """What the columns of the prompts hold: how many values of each type."""
    found: dict[str, Counter[type]] = {}
    for row in rows:
        for name, value in json.loads(row)["columns"].items():
            found.setdefault(name, Counter()).update([type(value)] if value is not None else [])
    return found


def prepare_into(context: Context, out: Path, reporter: Reporter) -> Ready:
    """Prepared data at `out`, of the job's own choosing: train/, eval/ and report.json. Needs a tokenizer, no weights.

    Data that is there and is the same is left as it is; other prepared data is replaced; anything else is not touched.
    Rewards are opened as a pod opens them, once the data is there.
    """
    try:
        ready = _prepare_into(context, out.resolve(), reporter)
        _check_rewards(context, ready.prepared, fetched=False)
    except UnmappedVolumeError as error:
        raise InputError(str(error)) from error
    return ready


def _prepare_into(context: Context, out: Path, reporter: Reporter) -> Ready:
    path = model.tokenizer_directory(context.spec.models[0], context)
    fingerprint = _fingerprint(context, sources_identity(context.spec, context.volumes, path), path)
    _check_ours(out)
    found = store.load(out)
    if found is not None and found.report.fingerprint == fingerprint:
        return Ready(found, context.spec.model, path, reused=True)
    _check_writable(out)
    reporter.update(phase="preparing")
    tokenizer = model.load_tokenizer(context.spec.model, path)
    with full_disk_told(out.parent), new_directory(out, stays=lambda _: False) as draft:
        _make(context, tokenizer, path, draft=draft, fingerprint=fingerprint, reporter=reporter)
    prepared = store.load(out)
    assert prepared is not None, f"{out} was just written"
    return Ready(prepared, context.spec.model, path, reused=False)


def _make(context: Context, tokenizer: Any, path: Path, *, draft: Path, fingerprint: str, reporter: Reporter) -> None:
    """Everything of a prepared directory. The preview comes first: people can look while all rows are read."""
    if rows := context.spec.preparation.preview_rows:
        # What keeps a source from being read is told by the build, with everything else that is wrong.
        with suppress(TrainerError):
            kept.write(draft, kept.bounded(first_rows(context, tokenizer, path, rows=rows)))
            kept.publish(context, draft, reporter)
    built = build(context, tokenizer, path, draft=draft, reporter=reporter)
    store.write_report(draft, built.report.model_copy(update={"fingerprint": fingerprint}), built.places)


def _check_ours(out: Path) -> None:
    """ConfigError if anything at `out` is not of a preparation: it would go with the directory."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: name a new or an empty directory")
    if others := sorted(islice(_others(out), _OTHERS_SHOWN)):
        raise ConfigError(
            f"{out} holds something else than prepared data: {', '.join(others)}; name a new or an empty directory"
        )


def _others(out: Path) -> Iterator[str]:
    """What is in `out` and no preparation wrote; only a `report.json` with a fingerprint is ours."""
    ours = "fingerprint" in store.read_report(out)
    names = (str(path.relative_to(out)) for path in out.rglob("*"))
    return (name for name in names if not (ours and _OWN.fullmatch(name)))


def _check_writable(out: Path) -> None:
    """ConfigError, before any row is read, if no directory can be put at `out`."""
    if out.is_mount() or Path.cwd().is_relative_to(out):
        raise ConfigError(
            f"{out} is a mount point or the working directory, and cannot be replaced as a whole: name a new directory "
            f"in it, like {out / 'prepared'}"
        )
    try:
        with full_disk_told(out.parent), draft_beside(out):
            pass
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; name a directory that can be made") from error


def _fingerprint(context: Context, sources: Identity, path: Path) -> str:
    """Equal only where rows, tokenizer and options are. Names are left out: the same model in two places is one."""
    inputs = {key: value for key, value in prepare_inputs(context.spec).items() if key not in ("model", "revision")}
    return digest([DATA_FORMAT_VERSION, inputs, sources, digest_of_files(path, model.TOKENIZER_FILES)])
