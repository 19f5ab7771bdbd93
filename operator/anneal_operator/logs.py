"""Logs as one JSON object a line, with the job's namespace and name where there is one."""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; namespace, name and kind of a job; the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        job = getattr(record, "job", None) or getattr(record, "k8s_ref", None)
        if isinstance(job, dict):
            entry |= {key: job[key] for key in ("namespace", "name", "kind") if key in job}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send everything to stderr as JSON; kopf's own chatter only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in ("kopf", "aiohttp.access", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)
