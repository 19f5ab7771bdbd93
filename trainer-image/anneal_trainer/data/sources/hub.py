"""A data set of the hub, as its own card describes it: the datasets library streams it, nothing is stored.

The commit is asked for once, so that all parts are of the same one. Files of a data set (`hf://ORG/NAME/FILE`, or
`dataFiles`) are read like any other files and do not come here.
"""

from collections.abc import Iterator

from anneal_api.datasource import DataSource
from anneal_api.sources import parse_source
from anneal_trainer.data.sources.failures import told
from anneal_trainer.data.sources.placed import Row
from anneal_trainer.errors import InputError


def commit(dataset: DataSource) -> str:
    """What a revision means today; the revision itself where the hub is not asked (HF_HUB_OFFLINE)."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return dataset.revision
    with told(dataset.source, "hf"):
        name = "/".join(parse_source(dataset.source).path.split("/")[:2])
        return str(HfApi().dataset_info(name, revision=dataset.revision).sha)


def rows(dataset: DataSource) -> Iterator[tuple[int, Row]]:
    """Every row with its number in the split."""
    from datasets import load_dataset

    name = parse_source(dataset.source).path
    with told(dataset.source, "hf"):
        revision = commit(dataset)
        try:
            found = load_dataset(name, dataset.subset, split=dataset.split, revision=revision, streaming=True)
        except ValueError as error:
            # An unknown split or subset: the library's words say which there are.
            raise InputError(f"{dataset.source}: {error}{_slice(dataset.split)}") from error
        yield from enumerate(found, start=1)


def _slice(split: str) -> str:
    return "; a part of a split is written with limit, shards or shuffle" if "[" in split else ""
