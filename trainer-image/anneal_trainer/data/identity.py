"""What prepared data was made from, cheaply enough to ask again before every attempt.

A file here is identified by its path, size and time of change: reading terabytes to compare them would cost more than
it saves, and a file that is rewritten with neither changed is not something people do. One elsewhere, by what its
server says of its content (an ETag, a checksum, a generation), and where it says nothing, by the content; a hub source
by its commit; a query by its rows. Only files here are looked at before an attempt: a GPU pod asks no server, and the
rows that were prepared stay the rows of the job.
"""

import hashlib
from pathlib import Path
from typing import Any

from anneal_api.datasource import DataSource
from anneal_api.job import JobSpec
from anneal_api.sources import parse_source
from anneal_trainer.data.sources import DataFile, files_of
from anneal_trainer.data.sources.failures import told
from anneal_trainer.data.sources.streams import filesystem, opened
from anneal_trainer.model import TOKENIZER_FILES

# A name first; last the time of change of a file here (a number), or the sign of one elsewhere (text).
Identity = list[list[Any]]
_HERE = ("volume", "local")
# What servers call the sign of a content. Not dates: a copy has another one, and the same second may see two writes.
_SIGNS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "Content-MD5", "Digest", "generation")


def sources_identity(spec: JobSpec, volumes: dict[str, Path], model: Path) -> Identity:
    """One entry a file or source: its name, and what changes when its content does."""
    entries: Identity = []
    for _, dataset in spec.all_datasets:
        entries += _local(dataset, volumes) if _is_here(dataset.source) else _remote(dataset, volumes)
    return entries + _tokenizer(spec, model)


def changed_since(made_from: Identity, spec: JobSpec, volumes: dict[str, Path], model: Path) -> list[str]:
    """The names of the files here that are not as they were, or are new or gone; InputError if a source is gone."""
    now = [entry for _, dataset in spec.all_datasets if _is_here(dataset.source) for entry in _local(dataset, volumes)]
    now += _tokenizer(spec, model)
    then = [entry for entry in made_from if isinstance(entry[-1], int)]
    return sorted({str(entry[0]) for entry in (*now, *then) if (entry in now) != (entry in then)})


def _is_here(source: str) -> bool:
    return parse_source(source).scheme in _HERE


def _local(dataset: DataSource, volumes: dict[str, Path]) -> Identity:
    if dataset.query is not None:
        from anneal_api.sources import local_path

        return [_entry(dataset.source, local_path(dataset.source, volumes))]
    return [_entry(file.shown, Path(file.url)) for file in files_of(dataset, volumes)]


def _remote(dataset: DataSource, volumes: dict[str, Path]) -> Identity:
    match parse_source(dataset.source).scheme:
        case "sql":
            from anneal_trainer.data.sources import sql

            return [[dataset.source, sql.content_digest(dataset, volumes)]]
        case "hf":
            from anneal_trainer.data.sources import hub

            return [[dataset.source, hub.commit(dataset)]]
        case _:
            return [_signed(file) for file in files_of(dataset, volumes)]


def _signed(file: DataFile) -> list[Any]:
    with told(file.shown, file.scheme):
        system, path = filesystem(file.url)
        about = system.info(path)
    sign = next((f"{name} {about[name]}" for name in _SIGNS if about.get(name)), None) or _content(file)
    return [file.shown, about.get("size"), sign]


def _content(file: DataFile) -> str:
    plain = DataFile(file.shown, file.url, file.scheme, file.kind)
    with opened(plain) as stream:
        total = hashlib.sha256()
        while block := stream.read(1 << 20):
            total.update(block)
        return total.hexdigest()


def _tokenizer(spec: JobSpec, model: Path) -> Identity:
    return [_entry(f"{spec.model.source}/{name}", model / name) for name in TOKENIZER_FILES if (model / name).exists()]


def _entry(shown: str, path: Path) -> list[Any]:
    with told(shown, "local"):
        status = path.stat()
    return [shown, status.st_size, status.st_mtime_ns]
