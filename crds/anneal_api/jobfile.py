"""The job as a pod sees it: the resolved manifest and what only the operator knows, in one JSON file.

The operator writes it into the job's ConfigMap, mounted at `meta.CONFIG_DIR`/`meta.JOB_FILE`; the trainer parses it with
the same models that the API server's schema was made from. `anneal run` builds the same object in memory, with an empty
UID. Not here: paths on disk beyond the layout, and anything that changes between attempts (that is in the environment).
"""

import json
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny

from anneal_api.base import Record
from anneal_api.job import Job
from anneal_api.kinds import KINDS
from anneal_api.layout import Layout
from anneal_api.model import ModelSource
from anneal_api.names import owner_label, run_directory
from anneal_api.resolve import prepare_key
from anneal_api.sources import local_path, parse_source
from anneal_api.status import SourceReport

RUNTIME_KEY = "runtime"
_LOCAL_ENDING = {"finetunejob": "", "rlhfjob": "-rlhf"}


class Runtime(Record):
    """What was decided beside the spec: the storage claim, where the result goes, what job:// sources stand for."""

    storage_claim: str
    output_path: str | None = None
    sources: tuple[SourceReport, ...] = ()


class JobFile(Record):
    """A job with every default filled, the claim that is its storage, and what its job:// sources stand for."""

    job: SerializeAsAny[Job]
    storage_claim: str
    sources: tuple[SourceReport, ...] = ()

    @property
    def uid(self) -> str:
        """The object's UID; empty without a cluster."""
        return str(self.job.metadata.get("uid", ""))

    @property
    def namespace(self) -> str:
        """The object's namespace; empty without a cluster."""
        return str(self.job.metadata.get("namespace", ""))

    @property
    def run_directory(self) -> str:
        """The job's own directory below its storage; without a cluster no UID tells equal names apart."""
        return run_directory(self.job.name, self.uid) if self.uid else self.local_run(self.job.kind, self.job.name)

    @staticmethod
    def local_run(kind: str, name: str) -> str:
        """The same by kind and name alone, where there is no cluster: two jobs of different kinds may have one name."""
        return f"runs/{owner_label(name)}{_LOCAL_ENDING[kind.lower()]}"

    @property
    def prepare_key(self) -> str:
        """What this job's prepared data is found by, on this claim."""
        return prepare_key(self.job.spec, self.storage_claim, self.sources)

    def pin(self, source: str) -> SourceReport:
        """What a job:// source stands for: found out by whoever starts the job, before anything of it runs."""
        return {pin.source: pin for pin in self.sources}[source]

    def layout(self, volumes: dict[str, Path]) -> Layout:
        """Where everything is; `volumes` maps each claim to its directory here."""
        return Layout(volumes[self.storage_claim], self.run_directory, self.job.spec.output.path)

    def directory(self, named: ModelSource, volumes: dict[str, Path]) -> Path:
        """Where a model's files are; one of the hub, or of adapters that are merged, is where `prepare` puts it."""
        match parse_source(named.source).scheme:
            case "hf":
                return self.layout(volumes).model(named.source, named.revision)
            case "job":
                pin = self.pin(named.source)
                return self.layout(volumes).merged(pin) if pin.adapters else local_path(pin.base, volumes)
            case _:
                return local_path(named.source, volumes)

    def encode(self) -> str:
        """The text of the file: stable, so that an unchanged job applies as no change."""
        runtime = Runtime(storage_claim=self.storage_claim, output_path=self.job.spec.output.path, sources=self.sources)
        document = {
            "apiVersion": self.job.api_version,
            "kind": self.job.kind,
            "metadata": {key: self.job.metadata.get(key, "") for key in ("name", "namespace", "uid")},
            "spec": self.job.spec.dump(),
            RUNTIME_KEY: runtime.dump(),
        }
        return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False)

    @classmethod
    def decode(cls, text: str) -> "JobFile":
        """The file's content; ValueError where it is not one."""
        document: dict[str, Any] = json.loads(text)
        runtime = Runtime.model_validate(document.pop(RUNTIME_KEY, None))
        job = KINDS[document["kind"]].model_validate(document)
        return cls(job=job, storage_claim=runtime.storage_claim, sources=runtime.sources)
