"""What the operator tells Prometheus about itself, and the functions that record it.

Labels are bounded: kinds, verbs, results, never a job's name. Not here: a job's own figures (its rank 0 serves them).
"""

import time
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from anneal_api.conditions import Phase

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
RECONCILES = Counter("anneal_reconciles", "Passes by result.", ["result"], registry=REGISTRY)
RECONCILE_SECONDS = Histogram("anneal_reconcile_seconds", "Time of a pass.", buckets=_BUCKETS, registry=REGISTRY)
QUEUE_DEPTH = Gauge("anneal_queue_depth", "Jobs waiting for a pass.", registry=REGISTRY)
JOBS = Gauge("anneal_jobs", "Jobs by phase.", ["phase"], registry=REGISTRY)
API_CALLS = Counter("anneal_api_calls", "Requests to the API server.", ["verb", "resource", "code"], registry=REGISTRY)
API_SECONDS = Histogram(
    "anneal_api_call_seconds", "Time of a request.", ["verb", "resource"], buckets=_BUCKETS, registry=REGISTRY
)
POLLS = Counter("anneal_progress_polls", "Polls of trainers by result.", ["result"], registry=REGISTRY)
WATCH_EVENTS = Counter("anneal_watch_events", "Watch events by resource.", ["resource"], registry=REGISTRY)
WATCH_AGE = Gauge(
    "anneal_watch_age_seconds", "Time since a watch was last known to be alive.", ["resource"], registry=REGISTRY
)


def api_call(verb: str, resource: str, code: str, seconds: float) -> None:
    """A finished request."""
    API_CALLS.labels(verb, resource, code).inc()
    API_SECONDS.labels(verb, resource).observe(seconds)


def reconciled(result: str, began: float) -> None:
    """A finished pass that began at `time.perf_counter()` = `began`."""
    RECONCILES.labels(result).inc()
    RECONCILE_SECONDS.observe(time.perf_counter() - began)


def exposition(phases: Iterable[str], queue_depth: int, watch_ages: dict[str, float]) -> bytes:
    """The page of `/metrics`; gauges are taken at the time of the scrape."""
    counts = Tally(phases)
    for phase in Phase:
        JOBS.labels(phase).set(counts.get(phase, 0))
    QUEUE_DEPTH.set(queue_depth)
    for resource, age in watch_ages.items():
        WATCH_AGE.labels(resource).set(age)
    page: bytes = generate_latest(REGISTRY)
    return page
