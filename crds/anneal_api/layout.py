"""The layout of a job's storage: the same on a claim in a pod and in a directory of `anneal run`.

    models/DIGEST/            a model that was fetched, or merged from what earlier jobs made; shared by jobs
    prepared/FINGERPRINT/     prepared data (train/, eval/, report.json, preview.html), shared by jobs
    runs/NAME-UID5/           one job: checkpoints/ output/ logs/ samples/ (without a cluster: NAME, NAME-rlhf)

Not here: reading or writing anything.
"""

from dataclasses import dataclass
from pathlib import Path

from anneal_api.resolve import digest
from anneal_api.status import SourceReport


@dataclass(frozen=True)
class Layout:
    """The paths of one job: `storage` is the root of its claim, `run` its directory below it."""

    storage: Path
    run: str
    output_path: str | None = None

    @property
    def run_dir(self) -> Path:
        """The job's own directory."""
        return self.storage / self.run

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints, `checkpoint-STEP` each."""
        return self.run_dir / "checkpoints"

    @property
    def logs(self) -> Path:
        """One log an attempt."""
        return self.run_dir / "logs"

    @property
    def samples(self) -> Path:
        """Sample generations."""
        return self.run_dir / "samples"

    @property
    def output(self) -> Path:
        """The result: `spec.output.path` or the run's own directory."""
        return self.storage / (self.output_path or f"{self.run}/output")

    def model(self, source: str, revision: str) -> Path:
        """Where an hf:// model of one revision is kept."""
        return self.storage / "models" / digest([source, revision])

    def merged(self, pin: SourceReport) -> Path:
        """Where a base with its adapters merged is kept: equal for jobs that start from the same."""
        made_of = {key: value for key, value in pin.dump().items() if key not in ("source", "uid")}
        return self.storage / "models" / digest(made_of)

    def prepared(self, fingerprint: str) -> Path:
        """Where prepared data is kept."""
        return self.storage / "prepared" / fingerprint
