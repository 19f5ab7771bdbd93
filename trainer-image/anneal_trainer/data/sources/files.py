"""Which files a source is: one, those that a glob matches, a directory's, or those that `save_to_disk` wrote.

The same rules for every place; only listing differs. Not here: opening them (`streams`).
"""

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from anneal_api.datasource import DataSource
from anneal_api.sources import Source, local_path, parse_source
from anneal_trainer.data.sources.failures import told
from anneal_trainer.data.sources.streams import COMPRESSIONS, DataFile, filesystem
from anneal_trainer.errors import InputError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".tar": "webdataset",
    ".tgz": "webdataset",
}
# In a directory these may as well be a licence or an archive of pictures: they count where there is nothing else.
_SECOND = ("text", "webdataset")
_SPLITS, _STATE = "dataset_dict.json", "state.json"


class Place:
    """A file system as `files` needs it: listing, kinds of entries, and names for people."""

    def __init__(self, text: str, volumes: dict[str, Path]) -> None:
        source = parse_source(text)
        self.text, self.scheme = text, source.scheme
        if source.scheme in ("volume", "local"):
            from fsspec.implementations.local import LocalFileSystem

            self.system: Any = LocalFileSystem()
            self.path = str(local_path(text, volumes).absolute())
            self._prefix = str(volumes[source.claim].absolute()) if source.claim else ""
        else:
            with told(text, source.scheme):
                self.system, self.path = filesystem(text)
            self._prefix = ""
        self._source = source

    def shown(self, path: str) -> str:
        """A path as the user would write it."""
        if self._source.claim:
            return f"volume://{self._source.claim}/{path.removeprefix(self._prefix).lstrip('/')}".removesuffix("/")
        if self.scheme == "local":
            return self.text if path == self.path else path
        if self.scheme == "http":
            return self.text
        return f"{self.scheme}://{path.removeprefix('datasets/')}"

    def url(self, path: str) -> str:
        """A path as `streams` opens it."""
        if self.scheme in ("volume", "local"):
            return path
        # The text of a web source keeps its $(NAME): a chunk that is handed on holds no credential.
        return self.text if self.scheme == "http" else f"{self.scheme}://{path}"

    def file(self, path: str, kind: str) -> DataFile:
        """A file of a known kind."""
        compression = PurePosixPath(path).suffix if PurePosixPath(path).suffix in COMPRESSIONS else ""
        return DataFile(self.shown(path), self.url(path), self.scheme, kind, _compression(path, compression))


def _compression(path: str, found: str) -> str:
    return ".gz" if path.endswith(".tgz") else found


def kind_of(path: str) -> str | None:
    """What a file's name says it holds."""
    name = posixpath.basename(path.partition("?")[0]).lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return KINDS.get(posixpath.splitext(name)[1])


def place_of(dataset: DataSource, volumes: dict[str, Path]) -> Place:
    """Where an entry's files are. A hub source with a file is one of the hub's own file system."""
    source = parse_source(dataset.source)
    if source.scheme != "hf":
        return Place(dataset.source, volumes)
    return _HubPlace(dataset, source)


class _HubPlace(Place):
    """Files of a data set of the hub at a revision."""

    def __init__(self, dataset: DataSource, source: Source) -> None:
        owner, name, *rest = [*source.path.split("/"), ""][:2] + source.path.split("/")[2:]
        repo = f"{owner}/{name}" if name else owner
        self.text, self.scheme, self._source, self._prefix = dataset.source, "hf", source, ""
        self._at = f"datasets/{repo}@{dataset.revision.replace('/', '%2F')}"
        self._repo = f"datasets/{repo}"
        with told(dataset.source, "hf"):
            self.system, _ = filesystem("hf://" + self._repo)
        self.path = "/".join([self._at, *rest])

    def shown(self, path: str) -> str:
        """Without the revision, as in the manifest."""
        return "hf://" + path.removeprefix("datasets/").replace(
            self._at.removeprefix("datasets/"), self._repo.removeprefix("datasets/")
        )


def files_of(dataset: DataSource, volumes: dict[str, Path]) -> list[DataFile]:
    """The data files of an entry, in order; InputError if there is none."""
    place = place_of(dataset, volumes)
    with told(dataset.source, place.scheme):
        paths = list(_paths(place, dataset))
    return [place.file(path, _kind(place, path, dataset)) for path in paths]


def _kind(place: Place, path: str, dataset: DataSource) -> str:
    kind = dataset.ds_type or kind_of(path)
    if kind is None:
        ending = posixpath.splitext(posixpath.basename(path.partition("?")[0]))[1] or "nothing"
        raise InputError(
            f"{place.shown(path)}: files that end in {ending} cannot be read; accepted: {', '.join(KINDS)}, "
            f"each also with {', '.join(COMPRESSIONS)}; or say with dsType what it holds"
        )
    return kind


def _paths(place: Place, dataset: DataSource) -> Iterator[str]:
    if dataset.data_files:
        for pattern in dataset.data_files:
            yield from _one(place, f"{place.path}/{pattern}", dataset)
    else:
        yield from _one(place, place.path, dataset)


def _one(place: Place, path: str, dataset: DataSource) -> list[str]:
    if place.scheme == "http":
        return [path]
    if any(mark in path for mark in "*?"):
        found = sorted(name for name, info in place.system.glob(path, detail=True).items() if info["type"] == "file")
    elif place.system.isdir(path):
        found = _inside(place, path, dataset)
    else:
        found = [path] if place.system.exists(path) else []
    if not found:
        raise InputError(f"{place.shown(path)}: {_why_none(place, path)}")
    return found


def _inside(place: Place, path: str, dataset: DataSource) -> list[str]:
    saved = _saved(place, path, dataset)
    if saved is not None:
        return saved
    found = sorted(name for name in place.system.find(path) if not _hidden(name, path))
    kinds = {name: dataset.ds_type or kind_of(name) for name in found}
    first = [name for name, kind in kinds.items() if kind and (dataset.ds_type or kind not in _SECOND)]
    return first or [name for name, kind in kinds.items() if kind]


def _hidden(name: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.removeprefix(root.rstrip("/") + "/").split("/"))


def _saved(place: Place, path: str, dataset: DataSource) -> list[str] | None:
    """What the datasets library saved: its Arrow files in its own order; of the entry's split if it has several."""
    if place.system.exists(f"{path}/{_SPLITS}"):
        splits = json.loads(place.system.cat_file(f"{path}/{_SPLITS}"))["splits"]
        if dataset.split not in splits:
            raise InputError(f"{place.shown(path)}: has no split {dataset.split!r}; it has {', '.join(splits)}")
        path = f"{path}/{dataset.split}"
    if not place.system.exists(f"{path}/{_STATE}"):
        return None
    state = json.loads(place.system.cat_file(f"{path}/{_STATE}"))
    return [f"{path}/{entry['filename']}" for entry in state["_data_files"]]


def _why_none(place: Place, path: str) -> str:
    if not any(mark in path for mark in "*?") and place.system.isdir(path):
        return f"the directory holds no data file; accepted: {', '.join(KINDS)}"
    parent = posixpath.dirname(path)
    while parent.strip("/") and (any(mark in parent for mark in "*?") or not place.system.isdir(parent)):
        parent = posixpath.dirname(parent)
    # Of a place that has no directories, such as a bucket that is not there, nothing can be shown.
    if not parent.strip("/") and place.scheme not in ("local", "volume"):
        return "there is no such file"
    beside = sorted(posixpath.basename(name.rstrip("/")) for name in place.system.ls(parent or "/", detail=False))[:8]
    return f"there is no such file; {place.shown(parent)} holds {', '.join(beside) or 'nothing'}"
