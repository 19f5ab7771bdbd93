"""Which rows a `datasets[]` entry has: the source and everything that selects and reads rows of it.

A block of its own below `DatasetSpec`, so that reading rows and turning a row into tokens are two pages. Every option
acts on the sources that its rule names and is refused beside the others. Not here: what a row means (`dataset`).
"""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from anneal_api.base import FILE_PATTERN, Block, Rule, ShortText
from anneal_api.sources import (
    CLUSTER_DATA_SOURCE,
    CLUSTER_DATA_SOURCE_MESSAGE,
    DATABASE_FILE,
    SQL,
    SQL_URL,
    DataSourceText,
    is_database,
    is_whole_hub_dataset,
)

# As Axolotl names them, and those that it lacks.
DsType = Literal["jsonl", "json", "csv", "tsv", "text", "parquet", "arrow", "webdataset"]
DataFileText = Annotated[str, StringConstraints(pattern=FILE_PATTERN, min_length=1, max_length=256)]
_DATABASE = f"(self.source.matches('^({SQL}|{SQL_URL})$') || self.source.matches('{DATABASE_FILE}'))"
_WHOLE_HUB = "self.source.matches('^hf://[^/]+(/[^/]+)?$')"


def _files(entry: "DataSource") -> bool:
    return not is_database(entry.source) and not is_whole_hub_dataset(entry.source)


def _lists(entry: "DataSource") -> bool:
    return not is_database(entry.source) and re.match("https?://", entry.source) is None


class DataSource(Block):
    """Rows, before anything is made of them."""

    source: DataSourceText = Field(
        description="Where the rows are: hf://ORG/NAME (a data set of the hub) or hf://ORG/NAME/FILE (files of it); volume://CLAIM/PATH; s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH; https://HOST/FILE; an SQLAlchemy URL; or for `anneal run` a local path. A path is a file, a glob (*, ?, **), a directory, or what `save_to_disk` wrote. Read: jsonl, json, csv, tsv, txt, parquet, arrow, webdataset (tar) and SQLite, also compressed (.gz, .bz2, .xz, .zst). A directory is its data files, sorted by name (.txt and .tar only where there is nothing else). Credentials are never written here: they are environment variables from `secrets` (HF_TOKEN; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY; FSSPEC_GS_TOKEN), and in a URL of a data base or in the query of a web address $(NAME) stands for one."
    )
    subset: ShortText | None = Field(
        default=None, description="The configuration name of an hf://ORG/NAME data set that has several."
    )
    split: ShortText = Field(
        default="train", description="The split of an hf://ORG/NAME data set, or of several that save_to_disk wrote."
    )
    revision: ShortText = Field(default="main", description="Branch, tag or commit of an hf:// data set.")
    data_files: list[DataFileText] = Field(
        default_factory=list,
        max_length=64,
        description="Files or globs below the source, where it is a directory, a bucket's path or a data set of the hub: only these are read, in this order.",
    )
    ds_type: DsType | None = Field(
        default=None,
        description="How files are read, where their names do not say it: a file without a known ending.",
    )
    sample_by: Literal["line", "paragraph", "document"] = Field(
        default="line",
        description="What is one row of a .txt file: a line, a paragraph (up to an empty line), or the whole file. Its column is text.",
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=8192,
        description="The SQL whose result is the rows, where the source is a data base. It is read twice: once to see whether prepared data can be used again.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="The most rows taken: the first ones, or any with `shuffle`."
    )
    shuffle: bool = Field(
        default=False,
        description="Take the `limit` rows from all over the source, chosen by training.seed, and not the first ones.",
    )
    shards: int | None = Field(
        default=None, ge=2, le=100_000, description="Take one row in this many, before `limit` counts."
    )
    shards_idx: int | None = Field(
        default=None, ge=0, le=99_999, description="Which of the `shards` is taken; 0 is the first. Default: 0."
    )

    weight: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Its share of the training rows, relative to the weights of the other datasets (preparation.sampling says how they are drawn). Absent from all: every row once.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.source.matches('{CLUSTER_DATA_SOURCE}')",
            message=CLUSTER_DATA_SOURCE_MESSAGE,
            field="source",
        ),
        Rule(
            cel=f"has(self.query) == {_DATABASE}",
            message="query is the SQL of a data base: write it where the source is an SQLAlchemy URL or a .sqlite or .db file, and only there",
            holds=lambda entry: (entry.query is not None) == is_database(entry.source),
            field="query",
        ),
        Rule(
            cel=f"!has(self.subset) || {_WHOLE_HUB}",
            message="subset is the configuration of a data set of the hub: remove it, or set source: hf://ORG/NAME",
            holds=lambda entry: entry.subset is None or is_whole_hub_dataset(entry.source),
            field="subset",
        ),
        Rule(
            cel=f"!has(self.dsType) || !({_DATABASE} || {_WHOLE_HUB} && (!has(self.dataFiles) || self.dataFiles.size() == 0))",
            message="dsType says how files are read; this source is no file: remove it",
            holds=lambda entry: entry.ds_type is None or _files(entry) or bool(entry.data_files),
            field="dsType",
        ),
        Rule(
            cel=f"!has(self.dataFiles) || self.dataFiles.size() == 0 || !({_DATABASE} || self.source.startsWith('http'))",
            message="dataFiles are below a directory, a bucket's path or a data set of the hub; this source has nothing below it: remove them",
            holds=lambda entry: not entry.data_files or _lists(entry),
            field="dataFiles",
        ),
        Rule(
            cel="!(has(self.subset) && has(self.dataFiles) && self.dataFiles.size() > 0)",
            message="subset and dataFiles each say which files are read: write one of them",
            holds=lambda entry: entry.subset is None or not entry.data_files,
            field="dataFiles",
        ),
        Rule(
            cel="!has(self.shuffle) || !self.shuffle || has(self.limit)",
            message="shuffle chooses the rows that limit counts (training shuffles by itself): write limit too, or remove it",
            holds=lambda entry: not entry.shuffle or entry.limit is not None,
            field="shuffle",
        ),
        Rule(
            cel="!has(self.shardsIdx) || (has(self.shards) && self.shardsIdx < self.shards)",
            message="shardsIdx counts the shards from 0: it must be less than shards",
            holds=lambda entry: entry.shards_idx is None or (entry.shards or 0) > entry.shards_idx,
            field="shardsIdx",
        ),
    )
