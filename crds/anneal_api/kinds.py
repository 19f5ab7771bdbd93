"""The two kinds of job, side by side: what is generated for each, and read as each."""

from types import ModuleType
from typing import Final

from anneal_api import finetunejob, rlhfjob
from anneal_api.finetunejob import FineTuneJob
from anneal_api.job import Job
from anneal_api.rlhfjob import RLHFJob

KINDS: Final[dict[str, type[FineTuneJob] | type[RLHFJob]]] = {
    finetunejob.KIND: FineTuneJob,
    rlhfjob.KIND: RLHFJob,
}
# For the generators: names, columns and model of each.
DESCRIBED: Final[tuple[tuple[ModuleType, type[Job]], ...]] = ((finetunejob, FineTuneJob), (rlhfjob, RLHFJob))
