"""Whether a model is one that scores texts, as far as its files tell without being loaded. Needs no torch."""

from pathlib import Path

from anneal_api.model import ModelSource
from anneal_trainer.errors import InputError
from anneal_trainer.model import check_files, check_head, config_of

_KIND = "ForSequenceClassification"


def check_scores(path: Path, named: ModelSource) -> None:
    """InputError if the model does not give a text one score."""
    check_files(path, named)
    check_head(path, named, "reward")
    classes = config_of(path).get("architectures") or ["model of no named class"]
    if not str(classes[0]).endswith(_KIND):
        raise InputError(
            f"{named}: it is a {classes[0]}, which scores no texts; write a model that method reward made, or "
            f"another *{_KIND} with one label"
        )
