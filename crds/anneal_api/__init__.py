"""Anneal's API: the one source of schema, validation, defaults and names for operator, trainer and CLI."""

from anneal_api.conditions import ConditionType, Outcome, Phase, Reason
from anneal_api.finetunejob import FineTuneJob, FineTuneSpec
from anneal_api.job import Job, JobSpec
from anneal_api.layout import Layout
from anneal_api.manifest import documents, jobs_in, load_jobs, parse_job
from anneal_api.problems import ManifestError, Problem
from anneal_api.progress import ProgressReport, TerminationMessage
from anneal_api.resolve import prepare_inputs, prepare_key, resolve
from anneal_api.rlhfjob import RLHFJob, RLHFSpec
from anneal_api.status import JobStatus

__all__ = [
    "ConditionType",
    "FineTuneJob",
    "FineTuneSpec",
    "Job",
    "JobSpec",
    "JobStatus",
    "Layout",
    "ManifestError",
    "Outcome",
    "Phase",
    "Problem",
    "ProgressReport",
    "RLHFJob",
    "RLHFSpec",
    "Reason",
    "TerminationMessage",
    "documents",
    "jobs_in",
    "load_jobs",
    "parse_job",
    "prepare_inputs",
    "prepare_key",
    "resolve",
]
