"""Logs are one JSON object a line."""

import json
import logging
import sys

from anneal_operator.logs import JsonFormatter


def test_a_record_names_its_job_and_keeps_its_traceback() -> None:
    """Both are fields, so that a log system can select by them."""
    try:
        int("no")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("anneal_operator.x", logging.ERROR, __file__, 1, "failed: %s", ("a\nb",), error)
    record.job = {"namespace": "team", "name": "bot"}
    line = JsonFormatter().format(record)
    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["level"], entry["message"], entry["namespace"], entry["name"]) == (
        "error",
        "failed: a\nb",
        "team",
        "bot",
    )
    assert "ValueError: invalid literal" in entry["exception"]
