"""What prepared data was made from, cheaply enough to ask again before every attempt.

A file is identified by its path, size and time of change: reading terabytes to compare them would cost more than it
saves, and a file that is rewritten with neither changed is not something people do. Not here: hub sources, which only
a prepare pod can ask about; their revision is part of the spec.
"""

from pathlib import Path
from typing import Any

from anneal_api.finetunejob import FineTuneSpec
from anneal_api.sources import parse_source
from anneal_trainer.data.sources import files_of
from anneal_trainer.model import TOKENIZER_FILES

Identity = list[list[Any]]


def sources_identity(spec: FineTuneSpec, volumes: dict[str, Path], model: Path) -> Identity:
    """One entry a file: its name, size in bytes and time of change in nanoseconds."""
    entries: Identity = []
    for dataset in spec.datasets:
        if parse_source(dataset.source).scheme == "hf":
            entries.append([dataset.source, dataset.revision])
        else:
            entries += [_entry(file.shown, file.path) for file in files_of(dataset.source, volumes)]
    return entries + [
        _entry(f"{spec.model.source}/{name}", model / name) for name in TOKENIZER_FILES if (model / name).exists()
    ]


def _entry(shown: str, path: Path) -> list[Any]:
    status = path.stat()
    return [shown, status.st_size, status.st_mtime_ns]
