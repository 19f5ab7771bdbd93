"""`/progress`, `/preview`, `/metrics`, `/healthz` and `/adapters/NAME/FILE` on the pod's own port, from the start.

The launcher serves them, so they answer while the training process still imports; what they say is what that
process last wrote. Not here: who may ask (a NetworkPolicy).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from anneal_api import ProgressReport
from anneal_trainer.preview.kept import PUBLISHED
from anneal_trainer.reporter import PROGRESS_FILE
from anneal_trainer.rollout.served import file_asked

_SILENCE = 60.0
_GAUGES = {
    "step": "Optimizer steps done.",
    "total_steps": "Optimizer steps in all.",
    "epoch": "Passes over the training rows.",
    "loss": "Training loss of the last step, mean over trained tokens.",
    "eval_loss": "Loss on the holdout.",
    "learning_rate": "Learning rate of the last step.",
    "grad_norm": "Gradient norm of the last step, before clipping.",
    "tokens_per_second": "Tokens processed a second over all processes.",
    "eta_seconds": "Seconds of training left.",
    "peak_memory_bytes": "Peak memory of the busiest device.",
    "rows": "Rows read while preparing.",
    "world_size": "Training processes.",
    "micro_batch_size": "Sequences of one pass on one device.",
    "attempt": "The number of the attempt.",
}


@dataclass(frozen=True)
class Records:
    """What the working process leaves in `directory`; `initial` is the report before its first one."""

    directory: Path
    initial: ProgressReport

    def report(self) -> ProgressReport:
        """The last report."""
        try:
            return ProgressReport.model_validate_json((self.directory / PROGRESS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return self.initial

    @property
    def adapters(self) -> Path:
        """What the servers that draw answers fetch: a directory a version."""
        return self.directory / "adapters"

    def preview(self) -> bytes | None:
        """The preview as JSON, once there is one."""
        try:
            return (self.directory / PUBLISHED).read_bytes()
        except FileNotFoundError:
            return None


class _Collector:
    """Turns the last report into metrics when it is asked to."""

    def __init__(self, read: Callable[[], ProgressReport]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every number that is known, and the phase."""
        report = self._read()
        for name, text in _GAUGES.items():
            value = getattr(report, name)
            if value is not None:
                yield GaugeMetricFamily(f"anneal_trainer_{name}", text, value=value)
        if report.metrics:
            measured = GaugeMetricFamily("anneal_trainer_metric", "What the method measures.", labels=["name"])
            for name, value in report.metrics.items():
                measured.add_metric([name], value)
            yield measured
        info = InfoMetricFamily("anneal_trainer", "What the trainer does, on what.")
        info.add_metric([], {"phase": report.phase, "role": report.role, "device": report.device or ""})
        yield info


def _page(path: str, records: Records, registry: CollectorRegistry) -> tuple[str, bytes] | None:
    match path.partition("?")[0]:
        case "/progress":
            return "application/json", records.report().model_dump_json(by_alias=True, exclude_none=True).encode()
        case "/preview" if preview := records.preview():
            return "application/json", preview
        case "/metrics":
            return CONTENT_TYPE_LATEST, generate_latest(registry)
        case "/healthz":
            return "text/plain", b"ok"
    return None


def serve(records: Records, port: int) -> ThreadingHTTPServer:
    """Start serving on every address of the pod; `shutdown()` ends it. Port 0 takes any free one."""
    registry = CollectorRegistry()
    registry.register(_Collector(records.report))

    class Handler(BaseHTTPRequestHandler):
        # Of a read or a write: a loader that vanished must not keep a thread.
        timeout = _SILENCE
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            file = file_asked(self.path, records.adapters)
            if file is not None:
                self._send(file)
                return
            found = _page(self.path, records, registry)
            if found is None:
                self.send_error(404, "try /progress, /preview, /metrics or /healthz")
                return
            kind, body = found
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _send(self, path: Path) -> None:
            """A file of an adapter, which may be gigabytes: not by way of memory, and to many at once."""
            with path.open("rb") as file:
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(path.stat().st_size))
                self.end_headers()
                self.wfile.flush()
                # A loader that went away asks again, on another connection.
                try:
                    self.connection.sendfile(file)
                except OSError:
                    self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            """A line a poll would bury the log."""

    # Every address: the operator and Prometheus ask by the pod's IP.
    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True, name="progress").start()
    return server
