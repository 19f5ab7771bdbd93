"""Fetching an hf:// model to the job's storage, once a revision. Only `prepare` does; pods with GPUs never download.

The credential is the HF_TOKEN that a Secret puts into the environment. Not here: data sets, which are streamed
(`data.sources`).
"""

from pathlib import Path

from anneal_api import Layout
from anneal_api.model import ModelSource
from anneal_api.sources import parse_source
from anneal_trainer.errors import InputError, TemporaryError
from anneal_trainer.files import new_directory

# Safetensors only: pickled weights can run code, and other frameworks' weights are not read.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def fetch(named: ModelSource, layout: Layout) -> Path:
    """The model's directory, after fetching what is not there; half a model is never seen there."""
    target = layout.model(named.source, named.revision)
    if target.exists():
        return target
    with new_directory(target) as draft:
        _download(named, draft, _WANTED)
    return target


def fetch_tokenizer(named: ModelSource) -> Path:
    """A directory with everything but the weights, in the hub library's own cache: enough to look at tokens."""
    return _download(named, None, [pattern for pattern in _WANTED if pattern != "*.safetensors"])


def _download(named: ModelSource, target: Path | None, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    name = parse_source(named.source).path
    try:
        return Path(snapshot_download(name, revision=named.revision, local_dir=target, allow_patterns=wanted))
    except GatedRepoError as error:
        raise InputError(
            f"{named}: access is gated: accept its terms on the hub, and name a Secret with HF_TOKEN in spec.secrets"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{named}: it has no branch, tag or commit {named.revision!r}: correct the revision beside it"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{named}: there is no such model, or it is private: then name a Secret with HF_TOKEN in spec.secrets"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise TemporaryError(f"{named}: the hub cannot be reached: {error}") from error
